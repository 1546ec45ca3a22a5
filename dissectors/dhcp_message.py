"""DHCP messages (RFC 2131 section 2): who asks, what is given, and all options with their octets.

An option that comes several times is one long option (RFC 3396); options continue in the fields `file` and `sname`
where option 52 says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from dissectors.dhcp_options import DhcpOption, decode
from dissectors.errors import DissectError

MAX_MESSAGE = 65_535  # octets

COOKIE = b"\x63\x82\x53\x63"
_FIXED = 236
_SNAME, _FILE = (44, 108), (108, 236)
_PAD, _END, _OVERLOAD, _TYPE, _CLASS = 0, 255, 52, 53, 60
# RFC 2132 section 9.6
TYPES = ("", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform")


@dataclass(frozen=True, slots=True)
class DhcpMessage:
    """One message; `options` are code and octets, in the order they first appear."""

    from_client: bool
    transaction: int
    client_mac: str
    your_address: str
    options: tuple[tuple[int, bytes], ...]
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> DhcpMessage:
        """Read a message as it stands in a UDP datagram. Raises `DissectError`; broken options are `problems`."""
        if len(data) < _FIXED + 4 or len(data) > MAX_MESSAGE:
            raise DissectError(0, f"a DHCP message of at least {_FIXED + 4} octets", f"{len(data)}")
        if data[0] not in (1, 2):
            raise DissectError(0, "operation 1 or 2", f"{data[0]}")
        if data[_FIXED : _FIXED + 4] != COOKIE:
            raise DissectError(_FIXED, f"the magic cookie {COOKIE.hex()}", data[_FIXED : _FIXED + 4].hex())
        found: dict[int, bytearray] = {}
        problems: list[str] = []
        _walk(data, _FIXED + 4, len(data), found, problems)
        overload = found.get(_OVERLOAD, b"")[:1] or b"\0"
        for bit, (start, end) in ((1, _FILE), (2, _SNAME)):
            if overload[0] & bit:
                _walk(data, start, end, found, problems)
        return cls(
            data[0] == 1,
            int.from_bytes(data[4:8], "big"),
            data[28 : 28 + min(data[2], 16)].hex(":"),
            str(IPv4Address(data[16:20])),
            tuple((code, bytes(value)) for code, value in found.items()),
            tuple(problems),
        )

    def get(self, code: int) -> bytes | None:
        """The octets of an option."""
        return next((value for key, value in self.options if key == code), None)

    @property
    def message_type(self) -> str:
        """The message's name; plain BOOTP has none."""
        value = self.get(_TYPE)
        if not value:
            return "bootp"
        return TYPES[value[0]] if 0 < value[0] < len(TYPES) else f"type {value[0]}"

    @property
    def vendor_class(self) -> str | None:
        """Option 60, as text."""
        value = self.get(_CLASS)
        return value.decode("ascii", "backslashreplace") if value else None

    def to_json(self, vendor_class: str | None = None) -> dict[str, Any]:
        """The `dhcp-message` fact; `vendor_class` is what the client called itself earlier."""
        kind = self.vendor_class or vendor_class
        return {
            "fact": "dhcp-message",
            "message": self.message_type,
            "transaction": f"{self.transaction:08x}",
            "client_mac": self.client_mac,
            "your_address": self.your_address,
            "options": [_shown(code, value, kind) for code, value in self.options],
        }


def _shown(code: int, value: bytes, vendor_class: str | None) -> dict[str, Any]:
    try:
        option = decode(code, value, vendor_class)
    except DissectError as error:  # too long
        option = DhcpOption(code, value, None, (str(error),))
    shown = option.to_json()
    del shown["fact"]
    return shown


def _walk(data: bytes, at: int, end: int, found: dict[int, bytearray], problems: list[str]) -> None:
    while at < end and data[at] != _END:
        code = data[at]
        at += 1
        if code == _PAD:
            continue
        size = data[at] if at < end else 0
        value = data[at + 1 : min(at + 1 + size, end)]
        if at >= end or len(value) < size:
            problems.append(f"option {code} at offset {at - 1} is cut off")
        found.setdefault(code, bytearray()).extend(value)
        at += 1 + size
