"""What `upshim proxy` loads of mitmproxy, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

LOADS = """
import sys
from proxy_addons import lean_import
if {lean}:
    lean_import.only_what_is_named()
import proxy_addons.launcher
from mitmproxy.addons import block
print(*(name for name in {names} if name in sys.modules))
"""
NAMES = ["mitmproxy.addons.block", "mitmproxy.addons.core", "mitmproxy.addons.onboarding", "flask", "sqlalchemy"]


@pytest.mark.parametrize(
    ("lean", "loaded"), [(True, NAMES[:2]), (False, [name for name in NAMES if name != "sqlalchemy"])]
)
def test_only_the_addons_that_are_named_are_loaded(lean: bool, loaded: list[str]) -> None:
    code = LOADS.format(lean=lean, names=NAMES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == loaded
