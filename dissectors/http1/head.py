"""The head of a message: start line and header fields (RFC 9112 sections 2 to 5).

Two kinds of remark are kept with a head. `notes` are deviations that leave no doubt about the message (bare line
feeds, folded values, wide spaces). `faults` make its length doubtful: recipients are known to disagree on such
messages, so nothing behind them can be attributed (section 11.2, request smuggling).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

from dissectors.coding import parse_codings
from dissectors.errors import DissectError, LimitExceeded

if TYPE_CHECKING:
    from dissectors.http1.framing import Framing

MAX_HEAD = 256 << 10  # bytes; servers refuse heads over 8 to 64 KiB, NTLM and Kerberos tokens need some
MAX_LINES = 1000
MAX_REMEMBERED = 2048  # bytes of a head that is kept, in case it comes again
CLEAN_SIZE = 4 * MAX_LINES  # shorter sections cannot have too many lines: the shortest has four bytes

Headers = tuple[tuple[str, str], ...]

SPACES = " \t"
TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 - RFC 9110's word for a name
_REQUEST_LINE = re.compile(rf"({TOKEN}) (\S+) HTTP/(1\.[01])", re.ASCII)
_METHOD = re.compile(rf"({TOKEN})[ \t]+(?=\S)", re.ASCII)
_VERSION = re.compile(r"[ \t]HTTP/(\d+\.\d+)", re.ASCII)
_STATUS_LINE = re.compile(r"HTTP/(1\.[01]) (\d{3}) ([^\x00]*)", re.ASCII)
_LOOSE_STATUS_LINE = re.compile(r"HTTP/(\d+\.\d+)[ \t]+(\d{3})(?:[ \t]([^\x00]*))?", re.ASCII)
_FIELD = re.compile(rf"({TOKEN}):([^\x00\r\n]*)\r?\n")
# A whole section without anything odd: most are, and need no look at each line.
_CLEAN = re.compile(rf"\r\n(?:{TOKEN}:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*\r\n")
_SPACED_FIELD = re.compile(rf"({TOKEN})[ \t]+:(.*)")
_LENGTHS = ("content-length", "transfer-encoding")
_LENGTH_WORDS = ("length", "transfer", "encoding", "chunked")  # in a line that is no field
_CONTROLS = re.compile(r"[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")


class _Head:
    """What both kinds of head have. Heads that come again are kept, and what was worked out with them."""

    headers: Headers

    @cached_property
    def framings(self) -> dict[str | None, Framing]:
        """What `framing` has worked out already, by the method asked with as far as that matters."""
        return {}

    @cached_property
    def told_lengths(self) -> tuple[str, ...]:
        """The values of Content-Length."""
        return self._values("content-length")

    @cached_property
    def told_transfers(self) -> tuple[str, ...]:
        """The values of Transfer-Encoding."""
        return self._values("transfer-encoding")

    @cached_property
    def content_codings(self) -> tuple[str, ...]:
        """The content codings, in the order they were applied."""
        return tuple(coding for value in self._values("content-encoding") for coding in parse_codings(value))

    def _values(self, wanted: str) -> tuple[str, ...]:
        # The length tells most other names apart without looking at them.
        size = len(wanted)
        return tuple(value for name, value in self.headers if len(name) == size and name.lower() == wanted)


@dataclass(frozen=True)
class RequestHead(_Head):
    """A request's start line and fields; `version` is "1.1", "1.0", or "0.9" where the line names none."""

    method: str
    target: str
    version: str
    headers: Headers
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class ResponseHead(_Head):
    """An answer's start line and fields."""

    status: int
    reason: str
    version: str
    headers: Headers
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def parse_request_head(block: bytes) -> RequestHead:
    """Read a head up to its empty line. Raises `DissectError` where not even the start line is one."""
    return _remembered_request(block) if len(block) <= MAX_REMEMBERED else _request_head(block)


def parse_response_head(block: bytes) -> ResponseHead:
    """Read a head up to its empty line. Raises `DissectError` where not even the start line is one."""
    return _remembered_response(block) if len(block) <= MAX_REMEMBERED else _response_head(block)


def _request_head(block: bytes) -> RequestHead:
    line, fields = _split(block)
    notes: list[str] = []
    faults: list[str] = []
    match = _REQUEST_LINE.fullmatch(line)
    method, target, version = match.groups() if match else _loose_request_line(line)
    if version == "0.9":
        notes.append("the request line names no HTTP version")
    elif match is None:
        notes.append("the request line is not parted by single spaces")
    if version not in {"0.9", "1.0", "1.1"}:
        faults.append(f"malformed: HTTP version {shown(version)} in the request line")
    if re.search(r"\s", target, re.ASCII):
        faults.append("malformed: white space in the request target")
    if _CONTROLS.search(line) or "\0" in line or "\r" in line:
        faults.append("malformed: control characters in the request line")
    headers = _fields(fields, notes, faults, faults)
    return RequestHead(method, target, version, headers, tuple(notes), tuple(faults))


