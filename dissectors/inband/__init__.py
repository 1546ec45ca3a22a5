"""In-band provisioning: the settings a phone is sent over SIP once it has signed in (protocol.md section 7.3)."""

from __future__ import annotations

from dissectors.errors import LimitExceeded
from dissectors.inband.dump import MAX_TEXT, parse_dump
from dissectors.inband.group_list import parse_group_list
from dissectors.inband.settings import InBandSettings, Setting
from dissectors.lines import sniff_encoding

CONTENT_TYPE = "application/vnd-microsoft-roaming-provisioning-v2+xml"

__all__ = ["CONTENT_TYPE", "InBandSettings", "Setting", "parse", "parse_dump", "parse_group_list"]


def parse(data: bytes, charset: str | None = None) -> InBandSettings:
    """Read a provisionGroupList or a printed dump of one. Raises `DissectError`."""
    encoding, mark = sniff_encoding(data[:64])
    start = data[mark : mark + 256].replace(b"\0", b"").lstrip()
    if start.startswith(b"<"):
        return parse_group_list(data, charset)
    if len(data) > 4 * MAX_TEXT:
        raise LimitExceeded(0, f"at most {MAX_TEXT} characters", f"{len(data)} bytes")
    return parse_dump(data[mark:].decode(encoding, "replace"))
