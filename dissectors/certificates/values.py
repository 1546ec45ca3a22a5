"""The values inside primitive nodes: identifiers, numbers, times, text (X.690 section 8, RFC 5280 section 4.1.2.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

from dissectors.certificates import tlv
from dissectors.certificates.tlv import Node
from dissectors.errors import DissectError, LimitExceeded

MAX_OID_OCTETS = 256  # a decimal text of more has no reader
MAX_INTEGER_OCTETS = 4096  # an RSA modulus of 32768 bits

_ENCODINGS = {
    tlv.UTF8_STRING: "utf-8",
    tlv.NUMERIC_STRING: "ascii",
    tlv.PRINTABLE_STRING: "ascii",
    tlv.T61_STRING: "latin-1",  # what everybody means by it
    tlv.IA5_STRING: "ascii",
    tlv.VISIBLE_STRING: "ascii",
    tlv.UNIVERSAL_STRING: "utf-32-be",
    tlv.BMP_STRING: "utf-16-be",
}
_UTC_TIME = re.compile(rb"(\d{10})(\d\d)?(Z|[+-]\d{4})", re.ASCII)
_GENERALIZED_TIME = re.compile(rb"(\d{12})(\d\d)?(?:\.\d{1,9})?(Z|[+-]\d{4})", re.ASCII)


class Fields:
    """The children of a constructed node, taken one after the other."""

    def __init__(self, node: Node) -> None:
        if not node.tag.constructed:
            raise DissectError(node.offset, "a constructed node", "a primitive one")
        self._node = node
        self._next = 0

    def peek(self) -> Node | None:
        """The next child, or None at the end."""
        children = self._node.children
        return children[self._next] if self._next < len(children) else None

    def take(self, number: int, what: str, cls: int = tlv.UNIVERSAL) -> Node:
        """The next child, which must have this tag. Raises `DissectError`."""
        node = self.optional(number, cls)
        if node is None:
            other = self.peek()
            if other is None:
                raise DissectError(self._node.stop, what, "nothing more")
            raise DissectError(other.offset, what, f"tag {other.tag.number} of class {other.tag.cls}")
        return node

    def optional(self, number: int, cls: int = tlv.UNIVERSAL) -> Node | None:
        """The next child if it has this tag."""
        node = self.peek()
        if node is None or not node.is_(number, cls):
            return None
        self._next += 1
        return node

    def any(self, what: str) -> Node:
        """The next child, whatever it is. Raises `DissectError` at the end."""
        node = self.peek()
        if node is None:
            raise DissectError(self._node.stop, what, "nothing more")
        self._next += 1
        return node

    def __iter__(self) -> Iterator[Node]:
        while node := self.peek():
            self._next += 1
            yield node


def fields(node: Node, number: int, what: str) -> Fields:
    """The fields of a SEQUENCE or SET. Raises `DissectError` where the node is not one."""
    if not node.is_(number):
        raise DissectError(node.offset, what, f"tag {node.tag.number} of class {node.tag.cls}")
    return Fields(node)


def oid(node: Node) -> str:
    """An OBJECT IDENTIFIER in dotted form."""
    octets = _primitive(node, tlv.OID, "an object identifier")
    if not octets or octets[-1] & 0x80:
        raise DissectError(node.content, "an object identifier", "one that breaks off")
    if len(octets) > MAX_OID_OCTETS:
        raise LimitExceeded(node.content, f"at most {MAX_OID_OCTETS} octets", f"{len(octets)}")
    arcs = []
    arc = 0
    for octet in octets:
        arc = arc << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def integer(node: Node) -> int:
    """An INTEGER or ENUMERATED."""
    if not (node.is_(tlv.INTEGER) or node.is_(tlv.ENUMERATED)) or not 0 < len(node.value) <= MAX_INTEGER_OCTETS:
        raise DissectError(node.offset, "an integer", _what(node))
    return int.from_bytes(node.value, "big", signed=True)


def boolean(node: Node) -> bool:
    """A BOOLEAN."""
    octets = _primitive(node, tlv.BOOLEAN, "a boolean")
    if len(octets) != 1:
        raise DissectError(node.offset, "a boolean of one octet", f"{len(octets)}")
    return octets != b"\0"


def octet_string(node: Node) -> bytes:
    """An OCTET STRING, its pieces joined where BER has cut it up."""
    if not node.is_(tlv.OCTET_STRING):
        raise DissectError(node.offset, "an octet string", _what(node))
    return octets_of(node)


def octets_of(node: Node) -> bytes:
    """The octets of a string type, whatever its (perhaps implicit) tag: the value, or the pieces' values joined."""
    if not node.tag.constructed:
        return node.value
    return b"".join(piece.value for _, piece in node.walk() if not piece.tag.constructed)


def bit_string(node: Node) -> bytes:
    """A BIT STRING without its count of unused bits."""
    octets = _primitive(node, tlv.BIT_STRING, "a bit string")
    if not octets or octets[0] > 7:
        raise DissectError(node.offset, "a bit string", _what(node))
    return octets[1:]


def text(node: Node) -> str:
    """A character string; what its encoding forbids is shown as backslash escapes. Raises for other types."""
    encoding = _ENCODINGS.get(node.tag.number) if node.tag.cls == tlv.UNIVERSAL else None
    if encoding is None:
        raise DissectError(node.offset, "a character string", _what(node))
    return octets_of(node).decode(encoding, "backslashreplace")


def time(node: Node) -> datetime:
    """A UTCTime or GeneralizedTime as an aware time in UTC. Raises where there is no such moment."""
    octets = node.value
    if node.is_(tlv.UTC_TIME) and (match := _UTC_TIME.fullmatch(octets)):
        century = b"20" if match[1] < b"50" else b"19"
        digits, seconds, zone = century + match[1], match[2] or b"00", match[3]
    elif node.is_(tlv.GENERALIZED_TIME) and (match := _GENERALIZED_TIME.fullmatch(octets)):
        digits, seconds, zone = match[1], match[2] or b"00", match[3]
    else:
        raise DissectError(node.offset, "a time", _what(node))
    try:
        moment = datetime.strptime((digits + seconds).decode(), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        if zone != b"Z":
            offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[3:5]))
            moment = moment.replace(tzinfo=timezone(offset if zone[:1] == b"+" else -offset)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise DissectError(node.offset, "a time", repr(octets[:40])) from None
    return moment


def hex_text(number: int) -> str:
    """An integer as the upper-case hexadecimal text in which serial numbers are written."""
    digits = f"{abs(number):X}"
    return ("-" if number < 0 else "") + ("0" if len(digits) % 2 else "") + digits


def _primitive(node: Node, number: int, what: str) -> bytes:
    if not node.is_(number) or node.tag.constructed:
        raise DissectError(node.offset, what, _what(node))
    return node.value


def _what(node: Node) -> str:
    return f"tag {node.tag.number} of class {node.tag.cls} with {node.value[:24].hex() or 'no octets'}"
