"""provisionGroupList: the XML of in-band provisioning, [MS-SIPREGE] 2.2.2.5.1.

Read by expat with document types refused. A text that breaks off (captures do) gives what was read until there.
"""

from __future__ import annotations

from pyexpat import ErrorString, ExpatError, ParserCreate

from dissectors.errors import DissectError, LimitExceeded, Unsupported
from dissectors.inband.settings import MAX_SETTINGS, InBandSettings, Setting
from dissectors.xml_body.encoding import decode_text, without_padding

MAX_DEPTH = 32
MAX_GROUPS = 256

# `provisionGroup` in what the server sends, `provisioningGroup` in what the client asks for.
_LISTS = {"provisiongrouplist", "provisioninggrouplist"}
_GROUPS = {"provisiongroup", "provisioninggroup"}


class _Collector:
    """Expat's handlers: a leaf of a group is a setting, a `property` goes by its name attribute."""

    def __init__(self) -> None:
        self.settings: list[Setting] = []
        self.groups: list[str] = []
        self.root: str | None = None
        self.depth = 0
        self.group_depth = 0
        self.leaf: str | None = None  # name of the innermost open element while it has no children
        self.text: list[str] = []
        self.closed = False
        self.parser = ParserCreate("utf-8")  # the text is encoded so, whatever its declaration says
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.parser.CharacterDataHandler = self.characters
        self.parser.StartDoctypeDeclHandler = self.doctype

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise LimitExceeded(self.offset, f"elements nested at most {MAX_DEPTH} deep", "more")
        name = tag.rpartition(":")[2]
        named = next((value for key, value in attributes.items() if key.lower() == "name"), "")
        if self.root is None:
            self.root = name
        if name.lower() in _GROUPS:
            if len(self.groups) == MAX_GROUPS:
                raise LimitExceeded(self.offset, f"at most {MAX_GROUPS} groups", "more")
            self.groups.append(named)
            self.group_depth = self.depth
            self.leaf = None
        else:
            self.leaf = named if name.lower() == "property" and named else name
        self.text = []

    def characters(self, text: str) -> None:
        if self.leaf is not None:
            self.text.append(text)

    def end(self, _tag: str) -> None:
        if self.group_depth and self.depth > self.group_depth and self.leaf is not None:
            if len(self.settings) == MAX_SETTINGS:
                raise LimitExceeded(self.offset, f"at most {MAX_SETTINGS} settings", "more")
            self.settings.append(Setting(self.groups[-1], self.leaf, "".join(self.text).strip()))
        if self.depth == self.group_depth:
            self.group_depth = 0
        self.leaf = None
        self.depth -= 1
        self.closed = self.depth == 0

    def doctype(self, *_: object) -> None:
        raise Unsupported(self.offset, "XML without a document type declaration", "<!DOCTYPE")

    @property
    def offset(self) -> int:
        return max(self.parser.CurrentByteIndex, 0)


def parse_group_list(body: bytes, charset: str | None = None) -> InBandSettings:
    """Read the XML body of a NOTIFY, or of the answer to a SUBSCRIBE.

    Raises `DissectError` where it is no such list, `Unsupported` for a document type declaration and `LimitExceeded`;
    their offsets count bytes of the text in UTF-8.
    """
    decoded = decode_text(body, charset)
    start, end = without_padding(decoded.text)
    reader = _Collector()
    problems = list(decoded.problems)
    try:
        reader.parser.Parse(decoded.text[start:end].encode("utf-8"), True)
    except ExpatError as error:
        at = max(reader.parser.ErrorByteIndex, 0)
        what = ErrorString(error.code) or "not well-formed"
        if reader.root is None:
            raise DissectError(at, "XML", what) from None
        problems.append(f"breaks off at offset {at}: {what}")
    root = reader.root or ""
    if root.lower() not in _LISTS:
        raise DissectError(0, "a provisionGroupList", f"<{root[:40]}>")
    return InBandSettings("xml", tuple(reader.settings), tuple(reader.groups), reader.closed, tuple(problems))
