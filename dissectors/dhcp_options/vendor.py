"""Option 43, vendor-specific information (RFC 2132 section 8.4, protocol.md section 7.2).

Two vendor classes are asked for by these phones: `MS-UC-Client` (where to get a certificate) and `CPE-OCPHONE` (the
VLAN). Everybody else's option 43 looks just as plausible, so it is only called one of theirs when the class, or the
UCIdentifier inside, says so.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

from construct import Bytes, Int8ub, Struct, this

from dissectors.errors import DissectError, LimitExceeded

MAX_OPTION = 255  # octets; a longer one has to be split (RFC 3396)

MS_UC_CLIENT = "MS-UC-Client"
CPE_OCPHONE = "CPE-OCPHONE"
CERT_PROV_PATH = "/CertProv/CertProvisioningService.svc"

_SUB_OPTION = Struct(
    "code" / Int8ub,
    "length" / Int8ub,
    "data" / Bytes(this.length),
)
_PAD, _END = 0, 255
_NAMES = {1: "UCIdentifier", 2: "URLScheme", 3: "WebServerFqdn", 4: "WebServerPort", 5: "CertProvRelPath"}
_CISCO_CUT = 90  # octets: 180 digits, the limit of `option hex` since IOS 15.1(3)S
_HOST = re.compile(
    r"(?=.{1,253}\.?\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?", re.ASCII
)


class SubOption(NamedTuple):
    """One code, length, value. `declared` is the length octet; None for a pad octet and for a code at the very end."""

    code: int
    data: bytes
    declared: int | None

    @classmethod
    def of(cls, code: int, data: bytes) -> SubOption:
        """A whole one."""
        return cls(code, data, len(data))

    @property
    def text(self) -> str | None:
        """The value where it is printable ASCII."""
        return self.data.decode("ascii") if _is_text(self.data) else None

    def to_bytes(self) -> bytes:
        """As it stood on the wire, broken or not."""
        if self.declared is None:
            return bytes([self.code])
        return bytes([self.code, self.declared]) + self.data

    def to_json(self, name: str | None) -> dict[str, Any]:
        """`code`, `name`, `length` (present octets), `declared`, `hex`, and the readings that fit it."""
        shown: dict[str, Any] = {
            "code": self.code,
            "name": name,
            "length": len(self.data),
            "declared": self.declared,
            "hex": self.data.hex(),
        }
        if self.text:
            shown["text"] = self.text
        elif self.data and len(self.data) % 4 == 0:
            shown["ipv4"] = addresses(self.data)
        if len(self.data) in (1, 2, 4) and not self.text:
            shown["number"] = int.from_bytes(self.data, "big")
        return shown


@dataclass(frozen=True, slots=True)
class VendorOptions:
    """The sub-options in order; `tail` is what follows the end marker, with it. Reading never fails: see `problems`."""

    sub_options: tuple[SubOption, ...]
    tail: bytes = b""
    vendor_class: str | None = None

    @classmethod
    def parse(cls, data: bytes, vendor_class: str | None = None) -> VendorOptions:
        """Read as far as it goes; a sub-option that breaks off is kept with what is there of it."""
        found: list[SubOption] = []
        at = 0
        while at < len(data):
            code = data[at]
            if code == _END:
                break
            if code == _PAD or at + 1 == len(data):
                found.append(SubOption(code, b"", None))
                at += 1
                continue
            declared = data[at + 1]
            value = data[at + 2 : at + 2 + declared]
            found.append(SubOption(code, value, declared))
            at += 2 + len(value)
        return cls(tuple(found), data[at:], vendor_class)

    @classmethod
    def ms_uc_client(
        cls, fqdn: str, *, scheme: str = "https", port: int = 443, path: str = CERT_PROV_PATH
    ) -> VendorOptions:
        """What DHCPUtil writes for a web server. Raises `DissectError` where it does not fit an option."""
        texts = {1: MS_UC_CLIENT, 2: scheme, 3: fqdn, 4: str(port), 5: path}
        if not _HOST.fullmatch(fqdn):
            raise DissectError(0, "a host name", repr(fqdn[:80]))
        if not 0 < port < 1 << 16:
            raise DissectError(0, "a port", str(port))
        for code, text in texts.items():
            if not text.isascii() or not 0 < len(text) <= MAX_OPTION:
                raise DissectError(0, f"{_NAMES[code]} of 1 to 255 ASCII characters", repr(text[:40]))
        made = cls(tuple(SubOption.of(code, text.encode()) for code, text in texts.items()), b"", MS_UC_CLIENT)
        if (size := len(made.to_bytes())) > MAX_OPTION:
            raise LimitExceeded(0, f"an option of at most {MAX_OPTION} octets", f"{size}")
        return made

    @classmethod
    def cpe_ocphone(cls, vlan: int, *, code: int) -> VendorOptions:
        """The VLAN as two octets. Which sub-option holds it is in no readable source (10 is commonly quoted)."""
        if not 0 < vlan < 4095:
            raise DissectError(0, "a VLAN from 1 to 4094", str(vlan))
        if not 0 < code < _END:
            raise DissectError(0, "a sub-option code from 1 to 254", str(code))
        return cls((SubOption.of(code, vlan.to_bytes(2, "big")),), b"", CPE_OCPHONE)

    def to_bytes(self) -> bytes:
        """The option's value."""
        return b"".join(sub.to_bytes() for sub in self.sub_options) + self.tail

    @property
    def flavour(self) -> str:
        """`ms-uc`, `cpe-ocphone`, `text` (no sub-options at all, plain text) or `other`."""
        if self.vendor_class is not None:
            told = self.vendor_class.casefold()
            if told == MS_UC_CLIENT.casefold():
                return "ms-uc"
            if told == CPE_OCPHONE.casefold():
                return "cpe-ocphone"
        elif any(sub.code == 1 and _same(sub.data, MS_UC_CLIENT) for sub in self.sub_options[:1]):
            return "ms-uc"
        return "text" if self._text else "other"

    @property
    def certificate_url(self) -> str | None:
        """Where an `MS-UC-Client` fetches its certificate, None where a part is missing or broken off."""
        if self.flavour != "ms-uc":
            return None
        texts = {sub.code: sub.text for sub in self.sub_options if sub.declared == len(sub.data)}
        scheme, host, port, path = (texts.get(code) for code in (2, 3, 4, 5))
        return f"{scheme}://{host}:{port}{path}" if scheme and host and port and path else None

    @property
    def vlan(self) -> int | None:
        """The VLAN a `CPE-OCPHONE` is given: the first value that is one, binary or in digits."""
        if self.flavour != "cpe-ocphone":
            return None
        for sub in self.sub_options:
            if sub.text and len(sub.text) <= 4 and sub.text.isdecimal():
                number = int(sub.text)
            elif len(sub.data) in (2, 4):
                number = int.from_bytes(sub.data, "big")
            else:
                continue
            if 0 < number < 4095:
                return number
        return None

    @property
    def _text(self) -> str | None:
        """The whole value where it is plain text, which no sub-options of these classes are."""
        data = self.to_bytes()
        broken = any(sub.declared != len(sub.data) for sub in self.sub_options)
        return data.decode("ascii") if broken and _is_text(data) else None

    @property
    def problems(self) -> tuple[str, ...]:
        """What a phone would stumble over, in words; nothing for other vendors' values that are whole."""
        if self._text:
            return ("plain text instead of sub-options: some other vendor's, or typed as ASCII",)
        flavour = self.flavour
        found = [self._broken_off(sub, flavour) for sub in self.sub_options if sub.code != _PAD]
        if flavour == "ms-uc":
            found += self._ms_uc_problems()
        if flavour == "cpe-ocphone" and self.vlan is None:
            found.append("no VLAN from 1 to 4094 in it")
        if self.vendor_class and flavour in ("ms-uc", "cpe-ocphone"):
            exact = MS_UC_CLIENT if flavour == "ms-uc" else CPE_OCPHONE
            if self.vendor_class != exact:
                found.append(f"vendor class {self.vendor_class!r}: its case matters, it must be {exact}")
        return tuple(problem for problem in found if problem)

    def _broken_off(self, sub: SubOption, flavour: str) -> str:
        if sub.declared == len(sub.data):
            return ""
        name = f" ({_NAMES[sub.code]})" if flavour == "ms-uc" and sub.code in _NAMES else ""
        if sub.declared is None:
            return f"sub-option {sub.code}{name}: breaks off before its length"
        cut = f"sub-option {sub.code}{name}: declares {sub.declared} octets, {len(sub.data)} present"
        if len(self.to_bytes()) == _CISCO_CUT:
            cut += "; cut at 180 digits, as Cisco IOS since 15.1(3)S does without a word (use `option ext`)"
        return cut

    def _ms_uc_problems(self) -> list[str]:
        whole = {sub.code: sub for sub in self.sub_options if sub.declared == len(sub.data)}
        codes = [sub.code for sub in self.sub_options if sub.code != _PAD]
        found = [f"sub-option {code} ({name}) is missing" for code, name in _NAMES.items() if code not in codes]
        found += [f"sub-option {code} comes twice" for code in sorted(set(codes)) if codes.count(code) > 1]
        found += [f"sub-option {code} is not one of MS-UC-Client" for code in codes if code not in _NAMES]
        for code, sub in whole.items():
            if code in _NAMES and (wrong := _mistyped(code, sub)):
                found.append(f"sub-option {code} ({_NAMES[code]}): {wrong}")
        return found

    def to_json(self) -> dict[str, Any]:
        """`vendor_class`, `flavour`, `sub_options`, and what they come to: `certificate_url`, `vlan`."""
        flavour = self.flavour
        names = _NAMES if flavour == "ms-uc" else {}
        return {
            "vendor_class": self.vendor_class,
            "flavour": flavour,
            "sub_options": [sub.to_json(names.get(sub.code)) for sub in self.sub_options] if not self._text else [],
            "text": self._text,
            "certificate_url": self.certificate_url,
            "vlan": self.vlan,
        }


