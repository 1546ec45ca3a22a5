"""Lists of domain names in the encoding of RFC 1035 section 3.1, as options 119 (RFC 3397) and 120 (RFC 3361) use it.

In text a name is written as in zone files: dots and backslashes inside a label are escaped, bytes that are not
printable ASCII are `\\DDD`; the root is a single dot.
"""

from __future__ import annotations

import re

from construct import Bytes, ConstructError, Int8ub, Struct, this

from dissectors.errors import DissectError, LimitExceeded

MAX_NAME = 255  # octets of one name, RFC 1035 section 2.3.4
MAX_LABEL = 63
MAX_NAMES = 128

_LABEL = Struct(
    "length" / Int8ub,
    "octets" / Bytes(this.length),
)
_POINTER = 0xC0
_ESCAPE = re.compile(rb"\\(?:(\d{3})|(.))|([^\\.])|(\.)", re.DOTALL)


def parse_names(data: bytes, start: int = 0, *, compressed: bool = True) -> tuple[str, ...]:
    """The names in `data[start:]`. Raises `DissectError`; offsets and compression pointers count from `data[start]`.

    A pointer must lead backwards, so that no list of pointers is followed for ever.
    """
    body = data[start:]
    names: list[str] = []
    at = 0
    while at < len(body):
        if len(names) == MAX_NAMES:
            raise LimitExceeded(start + at, f"at most {MAX_NAMES} names", "more")
        name, at = _name(body, at, start, compressed=compressed)
        names.append(name)
    return tuple(names)


def build_names(names: tuple[str, ...]) -> bytes:
    """The names one after the other, uncompressed. Raises `DissectError`."""
    return b"".join(map(_build_name, names))


def _name(body: bytes, at: int, start: int, *, compressed: bool) -> tuple[str, int]:
    labels: list[str] = []
    size = 1
    after = None  # where the list goes on: behind the first pointer, if there was one
    barrier = at
    while True:
        if at >= len(body):
            raise DissectError(start + at, "a label or the 00 that ends a name", "the end")
        length = body[at]
        if length & _POINTER == _POINTER:
            if not compressed:
                raise DissectError(start + at, "a label", f"compression ({length:02x}), which this option forbids")
            if at + 1 >= len(body):
                raise DissectError(start + at, "a pointer of two octets", "the end")
            target = (length & 0x3F) << 8 | body[at + 1]
            if target >= barrier:
                raise DissectError(start + at, f"a pointer to before {barrier}", f"{target}")
            after = at + 2 if after is None else after
            at = barrier = target
            continue
        if length > MAX_LABEL:
            raise DissectError(start + at, f"a label of at most {MAX_LABEL} octets", f"length {length}")
        if length == 0:
            return ".".join(labels) or ".", at + 1 if after is None else after
        try:
            label = _LABEL.parse(body[at : at + 1 + length])
        except ConstructError:
            raise DissectError(start + at, f"a label of {length} octets", f"{len(body) - at - 1}") from None
        size += 1 + length
        if size > MAX_NAME:
            raise LimitExceeded(start + at, f"a name of at most {MAX_NAME} octets", "more")
        labels.append("".join(map(_shown, label.octets)))
        at += 1 + length


def _shown(octet: int) -> str:
    char = chr(octet)
    if char in ".\\":
        return "\\" + char
    return char if 0x21 <= octet <= 0x7E else f"\\{octet:03d}"


def _build_name(name: str) -> bytes:
    try:
        text = name.encode("ascii")
    except UnicodeEncodeError as error:
        raise DissectError(error.start, "an ASCII name (use the xn-- form)", repr(name[error.start])) from None
    labels: list[bytearray] = [bytearray()]
    at = 0
    body = text[:-1] if text.endswith(b".") and not text.endswith(b"\\.") else text
    while at < len(body):
        match = _ESCAPE.match(body, at)
        if match is None or (match[1] and int(match[1]) > 255):
            raise DissectError(at, "an escape such as \\. or \\255", repr(name[at : at + 4]))
        at = match.end()
        if match[4]:
            labels.append(bytearray())
        else:
            labels[-1] += bytes([int(match[1])]) if match[1] else match[2] or match[3]
    if body == b"":
        if text == b".":
            return b"\0"
        raise DissectError(0, "a domain name", "nothing")
    wire = b""
    for label in labels:
        if not 1 <= len(label) <= MAX_LABEL:
            raise DissectError(0, f"labels of 1 to {MAX_LABEL} octets", f"{len(label)} in {name[:80]!r}")
        wire += _LABEL.build({"length": len(label), "octets": bytes(label)})
    if len(wire) + 1 > MAX_NAME:
        raise LimitExceeded(0, f"a name of at most {MAX_NAME} octets", f"{len(wire) + 1}")
    return wire + b"\0"
