"""Which encoding an XML body is in, and its text.

Order of belief: byte order mark, the zero bytes of UTF-16 and UTF-32, the XML declaration, the charset of the HTTP
header, UTF-8 (XML 1.0 appendix F). Senders lie: .NET writes `encoding="utf-16"` over 8-bit bytes, and code pages are
sent undeclared. A lie is noted as a problem and the bytes decide.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass
from functools import cache, lru_cache

from dissectors.errors import DissectError, LimitExceeded, Unsupported

MAX_BODY = 1 << 20  # bytes; an update check has some hundreds
MAX_LABELS = 64  # that are remembered
MAX_LABEL = 40  # characters of one that is; an XML declaration has no longer ones

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with theirs
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WHITE_SPACE = " \t\r\n"
# Stateless text codecs alone: characters can then be encoded one by one. Not big5-hkscs and the JIS X 0213 family
# (one code may be two characters), not utf-7, not the ISO 2022 family, nothing that is no character set.
_KNOWN = re.compile(
    r"utf-?8|utf-?16(-?[lb]e)?|utf-?32(-?[lb]e)?|ucs-?2|(us-?)?ascii|iso-?8859-?\d{1,2}|latin-?\d{1,2}"
    r"|windows-?(\d{3,4}|31j)|(cp|ibm)-?\d{3,5}|koi8-[rut]|shift-?jis|s-?jis|gb2312|gbk|gb18030|big5|euc-?(jp|kr|cn)",
    re.IGNORECASE | re.ASCII,
)
_WIDE = re.compile(r"utf-?(16|32)|ucs-?2", re.IGNORECASE)
_PYTHON_NAMES = {"windows31j": "cp932", "euccn": "gb2312", "ucs2": "utf-16"}
_MARKUP = "<?xml version=\"1.0\" encoding='A-Za-z0-9._'?><!--[]&#;/:-->"
_DECLARATION = re.compile(rb"""\s*<\?xml\s[^>]{0,200}?\bencoding\s*=\s*["']([A-Za-z][A-Za-z0-9._:-]{0,39})["']""")
_EBCDIC = b"\x4c\x6f\xa7\x94"  # "<?xm"


@dataclass(frozen=True, slots=True)
class BodyText:
    """The text of a body: `body[bom_size:]` decoded with `codec`.

    `guessed` says that the bytes were not what they claimed and each was taken for one latin-1 character: ASCII is
    right, the rest is not to be trusted. `label` is the encoding's name for people.
    """

    text: str
    codec: str
    bom_size: int
    guessed: bool
    problems: tuple[str, ...]

    @property
    def narrow(self) -> bool:
        """Whether an ASCII character is one byte, as in all encodings read here but UTF-16 and UTF-32."""
        return not self.codec.startswith(("utf-16", "utf-32"))

    @property
    def label(self) -> str:
        """The encoding's name, with what is to be known about it."""
        return self.codec + (" with byte order mark" if self.bom_size else "") + (" (guessed)" if self.guessed else "")


@cache
def _codec(label: str) -> str:
    """Canonical codec name of a label. Raises `Unsupported` for anything but an ordinary character set."""
    plain = label.replace("_", "-")
    if _KNOWN.fullmatch(plain) is None:
        raise Unsupported(0, "an ordinary character encoding", repr(label[:40]))
    try:
        return codecs.lookup(_PYTHON_NAMES.get(plain.replace("-", "").lower(), plain)).name
    except LookupError:
        raise Unsupported(0, "a known character encoding", repr(label[:40])) from None


def _without_mark(start: bytes) -> str | None:
    """UTF-16 or UTF-32 told by the zero bytes around the first character, which is `<` or white space."""
    if len(start) < 4:
        return None
    for codec, first, zeros in (
        ("utf-32-le", start[:1], start[1:]),
        ("utf-32-be", start[3:], start[:3]),
        ("utf-16-le", start[:1], start[1:2]),
        ("utf-16-be", start[1:2], start[:1]),
    ):
        if first in (b"<", b" ", b"\t", b"\r", b"\n") and not any(zeros):
            return codec
    return None


def _eight_bit(label: str, source: str, problems: list[str]) -> str | None:
    """The codec of a label, None (and a problem) where the bytes, which are 8-bit, cannot be in it."""
    codec = _remembered(label) if len(label) <= MAX_LABEL else _narrow(label)
    if codec is None:
        problems.append(f"the {source} says {label}, the bytes are 8-bit text")
    return codec


def _narrow(label: str) -> str | None:
    """The codec of a label where it is one of 8-bit text. Raises as `_codec` does."""
    if _WIDE.match(label.replace("_", "-")):
        return None
    codec = _codec(label)
    return codec if _MARKUP.encode("ascii").decode(codec, "replace") == _MARKUP else None


_remembered = lru_cache(MAX_LABELS)(_narrow)  # two labels of every body


def _chosen(body: bytes, charset: str | None, problems: list[str]) -> tuple[str, int]:
    start = body[:4]
    if not start.isascii() or 0 in start:  # few bodies
        for mark, codec in _BOMS:
            if start.startswith(mark):
                return codec, len(mark)
        if (codec_by_zeros := _without_mark(start)) is not None:
            return codec_by_zeros, 0
    if body.startswith(_EBCDIC):
        raise Unsupported(0, "XML in an encoding that extends ASCII, or UTF-16", "EBCDIC")
    declared = _declared(body)
    codec_by_header = None
    if charset is not None:
        try:
            codec_by_header = _eight_bit(charset.strip(" \t\"'"), "charset of the HTTP header", problems)
        except Unsupported:
            problems.append(f"unknown charset {charset[:40]!r} in the HTTP header")
    if declared is not None and (codec_by_declaration := _eight_bit(declared, "XML declaration", problems)):
        if codec_by_header not in (None, codec_by_declaration):
            problems.append(f"the XML declaration says {declared}, the HTTP header {charset}")
        return codec_by_declaration, 0
    return codec_by_header or "utf-8", 0


def _declared(octets: bytes) -> str | None:
    match = _DECLARATION.match(octets[:1024])
    return match[1].decode("ascii") if match else None


def _family(label: str) -> str:
    return label.lower().replace("-", "").replace("_", "").replace("ucs2", "utf16")[:5]


def decode_text(body: bytes, charset: str | None = None) -> BodyText:
    """The text of an XML body; `charset` is the HTTP header's.

    Raises `LimitExceeded` over `MAX_BODY`, `Unsupported` for encodings out of the ordinary, and `DissectError` for
    UTF-16 and UTF-32 that is broken. Other broken text is taken as latin-1, with a problem.
    """
    if len(body) > MAX_BODY:
        raise LimitExceeded(MAX_BODY, f"a body of at most {MAX_BODY} bytes", f"{len(body)} bytes")
    problems: list[str] = []
    codec, bom_size = _chosen(body, charset, problems)
    octets = body[bom_size:]
    unit = 4 if codec.startswith("utf-32") else 2 if codec.startswith("utf-16") else 1
    surplus = len(octets) % unit
    if surplus and not any(octets[-surplus:]):  # senders that count a terminating zero byte into the body
        octets = octets[:-surplus]
    guessed = False
    try:
        text = octets.decode(codec)
    except UnicodeDecodeError as error:
        if unit > 1:
            raise DissectError(bom_size + error.start, f"text in {codec}", error.reason) from None
        problems.append(f"byte {bom_size + error.start} is not {codec}; bytes over 127 are not to be trusted")
        text, codec, guessed = octets.decode("latin-1"), "iso8859-1", True
    if unit > 1 or bom_size:
        declared = _declared(text[:512].encode("ascii", "replace"))
        if declared is not None and _family(declared) != _family(codec):
            problems.append(f"the XML declaration says {declared}, the bytes are {codec}")
    return BodyText(text, codec, bom_size, guessed, tuple(problems))


def without_padding(text: str) -> tuple[int, int]:
    """Start and end of the document within the text: leading white space, trailing white space and NULs are left."""
    return len(text) - len(text.lstrip(_WHITE_SPACE)), len(text.rstrip(_WHITE_SPACE + "\0"))
