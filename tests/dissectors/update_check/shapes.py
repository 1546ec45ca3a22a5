"""Synthetic XML bodies in many shapes. No real body is public: every one says in a comment that it is synthetic."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from xml.sax.saxutils import escape, quoteattr

from hypothesis import strategies as st

from dissectors.version import Version

SYNTHETIC = "<!-- synthetic -->"

NAMES = {
    "device_type": "DeviceType",
    "mac": "MACAddress",
    "serial": "SerialNumber",
    "vendor": "Vendor",
    "model": "Model",
    "revision": "Revision",
    "locale": "Locale",
    "user": "UserID",
    "last_update_status": "LastUpdateStatus",
    "file": "FileName",
    "signature_file": "SignatureFileName",
    "version": "Version",
    "timestamp": "Timestamp",
    "base_url": "BaseURL",
    "external_base_url": "ExternalBaseURL",
}

# label -> (encoding to declare, how to make bytes of text)
ENCODINGS: Mapping[str, tuple[str | None, str, bytes]] = {
    "utf-8": ("utf-8", "utf-8", b""),
    "undeclared": (None, "utf-8", b""),
    "utf-8 with mark": ("utf-8", "utf-8", codecs.BOM_UTF8),
    "utf-16-le with mark": ("utf-16", "utf-16-le", codecs.BOM_UTF16_LE),
    "utf-16-be with mark": ("utf-16", "utf-16-be", codecs.BOM_UTF16_BE),
    "utf-16-le without mark": (None, "utf-16-le", b""),
    "utf-16-be without mark": ("utf-16", "utf-16-be", b""),
    "utf-32-le with mark": ("utf-32", "utf-32-le", codecs.BOM_UTF32_LE),
    "windows-1252": ("windows-1252", "cp1252", b""),
    "Shift_JIS": ("Shift_JIS", "shift_jis", b""),
    "gbk": ("GBK", "gbk", b""),
    "us-ascii": ("us-ascii", "ascii", b""),
    "a lie": ("utf-16", "utf-8", b""),
}


@dataclass(frozen=True)
class Shape:
    """How a body is written."""

    encoding: str = "utf-8"
    device: str = "elements"  # attributes, properties, items, pairs
    module: str = "elements"  # attributes, properties, text
    spelling: str = "as is"  # lower, upper, dashes
    prefix: str = ""
    soap: bool = False
    newline: str = "\n"
    cdata: bool = False
    comments: bool = False
    extra: bool = False
    seed: int = 0

    def name(self, kind: str) -> str:
        name = NAMES.get(kind, kind)
        dashed = "-".join(name) if self.spelling == "dashes" else name
        return {"lower": name.lower(), "upper": name.upper()}.get(self.spelling, dashed)

    def tag(self, kind: str) -> str:
        return (self.prefix + ":" if self.prefix else "") + self.name(kind)


SHAPES = st.builds(
    Shape,
    encoding=st.sampled_from(sorted(ENCODINGS)),
    device=st.sampled_from(["elements", "attributes", "properties", "items", "pairs"]),
    module=st.sampled_from(["elements", "attributes", "properties", "text"]),
    spelling=st.sampled_from(["as is", "lower", "upper", "dashes"]),
    prefix=st.sampled_from(["", "u", "ns0.x"]),
    soap=st.booleans(),
    newline=st.sampled_from(["\n", "\r\n", ""]),
    cdata=st.booleans(),
    comments=st.booleans(),
    extra=st.booleans(),
    seed=st.integers(0, 1000),
)

# Characters of XML that no white space trimming and no list separator touches.
TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp"), exclude_characters=";#\ufffe\uffff"
    ),
    min_size=1,
    max_size=12,
)
VERSIONS = st.builds(Version, *[st.integers(0, 9999)] * 4)
DEVICES = st.fixed_dictionaries(
    {"device_type": TEXT, "mac": st.sampled_from(["0004F2000176", "00-04-f2-00-01-76"])},
    optional={
        "serial": st.just("") | TEXT,
        "vendor": TEXT,
        "model": TEXT,
        "revision": TEXT,
        "locale": TEXT,
        "user": TEXT,
        "last_update_status": st.sampled_from(["0x0;200", "(0x00/0)"]),
    },
)
MODULES = st.lists(
    st.fixed_dictionaries(
        {"file": TEXT, "version": VERSIONS.map(str), "timestamp": st.sampled_from(["01-01-1601 00:00:00", "x"])}
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda module: module["file"].casefold(),
)


@dataclass
class _Writer:
    shape: Shape
    attributes: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)

    def text(self, value: str) -> str:
        codec = ENCODINGS[self.shape.encoding][1]
        if self.shape.cdata and "]]>" not in value and value.encode(codec, "replace").decode(codec) == value:
            return f"<![CDATA[{value}]]>"
        return escape(value)

    def element(self, kind: str, value: str) -> None:
        tag = self.shape.tag(kind)
        if not value and self.shape.seed % 2:
            self.children.append(f"<{tag} />")
            return
        comment = SYNTHETIC if self.shape.comments else ""
        self.children.append(f"<{tag}>{comment}{self.text(value)}</{tag}>")

    def attribute(self, kind: str, value: str) -> None:
        self.attributes.append(f" {self.shape.name(kind)}={quoteattr(value)}")

    def property(self, kind: str, value: str) -> None:
        self.children.append(f"<Property Name={quoteattr(self.shape.name(kind))} Value={quoteattr(value)}/>")

    def item(self, kind: str, value: str) -> None:
        self.children.append(f"<Item key='{self.shape.name(kind)}'>{self.text(value)}</Item>")

    def pair(self, kind: str, value: str) -> None:
        self.children.append(f"<Entry><Key>{self.shape.name(kind)}</Key><Value>{self.text(value)}</Value></Entry>")

    def write(self, how: str, values: Mapping[str, str], order: Random) -> None:
        put: Callable[[str, str], None] = {
            "elements": self.element,
            "attributes": self.attribute,
            "properties": self.property,
            "items": self.item,
            "pairs": self.pair,
        }[how]
        kinds = list(values)
        order.shuffle(kinds)
        for kind in kinds:
            put(kind, values[kind])

    def done(self, name: str) -> str:
        tag = self.shape.tag(name)
        inner = self.shape.newline.join(["", *self.children, ""])
        return f"<{tag}{''.join(self.attributes)}>{inner}</{tag}>"


def _encoded(shape: Shape, root: str) -> bytes:
    declared, codec, mark = ENCODINGS[shape.encoding]
    head = "" if declared is None else f'<?xml version="1.0" encoding="{declared}"?>'
    if shape.soap:
        root = f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body>{root}</s:Body></s:Envelope>'
    text = head + SYNTHETIC + shape.newline + root
    for character in set(text):
        if character.encode(codec, "replace").decode(codec) != character:
            text = text.replace(character, f"&#{ord(character)};")
    return mark + text.encode(codec)


def _root(shape: Shape, name: str, writer: _Writer) -> str:
    if shape.prefix:
        writer.attributes.insert(0, f' xmlns:{shape.prefix}="urn:synthetic"')
    if shape.extra:
        writer.attributes.append(' version="1.0" xml:lang="de"')
        writer.children.insert(0, "<?pi v?><Unknown a='1'><Deep/>text</Unknown>")
    return writer.done(name)


def request(shape: Shape, device: Mapping[str, str], modules: Sequence[Mapping[str, str]]) -> bytes:
    """A synthetic update check."""
    order = Random(shape.seed)
    root = _Writer(shape)
    root.write(shape.device, device, order)
    box = _Writer(shape)
    if shape.module == "text":
        joined = "#".join(";".join(module[kind] for kind in ("file", "version", "timestamp")) for module in modules)
        box.children.append(box.text(joined))
    else:
        for module in modules:
            one = _Writer(shape)
            one.write(shape.module, module, order)
            box.children.append(one.done("Module"))
    root.children.insert(order.randrange(len(root.children) + 1), box.done("Modules"))
    return _encoded(shape, _root(shape, "Request", root))


def answer(shape: Shape, offers: Sequence[Mapping[str, str]]) -> bytes:
    """A synthetic answer: URLs in elements or attributes of each update, its file within or beside."""
    order = Random(shape.seed)
    root = _Writer(shape)
    for offer in offers:
        one = _Writer(shape)
        one.write("attributes" if shape.module == "attributes" else "elements", offer, order)
        root.children.append(one.done("Update"))
    return _encoded(shape, _root(shape, "Response", root))
