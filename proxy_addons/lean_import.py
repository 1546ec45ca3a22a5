"""Importing mitmproxy's addons one by one: the package itself imports all thirty, with a web server and LDAP.

For a process that is a proxy and nothing else, before anything of mitmproxy is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType

import mitmproxy

PACKAGE = "mitmproxy.addons"


def only_what_is_named() -> None:
    """Have `from mitmproxy.addons import x` import `x` alone; too late where the package is there already."""
    if PACKAGE not in sys.modules:
        package = ModuleType(PACKAGE)
        package.__path__ = [f"{folder}/addons" for folder in mitmproxy.__path__]
        sys.modules[PACKAGE] = package
