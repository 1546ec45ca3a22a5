"""Where the vocabulary's fields stand in an XML body, and which of them belong to one module.

Nothing is known of the nesting, so it is found from the values: what stands beside a four-part version, or within one
element named like a module, is one module. What cannot be told apart is named as a problem and is not editable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dissectors.errors import DissectError, LimitExceeded
from dissectors.mac_address import normal_mac
from dissectors.version import Version
from dissectors.vocabulary import MODULE_FIELDS, URL_FIELDS, Vocabulary, normal_name
from dissectors.xml_body import Element, Field, RawValue, XmlBody

MAX_FINDINGS = 2000  # parts of lists written as text included
MAX_VALUE = 1 << 16  # characters
MAX_PROBLEMS = 50

_LIST_SEPARATORS = "#;"
_FOREIGN_PREFIXES = ("xmlns", "xml", "xsi")
_MAX_MESSAGE = 300
_PLAIN_VERSION = ("version", "ver")
_PERHAPS_A_LIST = ("module", "modules", "version")  # modules written as text
_BESIDE_A_VERSION = ("file", "signature_file", *URL_FIELDS)  # what makes a blank version one to be filled in

_new = tuple.__new__  # makes a named tuple at half of the cost


class Finding(NamedTuple):
    """A field of the vocabulary in the body; `group` is the index of the element it describes (-1: the document)."""

    kind: str
    field: Field
    group: int


Record = dict[str, Field]


def _comparable(kind: str, text: str) -> str:
    """A value without the differences that do not count."""
    return (kind == "mac" and normal_mac(text)) or text.strip().casefold()


def is_version(text: str) -> bool:
    """True for four-part versions, the only ones that tell what is installed."""
    try:
        Version.parse(text)
    except DissectError:
        return False
    return True


@dataclass(slots=True)
class Findings:
    """All fields found in one body, those of lists written as text apart, and what was wrong."""

    body: XmlBody
    single: list[Finding] = field(default_factory=list)
    lists: list[tuple[int, list[Field]]] = field(default_factory=list)
    module_elements: set[int] = field(default_factory=set)  # those named like one module
    contradicted: set[str] = field(default_factory=set)  # kinds told several times, and not alike
    problems: list[str] = field(default_factory=list)
    weighed: list[RawValue] = field(default_factory=list)  # values that decided what they are
    named_by_values: bool = False  # whether values decided what others are

    @classmethod
    def of(cls, body: XmlBody, vocabulary: Vocabulary) -> Findings:
        """Search a body. Raises `LimitExceeded` for more than `MAX_FINDINGS`."""
        found = cls(body)
        found.problems.extend(body.problems)
        _Search(found, vocabulary).run()
        return found

    def problem(self, text: str) -> None:
        """Note a problem, up to `MAX_PROBLEMS`."""
        note(self.problems, text)

    def only(self, kind: str, fields: Sequence[Field]) -> Field | None:
        """The one field of a kind; of several that say the same the first, with a problem and no span.

        Of several that differ none: whichever was taken could be that of another device or module.
        """
        if len(fields) == 1:
            return fields[0]
        places = f"is there {len(fields)} times (at bytes {', '.join(str(one.offset) for one in fields[:4])})"
        if kind not in URL_FIELDS and len({_comparable(kind, one.value) for one in fields} - {""}) > 1:
            self.contradicted.add(kind)
            self.problem(f"{kind} {places}, and not the same: none of them is believed")
            return None
        self.problem(f"{kind} {places}: not editable")
        return next((one for one in fields if one.value), fields[0])._replace(span=None)

    def ancestors(self, group: int) -> Iterable[int]:
        """The element and those around it, inner first."""
        while group >= 0:
            yield group
            group = self.body.elements[group].parent


class _Search:
    """One pass over the elements of a body."""

    def __init__(self, found: Findings, vocabulary: Vocabulary) -> None:
        self._found = found
        self._vocabulary = vocabulary
        self._elements = found.body.elements
        self._count = 0
        self._pairs: dict[int, dict[str, list[RawValue]]] = {}  # <Entry><Key>..</Key><Value>..</Value></Entry>

    def run(self) -> None:
        elements, field_of, generic = self._elements, self._vocabulary.field_of, self._vocabulary.generic
        for index, element in enumerate(elements):
            tag, parent, attributes, text = element
            if attributes:
                self._element(index, element)
                continue
            # Most elements; what is done is what `_element` would do.
            own = field_of(tag, elements[parent].tag if parent >= 0 else "")
            if own == "module":
                self._found.module_elements.add(index)
            if text is None:
                continue
            if own is not None:
                self._add(own, text, tag, parent)
            elif (role := generic.get(normal_name(tag))) is not None:
                self._found.named_by_values = True
                self._pairs.setdefault(parent, {}).setdefault(role, []).append(text)
        for index, pair in self._pairs.items():
            names, values = pair.get("name", []), pair.get("value", [])
            if len(names) == len(values) == 1:
                parent = self._elements[index].parent
                self._add(self._field_of(names[0].value, parent), values[0], "Value", parent)

    def _field_of(self, name: str, owner: int) -> str | None:
        return self._vocabulary.field_of(name, self._elements[owner].tag if owner >= 0 else "")

    def _element(self, index: int, element: Element) -> None:
        own = self._field_of(element.tag, element.parent)
        if own == "module":
            self._found.module_elements.add(index)
        generic = self._vocabulary.generic
        named = valued = None
        hits: list[tuple[str, RawValue, str]] = []
        nil = False
        for name, raw in element.attributes:
            prefix, _, local = name.rpartition(":")
            if prefix and local == "nil":  # xsi:nil, by whatever prefix
                nil = raw.value in ("true", "1")
                self._found.named_by_values = True
            if prefix in _FOREIGN_PREFIXES or name == "xmlns":
                continue
            role = generic.get(normal_name(name))
            if role is not None and own is None:
                self._found.named_by_values = True
            if role == "name" and own is None:
                named = named or self._field_of(raw.value, element.parent)
            elif role == "value":
                valued = valued or (raw, name)
            if (kind := self._field_of(name, index)) is not None:
                hits.append((kind, raw, name))
        if index == 0 and len(hits) == 1 and hits[0][0] == "version" and normal_name(hits[0][2]) in _PLAIN_VERSION:
            # <Check Version="1.0.0.0">: there is nothing beside it that it could be the version of.
            self._found.problem(f"version {hits[0][1].value[:40]!r} is taken for that of the document")
            hits.clear()
        text = element.text._replace(start=None, end=None) if nil and element.text else element.text
        if nil and own:
            self._found.problem(f"{element.tag} is marked nil: not editable")
        kind = named or own
        if kind is not None and valued is not None and not (text and text.value):
            self._add(kind, valued[0], valued[1], element.parent)
        elif named is not None and text is not None:
            self._add(named, text, element.tag, element.parent)
        else:
            for hit in hits:
                self._add(*hit, index)
            if text is not None and (text.value or not hits):
                # A text with fields in its own tag is one thing with them: <File version="1.0.522.73">cpe.nbt</File>
                self._add(own, text, element.tag, index if hits else element.parent)
        if text is not None and own is None and (role := generic.get(normal_name(element.tag))) is not None:
            self._found.named_by_values = True
            self._pairs.setdefault(element.parent, {}).setdefault(role, []).append(text)

    def _add(self, kind: str | None, raw: RawValue, name: str, group: int) -> None:
        if kind is None:
            return
        found = self._found
        self._count += 1
        if len(raw.value) > MAX_VALUE:
            found.problem(f"{name} has {len(raw.value)} characters and is not looked at")
            return
        if kind not in _PERHAPS_A_LIST:
            found.single.append(_new(Finding, (kind, found.body.field(raw, name), group)))
        else:
            self._weigh(kind, raw, name, group)
        if self._count > MAX_FINDINGS:
            raise LimitExceeded(0, f"at most {MAX_FINDINGS} known names in a body", "more")

    def _weigh(self, kind: str, raw: RawValue, name: str, group: int) -> None:
        """Add a version, a module or modules; the value tells what it is, as `weight` says."""
        found = self._found
        found.weighed.append(raw)
        if ";" in raw.value:
            for parts in found.body.part_fields(raw, name, _LIST_SEPARATORS):
                found.lists.append((group, parts))
                self._count += len(parts)
        elif kind == "version":
            found.single.append(Finding(kind, found.body.field(raw, name), group))
        # <Firmware>1.0.522.73</Firmware> and <File>name.ext</File> are values; other text in such places is not.
        elif "." in raw.value:
            told = "version" if is_version(raw.value) else "file"
            found.single.append(Finding(told, found.body.field(raw, name), group))


def note(problems: list[str], text: str) -> None:
    """Add a problem to others, up to `MAX_PROBLEMS`."""
    if len(problems) < MAX_PROBLEMS:
        problems.append(text[:_MAX_MESSAGE])


def weight(text: str) -> str:
    """What a value of a module counts as: a list, a version, something with a point, or anything else."""
    if ";" in text:
        return "list"
    if "." not in text:
        return ""
    return "version" if is_version(text) else "point"


def module_groups(found: Findings) -> dict[int, list[Finding]]:
    """The findings of modules by the element that stands for one module, in document order.

    A version that has not four parts (a protocol's `version="1.0"`) is no finding here; a blank one is only beside a
    file name or a URL.
    """
    kept: list[tuple[int, Finding]] = []  # with the element that may be the module
    units: dict[int, int] = {}
    told: set[int] | None = None
    versioned: dict[int, set[int]] = {}
    for finding in found.single:
        kind, one, group = finding
        if kind not in MODULE_FIELDS:
            continue
        if kind == "version" and not is_version(one.value):
            if told is None:
                told = {other.group for other in found.single if other.kind in _BESIDE_A_VERSION}
            if group not in told:
                continue
            if one.value:
                found.problem(f"version {one.value[:40]!r} (byte {one.offset}) has not four parts")
                continue
        if group not in units:
            units[group] = _unit(found, group)
        if kind == "version":
            versioned.setdefault(units[group], set()).add(group)
        kept.append((units[group], finding))
    groups: dict[int, list[Finding]] = {}
    for whole, finding in kept:
        groups.setdefault(whole if len(versioned.get(whole, ())) <= 1 else finding.group, []).append(finding)
    _drop_outer_versions(found, groups)
    return groups


def _unit(found: Findings, group: int) -> int:
    """The nearest element around that is named like one module; else the element itself."""
    return next((index for index in found.ancestors(group) if index in found.module_elements), group)


def _drop_outer_versions(found: Findings, groups: dict[int, list[Finding]]) -> None:
    """A lone version around modules is that of the protocol or the document, not of something installed."""
    around = {outer for group in groups for outer in list(found.ancestors(group))[1:]}
    for group in [group for group in groups if group in around]:
        lone = {finding.kind for finding in groups[group]} == {"version"}
        # <FirmwareVersion> and the like say themselves that something is installed.
        if lone and all(normal_name(finding.field.name) in _PLAIN_VERSION for finding in groups[group]):
            version = groups.pop(group)[0].field
            found.problem(f"version {version.value} (byte {version.offset}) is around modules and not taken for one")


def record(found: Findings, findings: Sequence[Finding], kinds: Iterable[str]) -> Record:
    """One field per kind."""
    there: dict[str, list[Field]] = {}
    for kind, one, _ in findings:
        if kind in there:
            there[kind].append(one)
        else:
            there[kind] = [one]
    result: Record = {}
    for kind in kinds:
        if kind in there and (only := found.only(kind, there[kind])) is not None:
            result[kind] = only
    return result


def list_record(found: Findings, parts: list[Field], kinds: Sequence[str]) -> Record | None:
    """The parts of a module written as text, in order of `kinds`; None and a problem where they do not fit."""
    if len(parts) == 2 and is_version(parts[0].value):
        return {"version": parts[0], "timestamp": parts[1]}
    if len(parts) != len(kinds):
        if len(parts) > 1 or parts[0].value:
            found.problem(f"{parts[0].name} (byte {parts[0].offset}) has {len(parts)} parts, not {len(kinds)}")
        return None
    result = dict(zip(kinds, parts, strict=True))
    if result["version"].value and not is_version(result["version"].value):
        found.problem(f"version {result['version'].value[:40]!r} in {parts[0].name} has not four parts")
        return None
    return result