def _response_head(block: bytes) -> ResponseHead:
    line, fields = _split(block)
    notes: list[str] = []
    faults: list[str] = []
    match = _STATUS_LINE.fullmatch(line)
    if match is None:
        match = _LOOSE_STATUS_LINE.fullmatch(line)
        if match is None:
            raise DissectError(0, "a status line", shown(line))
        if match[1] not in {"1.0", "1.1"}:
            faults.append(f"malformed: HTTP version {shown(match[1])} in the status line")
        if match[3] is not None:
            notes.append("the status line is not parted by single spaces")
    if "\r" in line:
        faults.append("malformed: a carriage return in the status line")
    headers = _fields(fields, notes, faults, notes)
    return ResponseHead(int(match[2]), (match[3] or "").strip(SPACES), match[1], headers, tuple(notes), tuple(faults))


_remembered_request = lru_cache(maxsize=512)(_request_head)  # phones and servers repeat themselves
_remembered_response = lru_cache(maxsize=512)(_response_head)


def parse_trailers(block: bytes) -> tuple[Headers, tuple[str, ...]]:
    """The trailer fields of a chunked body up to the empty line, and what is wrong with them."""
    notes: list[str] = []
    faults: list[str] = []
    headers = _fields("\r\n" + block.decode("latin-1"), notes, faults, faults)
    return headers, (*notes, *faults)


def shown(text: str) -> str:
    """A piece of a message for a report: escaped, and short."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _loose_request_line(line: str) -> tuple[str, str, str]:
    method = _METHOD.match(line)
    if method is None:
        raise DissectError(0, "a request line", shown(line))
    rest = line[method.end() :].rstrip(SPACES)
    place = max(rest.rfind(" HTTP/"), rest.rfind("\tHTTP/"))
    version = _VERSION.fullmatch(rest, place) if place >= 0 else None
    if version is None:
        return method[1], rest, "0.9"
    return method[1], rest[:place].rstrip(SPACES), version[1]


def _split(block: bytes) -> tuple[str, str]:
    """The start line, and the rest, which starts with the end of that line."""
    if len(block) > MAX_HEAD:
        raise LimitExceeded(0, f"a head of at most {MAX_HEAD} bytes", str(len(block)))
    text = block.decode("latin-1")
    start = len(text) - len(text.lstrip("\r\n"))
    end = text.find("\n", start)
    if end < 0:
        raise DissectError(0, "a line", shown(text))
    if text[end - 1] == "\r":
        end -= 1
    return text[start:end], text[end:]


def _fields(text: str, notes: list[str], faults: list[str], mixed: list[str]) -> Headers:
    """Header fields behind a line end, up to the empty line; lines that are none are remarked and left out.

    What hides headers from some recipients of a request, but leaves none of an answer in doubt, goes to `mixed`: bare
    line feeds among whole line ends, and lines that are no fields and tell no length (section 5.1).
    """
    headers: list[tuple[str, str]] = []
    if len(text) < CLEAN_SIZE and _CLEAN.fullmatch(text):
        for line in text[2:-4].split("\r\n") if len(text) > 4 else ():
            name, _, value = line.partition(":")
            headers.append((name, value.strip(SPACES)))
        return tuple(headers)
    size = len(text)
    bare = int(text.startswith("\n"))
    ends, position = 1, 2 - bare
    while position < size:
        end = text.find("\n", position)
        end = size if end < 0 else end
        ends += 1
        bare += text[end - 1] != "\r"
        match = _FIELD.match(text, position)
        if match is not None:
            value = match[2].strip(SPACES)
            if _CONTROLS.search(value):
                notes.append(f"control characters in header {match[1]}")
            headers.append((match[1], value))
        else:
            line = text[position:end].removesuffix("\r")
            if not line:
                break
            _odd_line(line, headers, notes, faults, mixed)
        if ends > MAX_LINES:
            faults.append(f"malformed: more than {MAX_LINES} header lines")
            break
        position = end + 1
    if bare == ends:
        notes.append("lines end with bare line feeds")
    elif bare:
        # Servers that pass on the output of programs do it; in a request it hides headers from somebody.
        prefix = "malformed: " if mixed is faults else ""
        mixed.append(f"{prefix}some lines end with bare line feeds")
    return tuple(headers)


def _odd_line(line: str, headers: list[tuple[str, str]], notes: list[str], faults: list[str], mixed: list[str]) -> None:
    """A line that is not a field: the continuation of the one before, or nothing that should be there."""
    if "\0" in line or "\r" in line or (line[0] in SPACES and not headers):
        faults.append(f"malformed: {_complaint(line)}")
    elif line[0] in SPACES:
        name, value = headers[-1]
        headers[-1] = (name, f"{value} {line.strip(SPACES)}".strip(SPACES))
        notes.append(f"header {name} is folded over lines")
        if name.lower() in _LENGTHS or line.strip(SPACES).lower().startswith(_LENGTHS):
            faults.append(f"malformed: a folded line that tells a length: {shown(line)}")
    elif mixed is faults or any(word in line.lower() for word in _LENGTH_WORDS):
        faults.append(f"malformed: {_complaint(line)}")
    elif (match := _SPACED_FIELD.fullmatch(line)) is not None:
        headers.append((match[1], match[2].strip(SPACES)))
        mixed.append(f"white space before the colon of header {match[1]}")
    else:
        mixed.append(f"left out: {_complaint(line)}")


def _complaint(line: str) -> str:
    if "\0" in line or "\r" in line:
        return f"a NUL or carriage return in header line {shown(line)}"
    if ":" not in line:
        return f"header line {shown(line)} without a colon"
    name = line.partition(":")[0]
    if name != name.strip():
        return f"white space beside the header name in {shown(line)}"
    return f"{shown(name)} is no header name"
