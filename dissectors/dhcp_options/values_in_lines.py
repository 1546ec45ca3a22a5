"""Which part of a line is an option's value: octets in hexadecimal digits, or addresses; and what is only a number.

Of the words in front of it some say that a value follows whatever it looks like (`hex`, `-Value`, `"data":`), others
only that one may (`:`, `=`, `,`): then it must end the line or be long. Addresses are decimal, and so are numbers such
as a lease time; a date or a version is no value at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

MIN_UNMARKED = 16  # digits that are octets where nothing says so
MAX_PLACES = 16  # where a value may begin behind one number; more are no value's but a text's

OPTION_NUMBER = re.compile(
    r"\b(?:option(?:def|value|id)?|code)[\s=_:\"'-]{0,3}(\d{1,3})(?!\w|\.\w)", re.IGNORECASE | re.ASCII
)
_OCTETS = re.compile(
    r"""(?:
      0x[0-9a-f]{1,2}(?:[\s,;:]{1,4}0x[0-9a-f]{1,2})+             # 0x00,0x06
    | \\x[0-9a-f]{1,2}(?:[\s,;:]{0,4}\\x[0-9a-f]{1,2})+           # \x00\x06
    | [0-9a-f]{1,2}(?::[0-9a-f]{1,2})+                            # 0:6:73
    | [0-9a-f]{2}(?:-[0-9a-f]{2})+                                # 00-06-73
    | [0-9a-f]{2}(?:,\s?[0-9a-f]{2})+                             # 00,06,73
    | [0-9a-f]{1,4}(?:\.[0-9a-f]{1,4})+                           # 0006.7365.72
    | [0-9a-f]{2}(?:[ \t]{1,3}[0-9a-f]{2})+                       # 00 06 73
    | [0-9a-f]{4,}(?:[ ][0-9a-f]{4,})+(?:[ ][0-9a-f]{2})?         # 0006 7365 72
    | (?:0x)?[0-9a-f]+
    )(?!\w|[.:-]\w)""",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)
_QUAD = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
_ADDRESSES = re.compile(rf"{_QUAD}(?:[\s,]{{1,3}}{_QUAD})*(?![\w/]|[.:-]\w)", re.ASCII)
_DECIMAL = re.compile(r"\d{1,3}(?:\.\d{1,3}){1,3}|[1-9]\d{0,9}|0", re.ASCII)  # an address, a version, a number

_SURE = re.compile(r"(\bhex(?:-?string)?\b|\bbinary\b|\bbyte-stream\b)|\b(?:value|data)\b", re.IGNORECASE)
_PERHAPS = re.compile(r"\A[=:,]|(?<!\d)[=:,]")
_BEFORE = re.compile(r"[\s\"'=:({\[@]{0,8}(?:byte\[\]\][\s(]{0,4})?(?:0x(?=[\"']))?[\"']?", re.IGNORECASE)
_OVER = re.compile(r"[\"')\]}\s]*(?:[,;}#!<.`\\]|-[a-z]|//|\Z)", re.IGNORECASE)  # the value, whatever follows
_LAST = re.compile(r"[\s\"')\]}{\[;,.`\\]*(?:[#!].*|//.*)?\Z", re.DOTALL)  # the line, but for a remark
_AT_THE_END = "0123456789abcdefABCDEF.:- \t"


class Found(NamedTuple):
    """The value of an option in a line, `text`, from `start` to `end`; blank where there is none, behind the number."""

    code: int
    text: str = ""
    addresses: bool = False
    start: int = 0
    end: int = 0


class _Place(NamedTuple):
    """Where a value may begin; whether words say that one does, or that one may; whether it may be addresses."""

    at: int
    sure: bool = False
    perhaps: bool = False
    addresses: bool = False


def values_in(line: str) -> Iterator[Found]:
    """Every option with a number in a line, and its value, which stands before the next one's number."""
    numbers = list(OPTION_NUMBER.finditer(line))
    ends = [match.start() for match in numbers[1:]]
    for match, end in zip(numbers, [*ends, len(line)], strict=False):
        start = match.end()
        start += line[start : start + 1] in ('"', "'")  # of `"120": ...`
        yield _value(int(match[1]), line[start:end], start)


def _value(code: int, text: str, offset: int) -> Found:
    """The longest value of all that there may be."""
    best, size = Found(code, start=offset, end=offset), 0
    for place in _places(text):
        found = _addresses(text, place) if place.addresses else None
        found = found or _octets(text, place)
        if found and (length := _digits(found[0])) > size:
            best = Found(
                code, found[0], bool(_ADDRESSES.fullmatch(found[0])), offset + found.start(), offset + found.end()
            )
            size = length
    return best


def _places(text: str) -> Iterator[_Place]:
    for match in islice(_SURE.finditer(text), MAX_PLACES):
        yield _Place(_after(text, match.end()), sure=True, addresses=match[1] is None)
    for match in islice(_PERHAPS.finditer(text), MAX_PLACES):
        prose = match[0] == "," and text[match.end() : match.end() + 1].isspace()
        yield _Place(_after(text, match.end()), perhaps=True, addresses=not prose)
    yield _Place(_after(text, 0))
    # Digits at the end without a word before them, such as those of netsh's `Add Optiondef`.
    body = text.rstrip(" \t\"';,.")
    start = len(body.rstrip(_AT_THE_END))
    start += len(body[start:]) - len(body[start:].lstrip(" \t.:-"))
    if body[start - 1 : start].isalnum():  # inside of a word
        start = body.find(" ", start) + 1 or len(body)
    yield _Place(start)


def _after(text: str, position: int) -> int:
    match = _BEFORE.match(text, position)
    return match.end() if match else position


def _addresses(text: str, place: _Place) -> re.Match[str] | None:
    found = _ADDRESSES.match(text, place.at)
    if found and any(int(part) > 255 for part in re.findall(r"\d+", found[0])):
        return None
    return found if found and (_OVER if place.sure else _LAST).match(text, found.end()) else None


def _octets(text: str, place: _Place) -> re.Match[str] | None:
    found = _OCTETS.match(text, place.at)
    if found is None or _digits(found[0]) >= MIN_UNMARKED:
        return found
    if not re.search(r"\d", found[0]) or _DECIMAL.fullmatch(found[0]):
        return None
    if place.sure:
        return found if _OVER.match(text, found.end()) else None
    return found if place.perhaps and _LAST.match(text, found.end()) else None


def _digits(value: str) -> int:
    """Number of hexadecimal digits, prefixes left out."""
    return len(re.sub(r"0x|\\x|[^0-9a-f]", "", value, flags=re.IGNORECASE))
