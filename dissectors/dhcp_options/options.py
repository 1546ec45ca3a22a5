"""The other options of the phones' bootstrap, and one entrance for all of them (protocol.md section 7.2)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from construct import Int32sb

from dissectors.dhcp_options.domain_names import build_names, parse_names
from dissectors.dhcp_options.vendor import CPE_OCPHONE, MS_UC_CLIENT, VendorOptions, addresses
from dissectors.errors import DissectError, LimitExceeded

MAX_LONG_OPTION = 4096  # octets, joined from several (RFC 3396)

_CLASSES = {known.casefold(): known for known in (MS_UC_CLIENT, CPE_OCPHONE)}
_NAMES, _ADDRESSES = 0, 1  # encodings of option 120, RFC 3361 section 3


class Value(Protocol):
    """What an option's octets mean."""

    @property
    def problems(self) -> tuple[str, ...]:
        """What a phone would stumble over."""

    def to_bytes(self) -> bytes:
        """The option's octets."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""


@dataclass(frozen=True, slots=True)
class SipServers:
    """Option 120 (RFC 3361): names after the octet 00, or IPv4 addresses after the octet 01."""

    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> SipServers:
        """Read either encoding. Raises `DissectError`, naming the usual ways of getting it wrong."""
        if not data:
            raise DissectError(0, "the encoding octet 00 or 01", "nothing")
        if data[0] == _ADDRESSES:
            return cls(addresses=_ipv4_list(data, 1))
        if data[0] == _NAMES:
            # RFC 3361 section 3.1 refers to RFC 1035 section 3.1 only: no compression.
            names = parse_names(data, 1, compressed=False)
            if not names:
                raise DissectError(1, "a name", "the end")
            return cls(names)
        raise DissectError(0, "the encoding octet 00 or 01", _without_encoding(data))

    @property
    def problems(self) -> tuple[str, ...]:
        """Phones want one name, because TLS needs one."""
        found = []
        if self.addresses:
            found.append("addresses instead of names: these phones use TLS, which needs a name")
        if "." in self.names:
            found.append("an empty name in the list")
        return tuple(found)

    def to_bytes(self) -> bytes:
        """The option's octets. Raises `DissectError`."""
        if bool(self.names) == bool(self.addresses):
            raise DissectError(0, "names or addresses", "both" if self.names else "neither")
        if self.names:
            return bytes([_NAMES]) + build_names(self.names)
        return bytes([_ADDRESSES]) + _ipv4_bytes(self.addresses)

    def to_json(self) -> dict[str, Any]:
        """`encoding`, `names`, `addresses`."""
        encoding = _ADDRESSES if self.addresses else _NAMES
        return {"encoding": encoding, "names": list(self.names), "addresses": list(self.addresses)}


@dataclass(frozen=True, slots=True)
class DomainSearch:
    """Option 119 (RFC 3397): domains, possibly compressed on the wire, written uncompressed."""

    names: tuple[str, ...]

    problems: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, data: bytes) -> DomainSearch:
        """Read the list. Raises `DissectError`."""
        if not data:
            raise DissectError(0, "a domain", "nothing")
        return cls(parse_names(data))

    def to_bytes(self) -> bytes:
        """The option's octets. Raises `DissectError`."""
        return build_names(self.names)

    def to_json(self) -> dict[str, Any]:
        """`names`."""
        return {"names": list(self.names)}


@dataclass(frozen=True, slots=True)
class NtpServers:
    """Option 42 (RFC 2132 section 8.3). Without the time every certificate is out of date."""

    addresses: tuple[str, ...]

    problems: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, data: bytes) -> NtpServers:
        """Read the addresses. Raises `DissectError`."""
        return cls(_ipv4_list(data, 0))

    def to_bytes(self) -> bytes:
        """The option's octets. Raises `DissectError`."""
        return _ipv4_bytes(self.addresses)

    def to_json(self) -> dict[str, Any]:
        """`addresses`."""
        return {"addresses": list(self.addresses)}


@dataclass(frozen=True, slots=True)
class Text:
    """Options 15 (domain name) and 60 (vendor class identifier): octets that are text."""

    text: str
    code: int = 60

    @classmethod
    def parse(cls, data: bytes, code: int) -> Text:
        """Read ASCII. Raises `DissectError` for other octets."""
        if not data:
            raise DissectError(0, "text", "nothing")
        try:
            return cls(data.decode("ascii"), code)
        except UnicodeDecodeError as error:
            raise DissectError(error.start, "ASCII", f"octet {data[error.start]:02x}") from None

    @property
    def problems(self) -> tuple[str, ...]:
        """A vendor class that differs from the known ones in case only, and stray octets around the text."""
        found = []
        plain = self.text.strip("\0 \t\r\n")
        if plain != self.text:
            found.append(f"stray octets around {plain!r}")
        exact = _CLASSES.get(plain.casefold()) if self.code == 60 else None
        if exact and plain != exact:
            found.append(f"{plain!r}: its case matters, it must be {exact}")
        return tuple(found)

    def to_bytes(self) -> bytes:
        """The option's octets. Raises `DissectError`."""
        try:
            return self.text.encode("ascii")
        except UnicodeEncodeError as error:
            raise DissectError(error.start, "ASCII", repr(self.text[error.start])) from None

    def to_json(self) -> dict[str, Any]:
        """`text`; for the domain also the name at which such a phone looks for its updates."""
        plain = self.text.strip("\0. \t\r\n")
        return {"text": self.text} | ({"update_host": f"ucupdates-r2.{plain}"} if self.code == 15 else {})


