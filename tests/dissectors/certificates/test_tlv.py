from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded
from dissectors.certificates import armour, tlv
from dissectors.certificates.tlv import Node, Tag, encode, parse, parse_one, read

CLASSES = st.sampled_from([tlv.APPLICATION, tlv.CONTEXT, tlv.PRIVATE])
TAGS = st.builds(Tag, CLASSES, st.integers(0, (1 << 28) - 1), st.just(value=False))
LEAVES = st.builds(encode, TAGS, st.binary(max_size=300))
TREES = st.recursive(
    LEAVES,
    lambda children: st.builds(
        lambda tag, parts: encode(tag._replace(constructed=True), b"".join(parts)), TAGS, st.lists(children, max_size=4)
    ),
    max_leaves=12,
)


def rebuilt(node: Node) -> bytes:
    content = b"".join(rebuilt(child) for child in node.children) if node.tag.constructed else node.value
    return encode(node.tag, content)


@given(st.lists(TREES, max_size=4))
def test_what_is_encoded_reads_back_to_the_byte(trees: list[bytes]) -> None:
    nodes = parse(b"".join(trees))
    assert [node.raw for node in nodes] == trees
    assert [rebuilt(node) for node in nodes] == trees


@given(TREES)
def test_indefinite_lengths_hold_the_same_and_are_named(tree: bytes) -> None:
    loose = b"\x30\x80" + tree + b"\0\0"
    node = parse_one(loose)
    assert node.indefinite
    assert read(loose).first_indefinite == 0
    assert [child.raw for child in node.children] == [tree]
    assert tlv.definite(node) == encode(Tag(0, tlv.SEQUENCE, constructed=True), tree)


@pytest.mark.parametrize(
    ("octets", "offset", "expected"),
    [
        ("3081020500", 1, "shortest form"),  # long form of a short length
        ("308200020500", 1, "shortest form"),  # a leading zero
        ("1f1e00", 1, "shortest form"),  # the high-number form of a low tag
        ("1f808100", 1, "shortest form"),
        ("3085010000000000", 1, "length of at most 4 octets"),
        ("1fffffffff7f00", 1, "tag number of at most 4 octets"),
        ("0480000000", 0, "definite length"),
        ("30800500", 4, "end-of-contents"),
        ("0000", 0, "a node"),
        ("3002", 0, "ends by offset 2"),
        ("0402ff", 0, "ends by offset 3"),
        ("30", 0, "a tag and a length"),
        ("1f", 0, "a tag and a length"),
        ("308002010000000500ff", 9, "a tag and a length"),
    ],
)
def test_what_der_forbids_is_refused_at_its_place(octets: str, offset: int, expected: str) -> None:
    with pytest.raises(DissectError, match=expected) as caught:
        parse(bytes.fromhex(octets))
    assert caught.value.offset == offset


def test_depth_and_nodes_are_limited() -> None:
    deep = b"\x05\x00"
    for _ in range(tlv.MAX_DEPTH):
        deep = encode(Tag(0, tlv.SEQUENCE, constructed=True), deep)
    assert parse_one(deep).raw == deep
    with pytest.raises(LimitExceeded, match="levels"):
        parse(b"\x30\x80" * 100_000)
    with pytest.raises(LimitExceeded, match="nodes"):
        parse(b"\x05\x00" * (tlv.MAX_NODES + 1))


def test_a_cut_off_tree_gives_what_is_there() -> None:
    whole = encode(Tag(0, tlv.SEQUENCE, constructed=True), encode(Tag(0, tlv.OCTET_STRING), b"first") + b"\x04\x10lost")
    forest = read(whole[:-2])
    assert forest.error is not None
    (root,) = forest.roots
    assert root.truncated
    assert [child.value for child in root.children] == [b"first"]


def test_reading_goes_on_behind_a_node_with_a_bad_inside() -> None:
    forest = read(bytes.fromhex("30096903ffffff020107"))
    assert forest.error is not None
    bad, good = forest.roots[0].children[0], forest.roots[0].children[1:]
    assert bad.children == ()
    assert bad.value == b"\xff\xff\xff"
    assert [node.value for node in good] == [b"\x07"]


@given(st.binary(max_size=400))
def test_nothing_but_our_error_comes_out_and_reading_always_ends(data: bytes) -> None:
    forest = read(data)
    assert all(0 <= node.offset <= node.content <= node.end <= node.stop <= len(data) for node in forest.roots)
    if forest.error is None:
        assert parse(data) == forest.roots
    else:
        with pytest.raises(DissectError):
            parse(data)


def test_it_agrees_with_asn1crypto_node_for_node(corpus: Path) -> None:
    parser = pytest.importorskip("asn1crypto.parser")

    def theirs(data: bytes) -> list[tuple[int, int, int, int]]:
        found: list[tuple[int, int, int, int]] = []
        pending: list[tuple[int, bytes]] = [(0, data)]
        while pending:
            start, octets = pending.pop()
            at = 0
            while at < len(octets):
                cls, method, tag, header, contents, trailer = parser.parse(octets[at:])
                found.append((start + at, cls, tag, len(contents)))
                if method:
                    pending.append((start + at + len(header), contents))
                at += len(header) + len(contents) + len(trailer)
        return sorted(found)

    def ours(roots: tuple[Node, ...]) -> list[tuple[int, int, int, int]]:
        nodes: list[Any] = [node for root in roots for _, node in root.walk()]
        return sorted((node.offset, node.tag.cls, node.tag.number, node.end - node.content) for node in nodes)

    compared = 0
    for path in sorted([*corpus.glob("der/cv-*"), *corpus.glob("payloads/pki/*/*")]):
        try:
            octets = armour.strip(path.read_bytes()).blocks[0].der
        except DissectError:
            continue
        forest = read(octets)
        if forest.error is None and forest.first_indefinite is None and len(octets) < 60_000:
            assert ours(forest.roots) == theirs(octets), path.name
            compared += 1
    assert compared > 20


def test_damage_inside_leaves_what_is_before_and_behind_it() -> None:
    inner = b"\x30\x06" + b"\x02\x01\x01" + b"\x02\x09\0"
    forest = tlv.read(b"\x30\x0b" + inner + b"\x02\x01\x03")
    (root,) = forest.roots
    damaged, behind = root.children
    assert [node.value for node in damaged.children] == [b"\1"]
    assert (damaged.truncated, root.truncated, behind.value) == (True, False, b"\3")
    assert forest.error is not None
    assert (forest.error.offset, forest.reached) == (7, 13)
