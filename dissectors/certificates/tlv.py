"""DER, and the BER that real files use, as a tree of tag-length-value nodes (ITU-T X.690).

The encoding is asked for as strictly as DER does (shortest lengths and tags, definite lengths) with one exception:
indefinite lengths are read, because real `.p7b` files use them, and every such node says so. The tree is built by a
loop over a stack, never by recursion, and in one pass: each byte of the input belongs to one header or one value.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from construct import Construct, ConstructError, Struct, Tell, stream_read, stream_write

from dissectors.errors import DissectError, LimitExceeded

MAX_DEPTH = 64  # levels of nesting; a certificate in a signature in a signature has about 20
MAX_NODES = 150_000  # of a whole file; a root list of 200 KB has 16 thousand, a CRL of ten thousand entries 30
MAX_TAG_OCTETS = 4  # of the high-number form
MAX_LENGTH_OCTETS = 4

UNIVERSAL, APPLICATION, CONTEXT, PRIVATE = range(4)

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, ENUMERATED = 1, 2, 3, 4, 5, 6, 10
UTF8_STRING, SEQUENCE, SET, NUMERIC_STRING, PRINTABLE_STRING, T61_STRING, IA5_STRING = 12, 16, 17, 18, 19, 20, 22
UTC_TIME, GENERALIZED_TIME, VISIBLE_STRING, UNIVERSAL_STRING, BMP_STRING = 23, 24, 26, 28, 30

INDEFINITE = -1


class Budget:
    """What may still be read of one file: every node of it counts, also those inside of octet strings."""

    def __init__(self, nodes: int = MAX_NODES) -> None:
        self._left = nodes

    def spend(self, offset: int) -> None:
        """Count a node. Raises `LimitExceeded` where there have been too many."""
        if self._left <= 0:
            raise LimitExceeded(offset, f"at most {MAX_NODES} nodes in a file", "more")
        self._left -= 1


class Tag(NamedTuple):
    """The identifier octets: class (0 universal to 3 private), number, and whether the value is made of nodes."""

    cls: int
    number: int
    constructed: bool = False


class TagOctets(Construct):  # type: ignore[misc]
    """Identifier octets, X.690 section 8.1.2; the high-number form up to four further octets."""

    def _parse(self, stream: Any, context: Any, path: str) -> Tag:  # noqa: ARG002  construct's interface
        first = stream_read(stream, 1, path)[0]
        number = first & 0x1F
        if number == 0x1F:
            at = stream.tell()
            number = 0
            for count in range(1, MAX_TAG_OCTETS + 1):
                octet = stream_read(stream, 1, path)[0]
                if count == 1 and octet == 0x80:
                    raise DissectError(at, "a tag in its shortest form", "a leading zero octet")
                number = number << 7 | octet & 0x7F
                if not octet & 0x80:
                    break
            else:
                raise DissectError(at, f"a tag number of at most {MAX_TAG_OCTETS} octets", "more")
            if number < 0x1F:
                raise DissectError(at, "a tag in its shortest form", f"the long form of {number}")
        return Tag(first >> 6, number, bool(first & 0x20))

    def _build(self, obj: Tag, stream: Any, context: Any, path: str) -> Tag:  # noqa: ARG002  as above
        lead = obj.cls << 6 | obj.constructed << 5
        octets = bytes([lead | obj.number]) if obj.number < 0x1F else bytes([lead | 0x1F, *_base128(obj.number)])
        stream_write(stream, octets, len(octets), path)
        return obj


class LengthOctets(Construct):  # type: ignore[misc]
    """Length octets, X.690 section 8.1.3, in the shortest form DER asks for; `INDEFINITE` for the octet 80."""

    def _parse(self, stream: Any, context: Any, path: str) -> int:  # noqa: ARG002  as above
        first: int = stream_read(stream, 1, path)[0]
        if first < 0x80:
            return first
        if first == 0x80:
            return INDEFINITE
        at = stream.tell() - 1
        count = first & 0x7F
        if count > MAX_LENGTH_OCTETS:
            raise DissectError(at, f"a length of at most {MAX_LENGTH_OCTETS} octets", f"{count}")
        octets = stream_read(stream, count, path)
        length = int.from_bytes(octets, "big")
        if octets[0] == 0 or length < 0x80:
            raise DissectError(at, "a length in its shortest form", f"{length} in {count} octets")
        return length

    def _build(self, obj: int, stream: Any, context: Any, path: str) -> int:  # noqa: ARG002  as above
        if obj == INDEFINITE:
            octets = b"\x80"
        elif obj < 0x80:
            octets = bytes([obj])
        else:
            size = (obj.bit_length() + 7) // 8
            octets = bytes([0x80 | size]) + obj.to_bytes(size, "big")
        stream_write(stream, octets, len(octets), path)
        return obj


# fmt: off
HEADER = Struct(
    "tag"     / TagOctets(),
    "length"  / LengthOctets(),
    "content" / Tell,
)
# fmt: on


@dataclass(frozen=True, slots=True)
class Node:
    """One tag-length-value; offsets count from the start of `source`.

    `offset` is the first identifier octet, `content` and `end` bound the value, `stop` is past the whole encoding
    (for an indefinite length past its end-of-contents octets). `truncated` marks a node whose children are not all
    there: the input does not hold it to its end, or its inside is damaged.
    """

    tag: Tag
    offset: int
    content: int
    end: int
    stop: int
    children: tuple[Node, ...] = field(default=(), repr=False)
    indefinite: bool = False
    truncated: bool = False
    source: bytes = field(default=b"", repr=False, compare=False)

    @property
    def value(self) -> bytes:
        """The value octets."""
        return self.source[self.content : self.end]

    @property
    def raw(self) -> bytes:
        """The whole encoding, as it stands in the input."""
        return self.source[self.offset : self.stop]

    def is_(self, number: int, cls: int = UNIVERSAL) -> bool:
        """Whether this is the universal type (or the tag of class `cls`) with that number."""
        return self.tag.number == number and self.tag.cls == cls

    def walk(self) -> Iterator[tuple[int, Node]]:
        """Every node below and with this one in file order, each with its depth."""
        pending = [(0, self)]
        while pending:
            depth, node = pending.pop()
            yield depth, node
            pending.extend((depth + 1, child) for child in reversed(node.children))


@dataclass(frozen=True, slots=True)
class Forest:
    """What could be read: the nodes side by side at the top, and the first error, if there was one."""

    roots: tuple[Node, ...]
    error: DissectError | None = None
    first_indefinite: int | None = None  # offset of the first node of indefinite length
    reached: int = 0  # where the last value ends that could be read


@dataclass(slots=True)
class _Open:
    """A constructed node being read."""

    tag: Tag
    offset: int
    content: int
    end: int  # of the value; for an indefinite length the end of what encloses it
    indefinite: bool = False
    truncated: bool = False
    damaged: bool = False
    children: list[Node] = field(default_factory=list)


def read(data: bytes, budget: Budget | None = None) -> Forest:
    """Read whatever can be read; never raises.

    A node whose length the input does not hold is cut off at its end (`truncated`). Where the inside of a node of
    known length is no proper encoding, that node keeps the children before the fault, is marked like one that is cut
    off, and reading goes on behind it.
    """
    reader = _Reader(data, budget or Budget())
    while not reader.done:
        try:
            reader.run()
        except LimitExceeded as limit:
            reader.errors.append(limit)
            break
        except DissectError as error:
            if not reader.errors:
                reader.errors.append(error)
            if not reader.recover():
                break
    reader.close_all()
    first = reader.errors[0] if reader.errors else None
    return Forest(tuple(reader.stack[0].children), first, reader.first_indefinite, reader.reached)


def parse(data: bytes, budget: Budget | None = None) -> tuple[Node, ...]:
    """The nodes that make up the input to its last byte. Raises `DissectError`."""
    forest = read(data, budget)
    if forest.error:
        raise forest.error
    return forest.roots


def parse_one(data: bytes, budget: Budget | None = None) -> Node:
    """The single node that makes up the whole input. Raises `DissectError`."""
    roots = parse(data, budget)
    if len(roots) != 1:
        raise DissectError(roots[0].stop if roots else 0, "one node", f"{len(roots)}")
    return roots[0]


def encode(tag: Tag, content: bytes) -> bytes:
    """One node in DER."""
    header: bytes = HEADER.build({"tag": tag, "length": len(content), "content": None})
    return header + content


def definite(node: Node) -> bytes:
    """The node's encoding with every indefinite length made definite, as DER and signatures want it."""
    if not node.tag.constructed:
        return node.raw
    return encode(node.tag, b"".join(definite(child) for child in node.children))


