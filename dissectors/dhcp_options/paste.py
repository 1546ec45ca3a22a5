"""DHCP options out of what people paste: DHCPUtil's output, netsh and router configurations, bare digits, prose around.

Recognised (protocol.md section 7.2 names the tools):

- DHCPUtil: `Option 120:` and `Full Option 43 value (Length: 180) :` with digits on the next lines, wrapped anywhere;
  older versions print the sub-options of 43 only;
- `DHCPConfigScript.bat Configure MS-UC-Client <120> <43.1> ... <43.5>`;
- netsh: `set optionvalue 120 BINARY [vendor=MSUCClient] <digits>`, in scripts also for the sub-options;
- Cisco: `option [ext] 43 hex|ascii|ip ...`, several `option ext` lines of one code are one value;
- PowerShell: `Set-DhcpServerv4OptionValue -OptionId 120 -Value 0x00,0x06,...`, with `-VendorClass` a sub-option of 43;
- others: a line with `option`, `optionid`, `optiondef` or `code` and a number, once or several times, and digits or
  addresses there (module `values_in_lines`), or digits on the next line;
- digits without a word, where they are so much of option 43, 119 or 120 that they can be nothing else.

A text may hold several listings. Digits wrapped over lines are one value, or several where each is whole. A value with
anything but digits in it is not used, and said to be skipped.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace

from dissectors.dhcp_options.domain_names import parse_names
from dissectors.dhcp_options.hex_text import parse_hex
from dissectors.dhcp_options.options import DhcpOption, decode
from dissectors.dhcp_options.values_in_lines import Found, values_in
from dissectors.dhcp_options.vendor import CPE_OCPHONE, MS_UC_CLIENT, SubOption, VendorOptions
from dissectors.errors import DissectError, LimitExceeded

MAX_TEXT = 1 << 18  # characters of pasted text
MAX_LINES = 4096
MAX_OPTIONS = 256
MAX_SKIPPED = 100

MIN_BARE = 16  # digits that are worth a look where no word says what they are
MAX_WRAPPED = 4096  # characters of digits on several lines that may be several values
MAX_TRIES = 500  # at telling where the next one begins, in a whole text
MIN_LOST = 24  # digits that nobody writes for anything but octets

_DIGITS = r"(?:0[xX])?[0-9A-Fa-f]{2}[0-9A-Fa-fxX\s.:,\"'-]*"
_HEX_LINE = re.compile(r"\s*(?:0[xX]|\\[xX])?[0-9A-Fa-f](?:[0-9A-Fa-f\s.:,-]|(?<=0)[xX](?=[0-9A-Fa-f])|\\[xX])*\Z")
# Addresses, a date: digits in groups, but not of octets.
_DECIMAL_LINE = re.compile(
    r"\s*(?:(?:\d{1,3}\.){3}\d{1,3}(?:[\s,]+(?:\d{1,3}\.){3}\d{1,3})*|\d{4}-\d\d-\d\d)[\s,]*\Z", re.ASCII
)
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
_REMARK = re.compile(r"\s[!#]")
_SHELL_CLASS = re.compile(r"\s-VendorClass\s+[\"']?([^\s\"']+)", re.IGNORECASE)
_BARE = re.compile(
    rf"(?<![\w.:-])(?:(?:0[xX])?[0-9A-Fa-f]{{{MIN_BARE},}}|(?:[0-9A-Fa-f]{{2}}[:-]){{7,}}[0-9A-Fa-f]{{2}}"
    r"|(?:0[xX][0-9A-Fa-f]{1,2}[\s,]{1,3}){7,}0[xX][0-9A-Fa-f]{1,2}"
    r"|(?:[0-9A-Fa-f]{4}\.){3,}[0-9A-Fa-f]{1,4})(?![\w.:-]\w)"
)
# Something that is said to be an option's value; not the type in ISC's `option sip code 120 = string`.
_ANYTHING = re.compile(r"\s{0,4}(?:\([^()]{0,60}\)\s{0,4})?[:=]\s{0,4}(?!(?:string|text|array|ip-address)\b)[^\s:=]")
_LOST = re.compile(rf"[0-9A-Fa-f]{{{MIN_LOST}}}")
_RUN = re.compile(
    r"(?:[0-9A-Fa-f]{8,}|(?:[0-9A-Fa-f]{2}[:\s-]){3,}[0-9A-Fa-f]{2}|(?:[0-9A-Fa-f]{4}\.)+[0-9A-Fa-f]{1,4})\Z"
)
_QUOTED = re.compile(r"(?:[ \t]{0,8}[>|](?=[ \t]))*")  # what mail programs and editors put before each line
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u00ad\u200b\u200c\u200d\u2060"))
_NETSH_CLASSES = {"msucclient": MS_UC_CLIENT, "cpeocphone": CPE_OCPHONE}
_SCRIPT_VALUES = 6  # option 120 and the five sub-options of 43


@dataclass(frozen=True, slots=True)
class Paste:
    """The options of a text, those of one listing by code, and what of it was skipped and why (`line 7: ...`)."""

    options: tuple[DhcpOption, ...]
    skipped: tuple[str, ...] = ()


@dataclass(slots=True)
class _Digits:
    """Digits as they come together; `fault` is why they are not to be used."""

    line: int
    lines: list[str]
    code: int | None = None  # of the whole option that they are
    more: bool = False  # whether further lines may belong to them
    ext: bool = False  # out of Cisco's `option ext`
    fault: str = ""

    @classmethod
    def of(cls, line: int, text: str, *, more: bool = False, ext: bool = False) -> _Digits:
        """Digits of one line; blank text where they begin on the next."""
        return cls(line, [text] if text else [], more=more, ext=ext)

    @property
    def text(self) -> str:
        """All of them."""
        return "\n".join(self.lines)


@dataclass(slots=True)
class _Listing:
    """What belongs together: no option twice."""

    whole: dict[int, _Digits] = field(default_factory=dict)
    subs: dict[int, _Digits] = field(default_factory=dict)
    ready: dict[int, bytes] = field(default_factory=dict)
    vendor_class: str | None = None
    printed_length: int | None = None


def read_paste(text: str, code: int | None = None) -> Paste:
    """The options found; `code` says which option bare digits are. Raises `DissectError` where there is none.

    A sub-option or length that disagrees with the whole value is a problem of that option.
    """
    if len(text) > MAX_TEXT:
        raise LimitExceeded(0, f"at most {MAX_TEXT} characters", f"{len(text)}")
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise LimitExceeded(0, f"at most {MAX_LINES} lines", f"{len(lines)}")
    reader = _Reader()
    for number, line in enumerate(lines, 1):
        shown = line.translate(_INVISIBLE)
        reader.line(number, shown[quoted.end() :] if (quoted := _QUOTED.match(shown)) else shown)
    reader.end()
    options = {(one.code, one.data): one for listing in reader.listings for one in _options(listing, reader.skipped)}
    for data in reader.bare:
        for number in _told_by_themselves(data):
            options.setdefault((number, data), decode(number, data))
    if options:
        return Paste(tuple(options.values()), tuple(reader.skipped[:MAX_SKIPPED]))
    if reader.skipped:
        raise DissectError(0, "an option that can be read", reader.skipped[0])
    if len(re.sub(r"[^0-9A-Fa-f]", "", text)) * 2 < len("".join(text.split())):
        raise DissectError(0, "an option and its value in hexadecimal digits", "neither")
    data = parse_hex(text)
    return Paste((decode(_guess(data) if code is None else code, data),))


class _Reader:
    """The lines one after the other."""

    def __init__(self) -> None:
        self.listings: list[_Listing] = [_Listing()]
        self.bare: list[bytes] = []
        self.skipped: list[str] = []
        self._open: _Digits | None = None  # where the following lines of digits belong
        self._expected: int | None = None  # the option that the last words were about
        self._script: tuple[str, _Digits] | None = None
        self._values = 0
        self._tries = MAX_TRIES

    def line(self, number: int, line: str) -> None:
        """Take the next line."""
        digits = _HEX_LINE.match(line) is not None and not _DECIMAL_LINE.match(line)
        if self._open is not None:
            if digits:
                self._open.lines.append(line.strip())
                return
            if not line.strip() and not self._open.lines:
                return
            if (fault := _damaged(line)) and not _is_whole(self._open.lines, self._open.code):
                self._open.fault = f"line {number}: {fault}"
            self._close()
        if digits:
            self._lone(number, line.strip())
        elif line.strip().strip("`"):
            self._expected = None
            self._words(number, line)

    def end(self) -> None:
        """The text is over."""
        self._close()

    def _close(self) -> None:
        if self._script is not None:
            self._read_script(*self._script)
        elif self._open is not None and self._open.more:
            self._read_wrapped(self._open)
        self._open = self._script = None

    def _read_wrapped(self, found: _Digits) -> None:
        """Lines of digits that followed one another: one value, or several."""
        first, *others = self._cut(found.lines, found.code)
        if found.line < 0:
            self._look_at(-found.line, first)
        line = abs(found.line) + len(first)
        found.lines = first
        for lines in others:
            self._look_at(line, lines)
            line += len(lines)

    def _cut(self, lines: list[str], code: int | None) -> list[list[str]]:
        """The values in lines of digits: one, or several where the first ones are whole; `code` is of the first."""
        if sum(map(len, lines)) > MAX_WRAPPED:
            return [lines]
        for end in range(len(lines), 0, -1):
            if self._tries <= 0:
                break
            self._tries -= 1
            if _is_whole(lines[:end], code):
                return [lines[:end], *(self._cut(lines[end:], None) if lines[end:] else ())]
        return [lines]

    def _lone(self, number: int, text: str) -> None:
        """A line of digits that continues nothing."""
        if self._expected is not None and _RUN.match(text):
            self._open = self._whole(self._expected, _Digits.of(number, text, more=True))
        else:
            self._open = _Digits.of(-number, text, more=True)  # whose they are is seen when they end
        self._expected = None

    def _look_at(self, number: int, lines: list[str]) -> None:
        """Lines of digits about which there is no word."""
        text = "\n".join(lines)
        if len(text) < MIN_BARE:
            return
        try:
            data = parse_hex(text)
        except DissectError as error:
            self.skipped.append(f"line {number}: expected {error.expected}, found {error.found}")
            return
        if _told_by_themselves(data):
            self._keep(data)
        else:
            self.skipped.append(f"line {number}: digits that do not tell which option they are")

    def _words(self, number: int, line: str) -> None:
        if match := _UTIL_CLASS.match(line):
            self.listings[-1].vendor_class = match[1]
        elif (match := _UTIL_120.match(line)) and not _DECIMAL_LINE.match(match[1]):
            self._open = self._whole(120, _Digits.of(number, match[1].strip(), more=True))
        elif match := _UTIL_43.match(line):
            self._open = self._whole(43, _Digits.of(number, match[2].strip(), more=True))
            self.listings[-1].printed_length = int(match[1]) if match[1] else None
        elif match := _UTIL_SUB.match(line):
            self._open = self._sub(int(match[1]), _Digits.of(number, match[2].strip(), more=True))
        elif match := _UTIL_SCRIPT.match(line):
            self._open = _Digits.of(number, match[2])
            self._script = match[1], self._open
        elif match := _NETSH.match(line):
            self._netsh(number, match)
        elif match := _CISCO.match(line):
            self._cisco(number, match)
        else:
            self._other(number, line)

    def _other(self, number: int, line: str) -> None:
        """Any other line: the values of the options it names, then digits that need no word."""
        rest = line
        lacking: Found | None = None
        said = False
        for found in values_in(line):
            lacking = found
            if not found.text:
                if _ANYTHING.match(line, found.end):
                    self.skipped.append(f"line {number}: option {found.code}: neither octets nor addresses")
                    said = True
                continue
            lacking = None
            rest = rest[: found.start] + " " * len(found.text) + rest[found.end :]
            if found.addresses:
                self._ready(found.code, _addresses(found.text.replace(",", " ")))
            elif (told := _SHELL_CLASS.search(line)) and found.code != 43:
                self._sub(found.code, _Digits.of(number, found.text))
                self.listings[-1].vendor_class = _class_named(told[1])
            else:
                more = not line[found.end :].strip()
                digits = self._whole(found.code, _Digits.of(number, found.text, more=more))
                self._open = digits if more else None
        kept = False
        for run in _BARE.findall(rest):
            try:
                data = parse_hex(run)
            except DissectError:
                continue
            if _told_by_themselves(data):
                self._keep(data)
                kept = True
        if lacking is not None and _LOST.search(rest) and not kept and not said:
            self.skipped.append(f"line {number}: option {lacking.code}: neither octets nor addresses")
        elif lacking is not None and not re.search(r"\d", rest[lacking.end :]):
            self._expected = lacking.code

    def _netsh(self, number: int, match: re.Match[str]) -> None:
        code, told, digits = int(match[1]), match[2], _Digits.of(number, match[3])
        if told and code != 43:
            self._sub(code, digits)
            self.listings[-1].vendor_class = _class_named(told)
        else:
            self._whole(code, digits)

    def _cisco(self, number: int, match: re.Match[str]) -> None:
        ext, code, kind, rest = bool(match[1]), int(match[2]), match[3].lower(), match[4].strip()
        known = self.listings[-1].whole.get(code)
        if kind == "hex":
            rest = _REMARK.split(rest, maxsplit=1)[0]
        if kind == "hex" and ext and known is not None and known.ext:
            known.lines.append(rest)
        elif kind == "hex":
            self._whole(code, _Digits.of(number, rest, ext=ext))
        elif kind == "ascii":
            self._ready(code, rest.strip('"').encode("ascii", "replace"))
            if code == 60:
                self.listings[-1].vendor_class = rest.strip('"')
        else:
            try:
                self._ready(code, _addresses(rest))
            except DissectError as error:
                self.skipped.append(f"line {number}: option {code}: expected {error.expected}, found {error.found}")

    def _read_script(self, vendor_class: str, found: _Digits) -> None:
        """The values of the script's command line, which may have been wrapped between them or inside of one."""
        whole, wrapped = found.text.replace("\n", ""), found.text.replace("\n", " ")
        values = next((words for text in (wrapped, whole) if len(words := text.split()) == _SCRIPT_VALUES), None)
        if found.fault or values is None:
            reason = found.fault or f"{len(wrapped.split())} values, not {_SCRIPT_VALUES}"
            self.skipped.append(f"line {found.line}: Configure {vendor_class}: {reason}")
            return
        listing = self.listings[-1]
        listing.vendor_class = listing.vendor_class or vendor_class
        if 120 not in listing.ready:
            listing.whole.setdefault(120, _Digits.of(found.line, values[0]))
        for code, digits in enumerate(values[1:], 1):
            listing.subs.setdefault(code, _Digits.of(found.line, digits))

    def _whole(self, code: int, digits: _Digits) -> _Digits:
        if code in self.listings[-1].whole or code in self.listings[-1].ready:
            self._next()
        self._count()
        self.listings[-1].whole[code] = digits
        digits.code = code
        return digits

    def _sub(self, code: int, digits: _Digits) -> _Digits:
        if code in self.listings[-1].subs:
            self._next()
        self._count()
        self.listings[-1].subs[code] = digits
        return digits

    def _ready(self, code: int, data: bytes) -> None:
        if code in self.listings[-1].whole or code in self.listings[-1].ready:
            self._next()
        self._count()
        self.listings[-1].ready[code] = data

    def _keep(self, data: bytes) -> None:
        self._count()
        self.bare.append(data)

    def _next(self) -> None:
        self.listings.append(_Listing())

    def _count(self) -> None:
        self._values += 1
        if self._values > MAX_OPTIONS:
            raise LimitExceeded(0, f"at most {MAX_OPTIONS} options", "more")


