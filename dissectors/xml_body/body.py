"""An XML body whose values are replaced in place: every byte outside the edited spans stays as it was."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dissectors.errors import DissectError, LimitExceeded
from dissectors.frozen import constructor
from dissectors.xml_body.elements import WHITE_SPACE, Element, Place, RawValue, offsets
from dissectors.xml_body.encoding import BodyText, decode_text, without_padding
from dissectors.xml_body.skeletons import Shape, elements_of

MAX_PARTS = 1024
_STEP = 1024  # characters between two known byte offsets
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 production 2, Char
# White space at the ends is escaped too, for it would not belong to the value otherwise.
_SPECIAL = re.compile(r"[<>&\r]|^[ \t\n]+|[ \t\n]+\Z")
_SPECIAL_QUOTED = re.compile(r"[<&\"\r\n\t]|^ +| +\Z")
_SPECIAL_APOSTROPHED = re.compile(r"[<&'\r\n\t]|^ +| +\Z")
_SPECIALS = {Place.QUOTED: _SPECIAL_QUOTED, Place.APOSTROPHED: _SPECIAL_APOSTROPHED}
_NAMED = {"<": "&lt;", ">": "&gt;", "&": "&amp;", '"': "&quot;", "'": "&apos;"}

_new = tuple.__new__  # makes a named tuple at half of the cost


class Span(NamedTuple):
    """Bytes `start`..`end` of a body."""

    start: int
    end: int


class Edit(NamedTuple):
    """New bytes for a span."""

    span: Span
    octets: bytes


class Field(NamedTuple):
    """A value found in a body and where: `span` covers exactly its raw bytes and is None where it cannot be edited.

    `name` is the element or attribute as written in the body, `offset` a byte to name in messages. `separators` are
    characters that new text may not hold, because the value is a part of a list written as text.
    """

    value: str
    span: Span | None
    place: Place
    name: str
    offset: int
    separators: str = ""


def splice(body: bytes, edits: Iterable[Edit]) -> bytes:
    """The body with the edits done. Raises `DissectError` where two of them overlap."""
    parts: list[bytes] = []
    done = 0
    for (start, end), octets in sorted(set(edits)):
        if not done <= start <= end <= len(body) or (parts and start == done == end):
            raise DissectError(start, "edits that do not overlap", "an overlap")
        parts += (body[done:start], octets)
        done = end
    return b"".join((*parts, body[done:]))


def _escaped(text: str, place: Place) -> str:
    special = _SPECIALS.get(place, _SPECIAL)
    return special.sub(lambda match: "".join(_NAMED.get(c) or f"&#{ord(c)};" for c in match[0]), text)


@dataclass(frozen=True, slots=True)
class XmlBody:
    """A decoded XML body: its elements, its encoding and the way back from characters to bytes."""

    octets: bytes = field(repr=False)
    decoded: BodyText = field(repr=False)
    elements: tuple[Element, ...] = field(repr=False)
    _start: int
    _byte_offsets: Sequence[int] | None = field(repr=False)
    shape: Shape | None = field(default=None, repr=False, compare=False)  # that others have but for their values

    @classmethod
    def decode(cls, octets: bytes, charset: str | None = None) -> XmlBody:
        """Read a body; `charset` is that of the HTTP header. Raises `DissectError` and its subclasses."""
        decoded = decode_text(octets, charset)
        start, end = without_padding(decoded.text)
        known = _byte_offsets(decoded, octets)
        try:
            elements, shape = elements_of(decoded.text[start:end])
        except DissectError as error:
            before = decoded.text[start:end].encode("utf-8")[: error.offset].decode("utf-8", "ignore")
            offset = _byte_offset(decoded, known, start + len(before)) if known else start + len(before)
            raise type(error)(offset, error.expected, error.found) from None
        return _body_of(octets, decoded, tuple(elements), start, known, shape)

    @property
    def encoding(self) -> str:
        """The encoding for people, such as `utf-16-le with byte order mark`."""
        return self.decoded.label

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the encoding, in words."""
        if self._byte_offsets is None:
            return (*self.decoded.problems, f"the text in {self.encoding} does not lead back to its bytes: no edits")
        return self.decoded.problems

    def _byte(self, character: int) -> int:
        if self._byte_offsets is None:
            return 0
        return _byte_offset(self.decoded, self._byte_offsets, self._start + character)

    def field(self, raw: RawValue, name: str) -> Field:
        """The value with its byte span."""
        value, start, end, place = raw
        known = self._byte_offsets
        if start is None or end is None or known is None:
            return Field(value, None, place, name, self._byte(start or 0))
        if isinstance(known, range):  # a byte a character: most bodies
            shift = self._start + known.start
            first = start + shift
            return _new(Field, (value, _new(Span, (first, end + shift)), place, name, first, ""))
        span = Span(self._byte(start), self._byte(end))
        return Field(value, span, place, name, span.start)

    def part_fields(self, raw: RawValue, name: str, separators: str) -> list[list[Field]]:
        """The parts of a list written as text, each with its span: outer by the first separator, inner by the second.

        White space around a part does not belong to it. Raises `LimitExceeded` for more than `MAX_PARTS` of them.
        """
        if sum(map(raw.value.count, separators)) >= MAX_PARTS:
            raise LimitExceeded(self._byte(raw.start or 0), f"at most {MAX_PARTS} parts in {name}", "more")
        at = None
        if raw.start is not None and raw.end is not None:
            text = self.decoded.text[self._start + raw.start : self._start + raw.end]
            at = [raw.start + offset for offset in offsets(text, raw.place)]
        result: list[list[Field]] = []
        done = 0
        for group in raw.value.split(separators[0]):
            fields: list[Field] = []
            for part in group.split(separators[1]):
                value = part.strip(WHITE_SPACE)
                start = done + (len(part) - len(part.lstrip(WHITE_SPACE)) if value else 0)
                end = start + len(value)
                place = (at[start], at[end]) if at else (None, None)
                own = RawValue(value, place[0], place[1], raw.place)
                fields.append(self.field(own, name)._replace(separators=separators))
                done += len(part) + 1
            result.append(fields)
        return result

    def replace(self, new: Mapping[Field, str]) -> bytes:
        """The body with new values for fields, which may stand in any order.

        A field that has its value already stays as it was written. Raises `DissectError` for a field without a span,
        text that the place cannot hold, and fields that overlap.
        """
        return splice(self.octets, [self._edit(old, text) for old, text in new.items() if text != old.value])

    def _edit(self, old: Field, text: str) -> Edit:
        if old.span is None:
            raise DissectError(old.offset, f"{old.name} in one editable place", "none")
        wrong = _FORBIDDEN.search(text) is not None
        if old.separators:
            wrong = wrong or text != text.strip(WHITE_SPACE) or any(c in old.separators for c in text)
        if wrong:
            raise DissectError(old.offset, f"text that {old.name} can hold", repr(text[:40]))
        if old.place is Place.CDATA:
            return Edit(old.span, self._cdata(old, text))
        if old.place is Place.EMPTY_TAG:
            ends = (">", f"</{old.name}>")
            opening, closing = (end.encode(self.decoded.codec) for end in ends)
            return Edit(old.span, opening + self._encoded(_escaped(text, Place.TEXT)) + closing)
        return Edit(old.span, self._encoded(_escaped(text, old.place)))

    def _encoded(self, escaped: str) -> bytes:
        """In the body's encoding, with character references for what it lacks."""
        codec = self.decoded.codec
        if not self.decoded.guessed:
            try:
                octets = escaped.encode(codec)
                # Some code pages encode two characters alike (the yen sign and the backslash in Shift_JIS).
                if octets.decode(codec) == escaped:
                    return octets
            except UnicodeEncodeError:
                pass
        return escaped.encode("ascii", "xmlcharrefreplace").decode("ascii").encode(codec)

    def _cdata(self, old: Field, text: str) -> bytes:
        codec = "ascii" if self.decoded.guessed else self.decoded.codec
        try:
            octets = text.encode(codec)
            same = octets.decode(codec) == text
        except UnicodeEncodeError:
            same = False
        if not same or "]]>" in text or "\r" in text or text != text.strip(WHITE_SPACE):
            raise DissectError(old.offset, f"text that a CDATA section in {self.encoding} can hold", repr(text[:40]))
        return octets


_body_of = constructor(XmlBody)


def _byte_offsets(decoded: BodyText, octets: bytes) -> Sequence[int] | None:
    """Byte offset of every `_STEP`th character; None where encoding the text again does not give its bytes.

    Of ASCII, a byte a character, it is the offset of every one.
    """
    text = decoded.text
    if text.isascii() and octets.startswith(text.encode("ascii"), decoded.bom_size):
        return range(decoded.bom_size, decoded.bom_size + len(text) + 1)
    result = [decoded.bom_size]
    for start in range(0, len(decoded.text), _STEP):
        piece = decoded.text[start : start + _STEP].encode(decoded.codec, "replace")
        if octets[result[-1] : result[-1] + len(piece)] != piece:
            return None
        result.append(result[-1] + len(piece))
    return tuple(result)


def _byte_offset(decoded: BodyText, known: Sequence[int], character: int) -> int:
    if isinstance(known, range):
        return known[character]
    step, rest = divmod(character, _STEP)
    start = character - rest
    between = decoded.text[start:character]
    return known[step] + (rest if between.isascii() and decoded.narrow else len(between.encode(decoded.codec)))
