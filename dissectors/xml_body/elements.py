"""The elements of an XML document with the place of every value in its text.

expat decides what is well-formed; the places come from an own pass over text that expat has accepted, which makes a
tokenizer of one regular expression enough. Document type declarations are refused, so there are no entities but the
five of XML itself, no default attributes and nothing to fetch.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from typing import NamedTuple
from xml.parsers import expat

from dissectors.errors import DissectError, LimitExceeded, Unsupported

MAX_DEPTH = 64
MAX_ELEMENTS = 10_000
MAX_ATTRIBUTES = 20_000

WHITE_SPACE = " \t\r\n"
_TOKEN = re.compile(
    # Most of a body: an element with text alone, its end tag included.
    r"<(?P<leaf>[^ \t\r\n/>!?]++)>(?P<text>[^<]*+)</(?P=leaf)[ \t\r\n]*+>"
    r"|<\?.*?\?>"
    r"|<!--.*?-->"
    r"|<!\[CDATA\[(?P<cdata>.*?)\]\]>"
    r"|<(?P<end>/)[^>]*+>"
    r"|<(?P<tag>[^ \t\r\n/>]++)(?P<attributes>(?:[^>\"']++|\"[^\"]*+\"|'[^']*+')*+)>",
    re.DOTALL,
)
_ATTRIBUTE = re.compile(r"([^ \t\r\n=]++)[ \t\r\n]*+=[ \t\r\n]*+(?:\"([^\"]*+)\"|'([^']*+)')")
_NEWLINE = re.compile(r"\r\n?")
# Leading zeros are left out of the groups: int() refuses numbers of thousands of digits.
_ESCAPED = re.compile(r"&(?:#x0*+(?P<hex>[0-9a-fA-F]+)|#0*+(?P<dec>[0-9]+)|(?P<name>[a-z]+));|\r\n?")
_ESCAPED_IN_ATTRIBUTE = re.compile(_ESCAPED.pattern + r"|[\t\n]")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}


class Place(enum.Enum):
    """Where a value stands, which decides how new text is escaped."""

    TEXT = "text"
    CDATA = "cdata"
    QUOTED = 'attribute in "'
    APOSTROPHED = "attribute in '"
    EMPTY_TAG = "empty-element tag"  # the place is its "/>", which opens up for the text

    __hash__ = object.__hash__  # a member is one object; the hash of its name takes as long as all else of a field's

    @property
    def in_attribute(self) -> bool:
        """True for attribute values."""
        return self in (Place.QUOTED, Place.APOSTROPHED)


class RawValue(NamedTuple):
    """A decoded value and its characters `start`..`end` in the text; None where no one place holds it.

    Literal white space around a value is not part of it, nor of its place.
    """

    value: str
    start: int | None
    end: int | None
    place: Place


class Element(NamedTuple):
    """An element: its name as written, the index of its parent (-1: none), its attributes in order.

    `text` is there for elements without child elements.
    """

    tag: str
    parent: int
    attributes: tuple[tuple[str, RawValue], ...]
    text: RawValue | None


_PATTERNS = {
    Place.TEXT: _ESCAPED,
    Place.EMPTY_TAG: _ESCAPED,
    Place.CDATA: _NEWLINE,
    Place.QUOTED: _ESCAPED_IN_ATTRIBUTE,
    Place.APOSTROPHED: _ESCAPED_IN_ATTRIBUTE,
}


def _escapes(raw: str, place: Place) -> Iterator[tuple[int, int, str]]:
    """Start, end and meaning of everything in raw text that does not stand for itself."""
    for match in _PATTERNS[place].finditer(raw):
        if match[0][0] != "&":
            yield match.start(), match.end(), " " if place.in_attribute else "\n"
        elif match["hex"] or match["dec"]:
            yield match.start(), match.end(), chr(int(match["hex"], 16) if match["hex"] else int(match["dec"]))
        else:
            yield match.start(), match.end(), _ENTITIES[match["name"]]


def unescape(raw: str, place: Place) -> str:
    """The value of raw text that expat has accepted."""
    if "&" not in raw and "\r" not in raw and not (place.in_attribute and ("\t" in raw or "\n" in raw)):
        return raw  # most values
    parts: list[str] = []
    done = 0
    for start, end, meaning in _escapes(raw, place):
        parts += (raw[done:start], meaning)
        done = end
    return "".join(parts) + raw[done:]


def offsets(raw: str, place: Place) -> list[int]:
    """For each character of the value of `raw`, where it begins in `raw`; and the end."""
    result: list[int] = []
    done = 0
    for start, end, meaning in _escapes(raw, place):
        result.extend(range(done, start))
        result.extend([start] * len(meaning))
        done = end
    result.extend(range(done, len(raw) + 1))
    return result


def _trimmed(text: str, start: int, end: int, place: Place) -> RawValue:
    raw = text[start:end]
    inner = raw.strip(WHITE_SPACE)
    if inner == raw:
        if "&" not in raw and raw.isprintable():
            return RawValue(raw, start, end, place)  # most values
    elif inner:
        start += len(raw) - len(raw.lstrip(WHITE_SPACE))
        end = start + len(inner)
    return RawValue(unescape(inner, place), start, end, place)


Head = tuple[str, int, tuple[tuple[str, RawValue], ...]]  # of an element: what is known before its text


class _Open:
    """An element whose end tag has not come yet."""

    __slots__ = ("children", "content", "head", "index", "interrupted", "runs")

    def __init__(self, index: int, content: int, head: Head) -> None:
        self.index = index
        self.content = content
        self.head = head
        self.runs: list[tuple[int, int, Place]] = []
        self.interrupted = False  # by a comment or a processing instruction
        self.children = False

    def text(self, text: str, end: int) -> RawValue | None:
        """The value of the content that ends at `end`."""
        if self.children:
            return None
        if len(self.runs) == 1 and not self.interrupted:
            start, stop, place = self.runs[0]
            if not text[start:stop].isspace():
                return _trimmed(text, start, stop, place)
        filled = [run for run in self.runs if text[run[0] : run[1]].strip(WHITE_SPACE)]
        if len(filled) == 1:
            return _trimmed(text, *filled[0])
        if filled:
            value = "".join(unescape(text[start:stop], place) for start, stop, place in self.runs)
            return RawValue(value.strip(WHITE_SPACE), None, None, Place.TEXT)
        sections = [run for run in self.runs if run[2] is Place.CDATA]
        if len(sections) == 1:
            return RawValue("", *sections[0])
        # All is blank: new text takes the place of the white space, or stands at the end, after comments.
        start = end if sections or self.interrupted else self.content
        return RawValue("", start, end, Place.TEXT)


def _checked(text: str) -> list[str]:
    """The tags of all elements in order, once expat has accepted the text. Raises as `read_elements` does."""
    tags: list[str] = []
    depth = attributes = 0

    def offset() -> int:
        return max(parser.CurrentByteIndex, 0)

    def start(tag: str, found: list[str]) -> None:
        nonlocal depth, attributes
        depth += 1
        attributes += len(found) // 2
        tags.append(tag)
        if depth > MAX_DEPTH:
            raise LimitExceeded(offset(), f"elements nested at most {MAX_DEPTH} deep", "more")
        if len(tags) > MAX_ELEMENTS:
            raise LimitExceeded(offset(), f"at most {MAX_ELEMENTS} elements", "more")
        if attributes > MAX_ATTRIBUTES:
            raise LimitExceeded(offset(), f"at most {MAX_ATTRIBUTES} attributes", "more")

    def end(_tag: str) -> None:
        nonlocal depth
        depth -= 1

    def doctype(*_: object) -> None:
        raise Unsupported(offset(), "XML without a document type declaration", "<!DOCTYPE")

    parser = expat.ParserCreate("utf-8")  # whatever the declaration says: the text is encoded so just below
    parser.ordered_attributes = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(text.encode("utf-8"), True)
    except expat.ExpatError as error:
        raise DissectError(offset(), "well-formed XML", expat.ErrorString(error.code) or "an error") from None
    return tags


def read_elements(text: str) -> list[Element]:
    """All elements in document order; places are characters of `text`.

    Raises `Unsupported` for a document type declaration, `LimitExceeded` over this module's limits and `DissectError`
    for what is not well-formed; their offsets count bytes of the text in UTF-8.
    """
    tags = _checked(text)
    elements: list[Element | None] = []
    stack: list[_Open] = []
    done = 0
    for match in _TOKEN.finditer(text):
        start, end = match.span()
        if stack and start > done:
            stack[-1].runs.append((done, start, Place.TEXT))
        done = end
        kind = match.lastgroup
        if kind == "text":
            if stack:
                stack[-1].children = True
            first, last = match.span("text")
            value = _trimmed(text, first, last, Place.TEXT)
            elements.append(Element(match["leaf"], stack[-1].index if stack else -1, (), value))
        elif kind == "end":
            closed = stack.pop()
            elements[closed.index] = Element(*closed.head, closed.text(text, start))
        elif kind == "attributes":  # the last group of a tag, blank or not
            if stack:
                stack[-1].children = True
            first, last = match.span("attributes")
            attributes = _attributes(text, first, last) if first < last else ()
            head = match["tag"], stack[-1].index if stack else -1, attributes
            if first < last and text[last - 1] == "/":
                elements.append(Element(*head, RawValue("", end - 2, end, Place.EMPTY_TAG)))
            else:
                stack.append(_Open(len(elements), end, head))
                elements.append(None)
        elif kind == "cdata" and stack:
            stack[-1].runs.append((*match.span("cdata"), Place.CDATA))
        elif stack:
            stack[-1].interrupted = True
    complete = [element for element in elements if element is not None]
    if [element.tag for element in complete] != tags:
        raise Unsupported(0, "XML that two readers understand alike", "a difference")
    return complete


def _attributes(text: str, start: int, end: int) -> tuple[tuple[str, RawValue], ...]:
    return tuple(
        (match[1], _trimmed(text, *match.span(2), Place.QUOTED))
        if match[2] is not None
        else (match[1], _trimmed(text, *match.span(3), Place.APOSTROPHED))
        for match in _ATTRIBUTE.finditer(text, start, end)
    )