def _damaged(line: str) -> str:
    """What is wrong with a line that would be digits but for a character or two; blank where it is something else."""
    text = line.strip()
    stray = re.sub(r"[0-9A-Fa-f\s.:-]", "", text)
    if len(text) < MIN_BARE // 2 or not stray or len(stray) > max(len(text) // 8, 1):
        return ""
    return f"expected hexadecimal digits, found {stray[0]!r}"


def _class_named(name: str) -> str:
    """The vendor class that a name in the DHCP server stands for, the name itself where it is not known."""
    return _NETSH_CLASSES.get(re.sub(r"\W", "", name).lower(), name)


def _is_whole(lines: list[str], code: int | None) -> bool:
    """Whether digits are a value in which nothing is wrong: of the option, or of one that they tell by themselves."""
    try:
        data = parse_hex("\n".join(lines))
        codes = _told_by_themselves(data) if code is None else (code,)
        return any(not decode(one, data).problems for one in codes)
    except DissectError:
        return False


def _options(listing: _Listing, skipped: list[str]) -> list[DhcpOption]:
    """The options of a listing; what cannot be read is added to `skipped`."""
    notes: dict[int, list[str]] = {}
    values = dict(listing.ready)
    for code, digits in listing.whole.items():
        if (data := _bytes(f"option {code}", digits, skipped)) is not None:
            values[code] = data
    if listing.subs:
        parts = {code: _bytes(f"sub-option {code}", digits, skipped) for code, digits in sorted(listing.subs.items())}
        known = [SubOption.of(code, data) for code, data in parts.items() if data is not None]
        compiled = VendorOptions(tuple(known)).to_bytes()
        if len(known) < len(parts):
            notes.setdefault(43, []).append("not all of its sub-options printed beside it can be read")
        elif values.setdefault(43, compiled) != compiled:
            notes.setdefault(43, []).append("the sub-options printed beside it add up to another value")
    if listing.printed_length is not None and 43 in values and listing.printed_length != 2 * len(values[43]):
        notes.setdefault(43, []).append(f"{listing.printed_length} digits announced, {2 * len(values[43])} there")
    options = []
    for code in sorted(values):
        if not 0 < code < 255:
            skipped.append(f"option {code}: expected an option from 1 to 254")
            continue
        option = decode(code, values[code], listing.vendor_class if code == 43 else None)
        options.append(replace(option, problems=(*option.problems, *notes.get(code, ()))))
    return options