def addresses(data: bytes) -> list[str]:
    """IPv4 addresses, four octets each."""
    return [str(ipaddress.IPv4Address(data[at : at + 4])) for at in range(0, len(data), 4)]


def _is_text(data: bytes) -> bool:
    return bool(data) and all(0x20 <= octet <= 0x7E for octet in data)


def _same(data: bytes, text: str) -> bool:
    return data.decode("latin-1").casefold() == text.casefold()


def _mistyped(code: int, sub: SubOption) -> str:
    """What is wrong with a whole sub-option of MS-UC-Client; blank for nothing."""
    text = sub.text
    if text is None:
        if not sub.data:
            return "empty"
        if sub.data.endswith(b"\0") and _is_text(sub.data[:-1]):
            return "ends with a zero octet"
        if len(sub.data) % 2 == 0 and not any(sub.data[1::2]):
            return "UTF-16 instead of ASCII"
        if code == 4 and len(sub.data) == 2:
            return f"a binary number ({int.from_bytes(sub.data, 'big')}), it must be digits"
        return f"no printable ASCII ({sub.data[:16].hex()})"
    if text != text.strip():
        return f"white space around {text.strip()!r}"
    if code == 1 and text != MS_UC_CLIENT:
        return f"{text!r} instead of {MS_UC_CLIENT}"
    if code == 2 and text.lower() != "https":
        return f"{text!r} instead of https"
    if code == 3:
        return _wrong_host(text)
    if code == 4 and not (text.isdecimal() and len(text) <= 5 and 0 < int(text) < 1 << 16):
        return f"{text!r} is no port"
    if code == 5 and not text.startswith("/"):
        return f"{text!r} does not begin with a slash"
    return ""


def _wrong_host(text: str) -> str:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return "" if _HOST.fullmatch(text) else f"{text!r} is no host name"
    return f"the address {text} instead of a name: no certificate will match it"