@dataclass(frozen=True, slots=True)
class ParameterRequest:
    """Option 55: what the client asks for; such a phone asks for 43 and 120."""

    codes: tuple[int, ...]

    problems: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, data: bytes) -> ParameterRequest:
        """One octet per code."""
        return cls(tuple(data))

    def to_bytes(self) -> bytes:
        """The option's octets."""
        return bytes(self.codes)

    def to_json(self) -> dict[str, Any]:
        """`codes`."""
        return {"codes": list(self.codes)}


@dataclass(frozen=True, slots=True)
class TimeOffset:
    """Option 2 (RFC 2132 section 3.4): seconds east of UTC."""

    seconds: int

    problems: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def parse(cls, data: bytes) -> TimeOffset:
        """Read four octets. Raises `DissectError`."""
        if len(data) != 4:
            raise DissectError(0, "4 octets", f"{len(data)}")
        return cls(Int32sb.parse(data))

    def to_bytes(self) -> bytes:
        """The option's octets. Raises `DissectError`."""
        if not -1 << 31 <= self.seconds < 1 << 31:
            raise DissectError(0, "seconds in 32 bits", f"{self.seconds}")
        return bytes(Int32sb.build(self.seconds))

    def to_json(self) -> dict[str, Any]:
        """`seconds`."""
        return {"seconds": self.seconds}


_TITLES = {
    2: "time offset",
    15: "domain name",
    42: "NTP servers",
    43: "vendor-specific information",
    55: "parameter request list",
    60: "vendor class identifier",
    119: "domain search list",
    120: "SIP servers",
}
KNOWN = frozenset(_TITLES)


@dataclass(frozen=True, slots=True)
class DhcpOption:
    """One option: its octets, what they mean (None where they cannot be read, or the option is of no interest here)."""

    code: int
    data: bytes
    value: Value | None = None
    problems: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The option's name."""
        return _TITLES.get(self.code, f"option {self.code}")

    def to_json(self) -> dict[str, Any]:
        """The `dhcp` fact: `option`, `title`, `length`, `hex`, what the value holds, `problems`."""
        shown: dict[str, Any] = {
            "fact": "dhcp",
            "option": self.code,
            "title": self.title,
            "length": len(self.data),
            "hex": self.data.hex(),
        }
        if self.value is not None:
            shown |= self.value.to_json()
        return shown | {"problems": list(self.problems)}


def decode(code: int, data: bytes, vendor_class: str | None = None) -> DhcpOption:
    """Read one option; octets that are wrong for it are told in `problems`.

    `vendor_class` is option 60 of the same exchange, which says whose sub-options option 43 holds. Raises
    `LimitExceeded` for more than `MAX_LONG_OPTION` octets.
    """
    if len(data) > MAX_LONG_OPTION:
        raise LimitExceeded(0, f"an option of at most {MAX_LONG_OPTION} octets", f"{len(data)}")
    try:
        value = _value(code, data, vendor_class)
    except DissectError as error:
        return DhcpOption(code, data, None, (str(error),))
    return DhcpOption(code, data, value, value.problems if value else ())


def _value(code: int, data: bytes, vendor_class: str | None) -> Value | None:
    if code == 43:
        if not data:
            raise DissectError(0, "sub-options", "nothing")
        return VendorOptions.parse(data, vendor_class)
    if code in (15, 60):
        return Text.parse(data, code)
    kind = _KINDS.get(code)
    return kind.parse(data) if kind else None


_KINDS: dict[int, type[SipServers | DomainSearch | NtpServers | ParameterRequest | TimeOffset]] = {
    2: TimeOffset,
    42: NtpServers,
    55: ParameterRequest,
    119: DomainSearch,
    120: SipServers,
}


def _ipv4_list(data: bytes, start: int) -> tuple[str, ...]:
    size = len(data) - start
    if size == 0 or size % 4:
        raise DissectError(start, "IPv4 addresses of 4 octets each", f"{size} octets")
    return tuple(addresses(data[start:]))


def _ipv4_bytes(texts: tuple[str, ...]) -> bytes:
    try:
        return b"".join(ipaddress.IPv4Address(text).packed for text in texts)
    except ValueError as error:
        raise DissectError(0, "IPv4 addresses", str(error)) from None


def _without_encoding(data: bytes) -> str:
    try:
        names = parse_names(data, compressed=False)
    except DissectError:
        if all(0x20 <= octet <= 0x7E for octet in data):
            return f"the text {data.decode('ascii')!r}: typed as a string, it must be labels after 00"
        return f"{data[0]:02x}"
    return f"{data[0]:02x}: the name {names[0]} without the octet 00 before it"