def _bytes(what: str, digits: _Digits, skipped: list[str]) -> bytes | None:
    """The octets, None (and said why) where there is more or less than digits."""
    if digits.fault:
        skipped.append(f"line {digits.line}: {what}: {digits.fault}")
        return None
    try:
        data = parse_hex(digits.text)
        if what.startswith("sub-option") and len(data) > 255:
            raise LimitExceeded(0, "a sub-option of at most 255 octets", f"{len(data)}")
    except DissectError as error:
        skipped.append(f"line {digits.line}: {what}: expected {error.expected}, found {error.found}")
        return None
    return data


def _addresses(text: str) -> bytes:
    try:
        return b"".join(ipaddress.IPv4Address(word).packed for word in text.split())
    except ValueError as error:
        raise DissectError(0, "IPv4 addresses", str(error)) from None


def _told_by_themselves(data: bytes) -> tuple[int, ...]:
    """Which option octets are that can be no other; none where that is not sure."""
    if VendorOptions.parse(data).flavour == "ms-uc":
        return (43,)
    for code, start in ((120, 1), (119, 0)):
        if code == 120 and data[0] != 0:
            continue
        try:
            names = parse_names(data, start)
        except DissectError:
            continue
        if names and all("." in name for name in names):
            return (code,)
    return ()


def _guess(data: bytes) -> int:
    """Which option a text of nothing but digits is, where that can be told."""
    if told := _told_by_themselves(data):
        return told[0]
    if data[0] == 1 and len(data) % 4 == 1 and len(data) > 1:
        return 120
    raise DissectError(0, "digits that tell which option they are (43, 119 or 120): give its number", data[:8].hex())
