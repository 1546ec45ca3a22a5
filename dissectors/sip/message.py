"""SIP messages as text (RFC 3261 section 7): start line, headers, body.

Written for captures and pasted logs: lines may end in LF, headers may be folded or in compact form, and Content-Length
may lie; what does not fit is a problem of the message, not the end of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from dissectors import auth_header
from dissectors.auth_header import Credentials
from dissectors.errors import DissectError, LimitExceeded

MAX_HEADER_BYTES = 1 << 16
MAX_HEADERS = 512
MAX_BODY = 1 << 20
MAX_MESSAGES = 100_000  # found in one text

# RFC 3261 section 7.3.3, RFC 3515, 3841, 3892, 4028, 6665, 8224
_COMPACT = {
    "a": "accept-contact",
    "b": "referred-by",
    "c": "content-type",
    "d": "request-disposition",
    "e": "content-encoding",
    "f": "from",
    "i": "call-id",
    "j": "reject-contact",
    "k": "supported",
    "l": "content-length",
    "m": "contact",
    "o": "event",
    "r": "refer-to",
    "s": "subject",
    "t": "to",
    "u": "allow-events",
    "v": "via",
    "x": "session-expires",
    "y": "identity",
}
_REQUEST = re.compile(r"([A-Za-z0-9.!%*_+`'~-]{1,64}) +(\S+) +(SIP/\d\.\d)", re.ASCII)
_STATUS = re.compile(r"(SIP/\d\.\d) +(\d{3})(?: +(.*))?", re.ASCII)
_HEADER = re.compile(r"([A-Za-z0-9.!%*_+`'~-]{1,128})[ \t]*:[ \t]*(.*)", re.ASCII | re.DOTALL)
_BLANK = re.compile(rb"\r?\n\r?\n")
_START = re.compile(
    rb"^(?:SIP/2\.0 +\d{3}(?:[ \r]|$)|[A-Z]{2,32} +(?:sips?|tel):\S{1,2048} +SIP/2\.0\r?$)", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class SipMessage:
    """A request (`method`, `uri`) or a response (`status`, `reason`).

    `headers` are unfolded and otherwise as they came; `body` is what Content-Length covers as far as it is there,
    `rest` what follows. `size` is the number of bytes up to the end of the body.
    """

    method: str
    uri: str
    status: int | None
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)
    declared_length: int | None = None
    size: int = 0
    rest: bytes = field(default=b"", repr=False)
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> SipMessage:
        """Read the message at the start of `data`; blank lines before it are keep-alives. Raises `DissectError`."""
        start = len(data) - len(data.lstrip(b"\r\n"))
        blank = _BLANK.search(data, start, start + MAX_HEADER_BYTES)
        if blank is None and len(data) - start > MAX_HEADER_BYTES:
            raise LimitExceeded(start, f"headers of at most {MAX_HEADER_BYTES} bytes", "more")
        problems: list[str] = []
        if blank is None:
            problems.append("the headers are not ended by a blank line")
        head_end, body_start = (blank.start(), blank.end()) if blank else (len(data), len(data))
        lines = _text(data[start:head_end]).splitlines()
        method, uri, status, reason = _start_line(lines[0] if lines else "", start)
        headers = _headers(lines[1:], problems)
        declared = _declared_length(headers, problems)
        there = len(data) - body_start
        # A body has a Content-Type (RFC 3261 section 20.15); without one, what follows is the next thing in the log.
        covered = declared if declared is not None else there if _first(headers, "content-type") else 0
        taken = min(covered, there)
        if declared is not None and declared > there:
            problems.append(f"Content-Length {declared}, {there} bytes present")
        if taken > MAX_BODY:
            raise LimitExceeded(body_start, f"a body of at most {MAX_BODY} bytes", f"{taken}")
        end = body_start + taken
        if status is not None:
            method = (_first(headers, "cseq") or "").rpartition(" ")[2]
        return cls(
            *(method, uri, status, reason, headers, data[body_start:end]), declared, end, data[end:], tuple(problems)
        )

    def get(self, name: str) -> str | None:
        """First value of a header, by its full name, compared without case; compact forms are found too."""
        return _first(self.headers, name)

    def get_all(self, name: str) -> tuple[str, ...]:
        """All values of a header, in order."""
        wanted = name.lower()
        return tuple(value for key, value in self.headers if full_name(key) == wanted)

    @property
    def credentials(self) -> Iterator[tuple[str, Credentials | DissectError]]:
        """What the authentication headers hold: header name and one challenge, or why it cannot be read."""
        for key, value in self.headers:
            if key.lower() in auth_header.HEADERS:
                try:
                    for found in auth_header.parse(value):
                        yield key, found
                except DissectError as error:
                    yield key, error


def find_messages(data: bytes) -> Iterator[SipMessage]:
    """The messages of a byte stream or a log, wherever a start line stands at the beginning of a line.

    Content-Length is believed where that many bytes are there; else a message ends where the next one begins. What
    cannot be read is passed over. Raises `LimitExceeded` for more than `MAX_MESSAGES`.
    """
    start = _START.search(data)
    count = 0
    while start:
        count += 1
        if count > MAX_MESSAGES:
            raise LimitExceeded(start.start(), f"at most {MAX_MESSAGES} messages", "more")
        following = _START.search(data, start.end())
        limit = following.start() if following else len(data)
        blank = _BLANK.search(data, start.start(), min(limit, start.start() + MAX_HEADER_BYTES))
        try:
            message = SipMessage.parse(_window(data, start.start(), blank, limit))
        except DissectError:
            start = following
            continue
        end = start.start() + message.size
        yield message
        start = following if end <= limit else _START.search(data, end)


def full_name(name: str) -> str:
    """A header name in lower case, the compact forms written out."""
    lower = name.lower()
    return _COMPACT.get(lower, lower)


def _window(data: bytes, start: int, blank: re.Match[bytes] | None, limit: int) -> bytes:
    """The bytes of one message: to the next start line, or further where Content-Length covers that line."""
    if blank is not None:
        lines = _text(data[start : blank.start()]).splitlines()
        declared = _declared_length(_headers(lines[1:], []), [])
        if declared is not None and limit < blank.end() + declared <= len(data):
            limit = blank.end() + declared
    return data[start:limit]


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _start_line(line: str, offset: int) -> tuple[str, str, int | None, str]:
    if match := _STATUS.fullmatch(line.rstrip()):
        return "", "", int(match[2]), match[3] or ""
    if match := _REQUEST.fullmatch(line.rstrip()):
        return match[1], match[2], None, ""
    raise DissectError(offset, "a SIP request or status line", repr(line[:60]))


def _headers(lines: list[str], problems: list[str]) -> tuple[tuple[str, str], ...]:
    folded: list[list[str]] = []
    for line in lines:
        if line[:1] in (" ", "\t") and folded:
            folded[-1].append(line.strip())
        else:
            folded.append([line.rstrip()])
    if len(folded) > MAX_HEADERS:
        raise LimitExceeded(0, f"at most {MAX_HEADERS} headers", f"{len(folded)}")
    headers: list[tuple[str, str]] = []
    for parts in folded:
        match = _HEADER.fullmatch(" ".join(parts))
        if match:
            headers.append((match[1], match[2]))
        else:
            problems.append(f"no header: {parts[0][:60]!r}")
    return tuple(headers)


def _first(headers: tuple[tuple[str, str], ...], name: str) -> str | None:
    wanted = name.lower()
    return next((value for key, value in headers if full_name(key) == wanted), None)


def _declared_length(headers: tuple[tuple[str, str], ...], problems: list[str]) -> int | None:
    told = [value.strip() for key, value in headers if full_name(key) == "content-length"]
    if not told:
        return None
    if len(set(told)) > 1:
        problems.append(f"Content-Length is given as {' and '.join(told[:3])}")
    if not (told[0].isascii() and told[0].isdecimal() and len(told[0]) <= 10):
        problems.append(f"Content-Length {told[0][:20]!r} is no number")
        return None
    return int(told[0])
