"""The elements of a document that differs in values alone from one that was read before.

Phones of one kind send the same document with other values. What was found in a document is remembered by its skeleton,
the document without its values, and the next one with that skeleton is not parsed again. What comes out is exactly what
parsing gives, because a value is looked for only where it cannot touch the markup: all between `>` and `</` without
`<`, `>` and `&`, and all between `="` or `='` and the same quote without `<` and `&`, if it is not blank and has no
white space at its ends. Where one of those was the text of an element or the value of an attribute, another one that is
printable is well-formed too, and stands for itself; with any other the document is parsed. What looks like a value
elsewhere (in a comment, in the XML declaration) has to be the same again, as has all that is no such value.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from dissectors.xml_body.elements import Element, Place, RawValue, read_elements

MAX_TEXT = 4 << 10  # characters of a document that is remembered; an update check has some hundreds
MAX_SKELETONS = 32
MAX_MISSED = 8  # documents in a row that a shape is kept for, though it is not theirs

_VALUES = re.compile(
    r">([^<>&\s][^<>&]*+)(?<!\s)</"
    r"|=\"([^<&\"\s][^<&\"]*+)(?<!\s)\""
    r"|='([^<&'\s][^<&']*+)(?<!\s)'"
)
_MARKS = 3  # characters around a value that the expression takes with it
_BEFORE = {1: (1, Place.TEXT), 2: (2, Place.QUOTED), 3: (2, Place.APOSTROPHED)}  # how many of them; by group
_STEP = 1 + len(_BEFORE)  # what a split gives for each value: the markup before it, and it in one of the groups

Pieces = Sequence["str | None"]  # of a split

_new = tuple.__new__  # makes a named tuple at half of the cost


class Shape:
    """What was read of a document, but for the values. `meaning` is for who has found out what they mean.

    Whether a value is blank belongs to the shape. A piece is the index of a value among those of a split, 0 for what is
    no value.
    """

    __slots__ = ("elements", "fixed", "meaning", "values")

    def __init__(self) -> None:
        self.fixed: tuple[tuple[int, str], ...] = ()  # pieces that have to be the same again
        self.values: tuple[tuple[int, RawValue], ...] = ()  # of all elements in document order, with their pieces
        # Each with the names of its attributes, and whether it has text: its values are the next ones.
        self.elements: tuple[tuple[Element, tuple[str, ...], bool], ...] = ()
        self.meaning: object = None


class _Skeleton:
    """Holds what was read of a document with this skeleton, once there has been more than one of them.

    One document that is not like the others does not make them forgotten.
    """

    __slots__ = ("missed", "seen", "shape")

    def __init__(self) -> None:
        self.shape: Shape | None = None
        self.seen = False
        self.missed = 0  # documents since the last one that had the shape


@lru_cache(MAX_SKELETONS)
def _skeleton(_markup: tuple[str | None, ...]) -> _Skeleton:
    return _Skeleton()


def elements_of(text: str) -> tuple[list[Element], Shape | None]:
    """What `read_elements` gives, and raises, at a fraction of the cost where only values are new.

    The shape is that of all documents with these elements but for the values; None where none is known.
    """
    if len(text) > MAX_TEXT:
        return read_elements(text), None
    pieces: Pieces = _VALUES.split(text)
    skeleton = _skeleton(tuple(pieces[::_STEP]))
    shape = skeleton.shape
    if shape is not None and (filled := _filled(shape, pieces)) is not None:
        skeleton.missed = 0
        return filled, shape
    elements = read_elements(text)
    if shape is not None and not _alike(shape, pieces):
        skeleton.missed += 1
    if (skeleton.seen and shape is None) or skeleton.missed > MAX_MISSED:
        skeleton.shape = _learnt(pieces, elements)
        skeleton.missed = 0
    skeleton.seen = True
    return elements, None


def _learnt(pieces: Pieces, elements: list[Element]) -> Shape:
    """What to remember of a document."""
    places: dict[tuple[int | None, int | None, Place], int] = {}
    done = 0
    for first in range(0, len(pieces) - 1, _STEP):
        done += len(pieces[first] or "")
        for group, (before, place) in _BEFORE.items():
            value = pieces[first + group]
            if value is not None:
                start = done + before
                places[start, start + len(value), place] = first + group
                done += len(value) + _MARKS
    values = [
        (places.pop((raw.start, raw.end, raw.place), 0), raw)
        for element in elements
        for raw in (*(raw for _, raw in element.attributes), *((element.text,) if element.text else ()))
    ]
    shape = Shape()
    shape.fixed = tuple((piece, pieces[piece] or "") for piece in places.values())
    shape.values = tuple(values)
    shape.elements = tuple((one, tuple(name for name, _ in one.attributes), one.text is not None) for one in elements)
    return shape


def _alike(shape: Shape, pieces: Pieces) -> bool:
    """Whether a document differs in values alone, be they printable or not."""
    return all(pieces[piece] == same for piece, same in shape.fixed) and all(
        pieces[piece] is not None for piece, _ in shape.values
    )


def _filled(shape: Shape, pieces: Pieces) -> list[Element] | None:
    """The elements with the values of these pieces; None where the document has to be read."""
    for piece, same in shape.fixed:
        if pieces[piece] != same:
            return None
    values: list[RawValue] = []
    shift = 0
    for piece, old in shape.values:
        value, start, end, place = old
        if start is None or end is None:
            values.append(old)
            continue
        begun = start + shift
        if piece:
            new = pieces[piece]
            if new is None or not new.isprintable():
                return None
            value = new
            shift += len(value) - (end - start)
        values.append(_new(RawValue, (value, begun, end + shift, place)))
    elements: list[Element] = []
    following = iter(values)
    for element, names, has_text in shape.elements:
        if names:
            attributes = tuple([(name, next(following)) for name in names])
            text = next(following) if has_text else None
            elements.append(_new(Element, (element.tag, element.parent, attributes, text)))
        elif has_text:
            elements.append(_new(Element, (element.tag, element.parent, (), next(following))))
        else:
            elements.append(element)
    return elements