class _Reader:
    """The state of one reading: the open nodes, outermost first (the first stands for the input), and the position."""

    def __init__(self, data: bytes, budget: Budget) -> None:
        self.data = data
        self.stack = [_Open(Tag(0, 0), 0, 0, len(data))]
        self.position = 0
        self.errors: list[DissectError] = []
        self.first_indefinite: int | None = None
        self.reached = 0
        self.done = False
        self._stream = io.BytesIO(data)
        self._budget = budget

    def run(self) -> None:
        """Read nodes until the input ends. Raises `DissectError`; the state is then that before the bad node."""
        while True:
            frame = self.stack[-1]
            if self.position != frame.end:
                self._node(frame)
            elif frame.indefinite and not frame.truncated:
                raise DissectError(self.position, "end-of-contents octets", "the end of what encloses them")
            elif len(self.stack) == 1:
                self.done = True
                return
            else:
                self._close(frame.end, frame.end)

    def recover(self) -> bool:
        """Give up the inside of the innermost node of known length; False where there is none."""
        while len(self.stack) > 1:
            frame = self.stack[-1]
            if not frame.indefinite and not frame.truncated:
                frame.damaged = True
                self.position = frame.end
                return True
            if any(not outer.indefinite and not outer.truncated for outer in self.stack[1:]):
                self.stack.pop()
            else:
                return False
        return False

    def close_all(self) -> None:
        """Close what is still open, as cut off."""
        while len(self.stack) > 1:
            self.stack[-1].truncated = True
            self._close(len(self.data), len(self.data))

    def _node(self, frame: _Open) -> None:
        at = self.position
        self._budget.spend(at)
        self._stream.seek(at)
        try:
            header = HEADER.parse_stream(self._stream)
        except ConstructError:
            raise DissectError(at, "a tag and a length", "the end of the input") from None
        tag, length, content = header.tag, header.length, header.content
        if tag == (UNIVERSAL, 0, False):
            if not frame.indefinite or length != 0:
                raise DissectError(at, "a node", "a stray end-of-contents tag")
            self._close(at, content)
            self.position = content
            return
        if length == INDEFINITE and not tag.constructed:
            raise DissectError(at, "a definite length for a primitive value", "an indefinite one")
        end = frame.end if length == INDEFINITE else content + length
        truncated = False
        if content > frame.end or end > frame.end:
            too_long = DissectError(at, f"a node that ends by offset {frame.end}", f"one that ends at {end}")
            if not tag.constructed or frame.end != len(self.data) or content > frame.end:
                raise too_long
            # Cut off by the end of the input: what is there is worth reading.
            self.errors.append(too_long)
            end, truncated = frame.end, True
        if not tag.constructed:
            frame.children.append(Node(tag, at, content, end, end, source=self.data))
            self.position = self.reached = end
            return
        if len(self.stack) > MAX_DEPTH:
            raise LimitExceeded(at, f"at most {MAX_DEPTH} levels", "more")
        if length == INDEFINITE and self.first_indefinite is None:
            self.first_indefinite = at
        self.stack.append(_Open(tag, at, content, end, length == INDEFINITE, truncated))
        self.position = content

    def _close(self, end: int, stop: int) -> None:
        """Turn the innermost open node into a child of its parent, and go on behind it."""
        frame = self.stack.pop()
        children = tuple(frame.children)
        node = Node(
            *(frame.tag, frame.offset, frame.content, end, stop, children, frame.indefinite),
            truncated=frame.truncated or frame.damaged,
            source=self.data,
        )
        self.stack[-1].children.append(node)


def _base128(number: int) -> list[int]:
    octets = [number & 0x7F]
    while number := number >> 7:
        octets.insert(0, 0x80 | number & 0x7F)
    return octets
