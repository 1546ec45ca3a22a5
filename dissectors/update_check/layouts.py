"""Where the fields of update checks stand that differ in values alone.

What an element means follows from names, and seldom from values: from those of a version or a module, which may be a
list or something else, and from those that name another value. So where a check was read without any problem, the next
one of its shape has the same fields in the same places, as long as the first kind of values weighs the same; checks
with the second kind are not remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from dissectors.update_check.findings import Findings, Record, weight
from dissectors.vocabulary import Vocabulary
from dissectors.xml_body import Element, Field, RawValue, XmlBody

_TEXT = -1  # in place of the index of an attribute

Slot = tuple[int, int, str]  # index of an element, index of its attribute, and the name of the field


class Layout(NamedTuple):
    """The places of a check's fields, by the names of `Device`, and those of its modules."""

    vocabulary: Vocabulary
    weighed: tuple[tuple[Slot, str], ...]
    device: tuple[tuple[str, Slot], ...]
    modules: tuple[tuple[tuple[str, Slot], ...], ...]


def known(source: XmlBody, vocabulary: Vocabulary) -> tuple[Record, list[Record]] | None:
    """The device and the modules of a check whose layout is known; None where it has to be searched."""
    layout = None if source.shape is None else source.shape.meaning
    if not isinstance(layout, Layout) or layout.vocabulary is not vocabulary:
        return None
    for slot, old in layout.weighed:
        if weight(_raw(source.elements, slot).value) != old:
            return None
    return _record(source, layout.device), [_record(source, module) for module in layout.modules]


def learn(found: Findings, vocabulary: Vocabulary, device: Record, modules: list[Record]) -> None:
    """Remember the layout of a check that was searched, if that follows from its shape."""
    source = found.body
    if source.shape is None or found.named_by_values or found.lists:
        return
    if len(found.problems) != len(source.problems):  # what was contradicted is among them
        return
    raws = [
        (raw, (index, attribute, name))
        for index, element in enumerate(source.elements)
        for attribute, (name, raw) in (
            *enumerate(element.attributes),
            *(((_TEXT, (element.tag, element.text)),) if element.text else ()),
        )
    ]
    slots = {source.field(raw, slot[2]): slot for raw, slot in raws}
    if len(slots) != len(raws):  # without bytes of their own, two of them may look the same
        return
    weighed = {id(raw) for raw in found.weighed}
    source.shape.meaning = Layout(
        vocabulary,
        tuple((slot, weight(raw.value)) for raw, slot in raws if id(raw) in weighed),
        _slots(device, slots),
        tuple(_slots(module, slots) for module in modules),
    )


def _slots(record: Record, slots: dict[Field, Slot]) -> tuple[tuple[str, Slot], ...]:
    return tuple((kind, slots[one]) for kind, one in record.items())


def _record(source: XmlBody, slots: tuple[tuple[str, Slot], ...]) -> Record:
    return {kind: source.field(_raw(source.elements, slot), slot[2]) for kind, slot in slots}


def _raw(elements: Sequence[Element], slot: Slot) -> RawValue:
    index, attribute, _ = slot
    element = elements[index]
    if attribute != _TEXT:
        return element.attributes[attribute][1]
    return cast("RawValue", element.text)  # is there, by the shape
