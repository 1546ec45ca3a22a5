"""A server as the command line and the options name it."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?:{_LABEL}\.)*(?!\d+\.?$){_LABEL}\.?", re.ASCII | re.IGNORECASE)
_MAX_NAME = 254
_ZONE = re.compile(r"[\w.-]+", re.ASCII)


def is_host(text: str) -> bool:
    """Whether this is an IP address (without brackets) or can be a name in DNS."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return len(text) <= _MAX_NAME and _NAME.fullmatch(text) is not None
    zone = getattr(address, "scope_id", None)
    return zone is None or _ZONE.fullmatch(zone) is not None


def is_address(host: str) -> bool:
    """Whether this is an address, and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def parse_upstream(text: str) -> tuple[str, int]:
    """`host:port`, or a URL whose scheme gives the port. Raises `ValueError` with one line."""
    if "@" in text:  # it is not shown: there is a password
        raise ValueError("a login before the host is not supported: expected a server such as http://10.0.0.5")
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        port = parts.port or {"http": 80, "https": 443, "": 80}.get(parts.scheme)
    except ValueError:
        port = parts = None
    if parts is None or not port or parts.path.strip("/") or not is_host(parts.hostname or ""):
        raise ValueError(f"expected a server such as http://10.0.0.5 or https://10.0.0.5:8443, found {text!r}")
    return (parts.hostname or "").lower(), port
