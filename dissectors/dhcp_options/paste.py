"""DHCP options out of what people paste: DHCPUtil's output, netsh and router configurations, bare digits.

Recognised (protocol.md section 7.2 names the tools):

- DHCPUtil: `Option 120:` and `Full Option 43 value (Length: 180) :` with digits on the next lines, wrapped anywhere;
  older versions print the sub-options of 43 only;
- `DHCPConfigScript.bat Configure MS-UC-Client <120> <43.1> ... <43.5>`;
- netsh: `set optionvalue 120 BINARY [vendor=MSUCClient] <digits>`, in scripts also for the sub-options;
- Cisco: `option [ext] 43 hex|ascii|ip ...`, several `option ext` lines of one code are one value;
- others: a line with `option`, `optionid`, `optiondef` or `code`, a number, and digits.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace

from dissectors.dhcp_options.domain_names import parse_names
from dissectors.dhcp_options.hex_text import parse_hex
from dissectors.dhcp_options.options import DhcpOption, decode
from dissectors.dhcp_options.vendor import CPE_OCPHONE, MS_UC_CLIENT, SubOption, VendorOptions
from dissectors.errors import DissectError, LimitExceeded

MAX_TEXT = 1 << 18  # characters of pasted text
MAX_LINES = 4096
MAX_OPTIONS = 256

_DIGITS = r"(?:0[xX])?[0-9A-Fa-f]{2}[0-9A-Fa-fxX\s.:,\"'-]*"
_HEX_LINE = re.compile(r"\s*[0-9A-Fa-f][0-9A-Fa-f\s.:-]*\Z")
_UTIL_120 = re.compile(r"\s*Option 120\s{0,8}:(.*)", re.IGNORECASE)
_UTIL_43 = re.compile(
    r"\s*Full Option 43 value\s{0,8}(?:\(Length:\s{0,8}(\d{1,6})\s{0,8}\))?\s{0,8}:(.*)", re.IGNORECASE
)
_UTIL_SUB = re.compile(r"\s*sub-?option\s{1,8}(\d{1,3})\s{0,8}(?:<[^>]*>)?\s{0,8}:(.*)", re.IGNORECASE)
_UTIL_CLASS = re.compile(r"\s*Vendor Class Identifier\s{0,8}:\s*(\S+)", re.IGNORECASE)
_UTIL_SCRIPT = re.compile(rf".*\bConfigure\s+(\S+)\s+({_DIGITS})\Z", re.IGNORECASE)
_NETSH = re.compile(
    rf".*\boptionvalue\s+(\d{{1,3}})\s+BINARY\s+(?:user=\S+\s+)?(?:vendor=\"?([^\s\"]+)\"?\s+)?\"?({_DIGITS})\Z",
    re.IGNORECASE,
)
_CISCO = re.compile(r"\s*option\s+(ext\s+)?(\d{1,3})\s+(?:instance\s+\d+\s+)?(hex|ascii|ip)\s+(.+)", re.IGNORECASE)
_OTHER = re.compile(r"(?:.*\b)?(?:option(?:def|value|id)?|code)[\s=_:-]{0,3}(\d{1,3})\b", re.IGNORECASE)
_TAIL = "0123456789abcdefABCDEFxX.:,;-\"' \t"
_NETSH_CLASSES = {"msucclient": MS_UC_CLIENT, "cpeocphone": CPE_OCPHONE}


@dataclass(slots=True)
class _Collected:
    """Digits as they come together."""

    whole: dict[int, str] = field(default_factory=dict)
    subs: dict[int, str] = field(default_factory=dict)
    ready: dict[int, bytes] = field(default_factory=dict)
    vendor_class: str | None = None
    printed_length: int | None = None


def read_paste(text: str, code: int | None = None) -> tuple[DhcpOption, ...]:
    """The options found, by code; `code` says which option bare digits are. Raises `DissectError` where there is none.

    A sub-option or length that disagrees with the whole value is a problem of that option.
    """
    if len(text) > MAX_TEXT:
        raise LimitExceeded(0, f"at most {MAX_TEXT} characters", f"{len(text)}")
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise LimitExceeded(0, f"at most {MAX_LINES} lines", f"{len(lines)}")
    found = _collect(lines)
    if not (found.whole or found.subs or found.ready):
        data = parse_hex(text)
        return (decode(_guess(data) if code is None else code, data),)
    return _options(found)


def _collect(lines: list[str]) -> _Collected:
    found = _Collected()
    target: dict[int, str] = {}
    key: int | None = None  # where the following lines of digits belong
    for line in lines:
        if key is not None and _HEX_LINE.match(line) and line.strip():
            target[key] += line.strip()
            continue
        if key is not None and not line.strip() and not target[key]:
            continue
        key = None
        if match := _UTIL_CLASS.match(line):
            found.vendor_class = match[1]
        elif match := _UTIL_120.match(line):
            target, key = found.whole, 120
            target[key] = match[1].strip()
        elif match := _UTIL_43.match(line):
            found.printed_length = int(match[1]) if match[1] else None
            target, key = found.whole, 43
            target[key] = match[2].strip()
        elif match := _UTIL_SUB.match(line):
            target, key = found.subs, int(match[1])
            target[key] = match[2].strip()
        else:
            _one_line(line, found)
        if len(found.whole) + len(found.subs) > MAX_OPTIONS:
            raise LimitExceeded(0, f"at most {MAX_OPTIONS} options", "more")
    return found


def _one_line(line: str, found: _Collected) -> None:
    """A line that holds an option whole."""
    if match := _UTIL_SCRIPT.match(line):
        found.vendor_class = match[1]
        values = match[2].split()
        found.whole.setdefault(120, values[0])
        for number, digits in enumerate(values[1:], 1):
            found.subs.setdefault(number, digits)
    elif match := _NETSH.match(line):
        number, told, digits = int(match[1]), match[2], match[3]
        if told and number != 43:
            found.vendor_class = _NETSH_CLASSES.get(re.sub(r"\W", "", told).lower(), told)
            found.subs[number] = digits
        else:
            found.whole[number] = digits
    elif match := _CISCO.match(line):
        number, kind, rest = int(match[2]), match[3].lower(), match[4].strip()
        if kind == "hex":
            found.whole[number] = found.whole.get(number, "") + rest if match[1] else rest
        elif kind == "ascii":
            found.ready[number] = rest.strip('"').encode("ascii", "replace")
            if number == 60:
                found.vendor_class = rest.strip('"')
        else:
            found.ready[number] = _addresses(rest)
    elif (match := _OTHER.match(line)) and (digits := _trailing_digits(line[match.end() :])):
        found.whole[int(match[1])] = digits


def _trailing_digits(text: str) -> str:
    """The digits at the end of a line, blank for none."""
    head = text.rstrip(_TAIL)
    tail = text[len(head) :]
    if head[-1:].isalnum():  # the tail begins inside a word such as `hex`
        tail = "".join(re.split(r"[\s=:,\"']", tail, maxsplit=1)[1:])
    return tail if re.search(r"[0-9A-Fa-f]{2}|[xX:][0-9A-Fa-f]", tail) else ""


def _options(found: _Collected) -> tuple[DhcpOption, ...]:
    notes: dict[int, list[str]] = {}
    values = {number: parse_hex(digits) for number, digits in found.whole.items()} | found.ready
    if found.subs:
        parts = tuple(SubOption.of(number, _part(digits)) for number, digits in sorted(found.subs.items()) if digits)
        compiled = VendorOptions(parts).to_bytes()
        if values.setdefault(43, compiled) != compiled:
            notes.setdefault(43, []).append("the sub-options printed beside it add up to another value")
    if found.printed_length is not None and 43 in values and found.printed_length != 2 * len(values[43]):
        notes.setdefault(43, []).append(f"{found.printed_length} digits announced, {2 * len(values[43])} there")
    options = []
    for number in sorted(values):
        if number > 254:
            raise DissectError(0, "an option from 1 to 254", f"{number}")
        option = decode(number, values[number], found.vendor_class if number == 43 else None)
        options.append(replace(option, problems=(*option.problems, *notes.get(number, ()))))
    return tuple(options)


def _part(digits: str) -> bytes:
    data = parse_hex(digits)
    if len(data) > 255:
        raise LimitExceeded(0, "a sub-option of at most 255 octets", f"{len(data)}")
    return data


def _addresses(text: str) -> bytes:
    try:
        return b"".join(ipaddress.IPv4Address(word).packed for word in text.split())
    except ValueError as error:
        raise DissectError(0, "IPv4 addresses", str(error)) from None


def _guess(data: bytes) -> int:
    """Which option bare digits are, where that can be told."""
    if VendorOptions.parse(data).flavour == "ms-uc":
        return 43
    if data[0] == 1 and len(data) % 4 == 1 and len(data) > 1:
        return 120
    for code, start in ((120, 1), (119, 0)):
        if code == 120 and data[0] != 0:
            continue
        try:
            names = parse_names(data, start)
        except DissectError:
            continue
        if names and "." not in names:
            return code
    raise DissectError(0, "digits that tell which option they are (43, 119 or 120): give its number", data[:8].hex())
