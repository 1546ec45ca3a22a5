from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import pytest

from captures.bodies import BodyFiles
from captures.body_reader import MAX_WIDE, BodyReader, Keeping
from captures.exchange import Body


def read(keeping: Keeping, *pieces: bytes, codings: tuple[str, ...] = ()) -> tuple[Body, list[str]]:
    reader = BodyReader(codings, keeping)
    for piece in pieces:
        reader.write(piece)
    body = Body(*reader.finish())
    return body, reader.problems


def test_a_small_body_is_held_and_a_large_one_only_hashed() -> None:
    keeping = Keeping(4, None)
    small, _ = read(keeping, b"ab", b"cd")
    assert (small, small.data) == (Body.of(b"abcd"), b"abcd")
    large, _ = read(keeping, b"ab", b"cde")
    assert (large, large.data) == (Body.of(b"abcde"), None)


def test_both_forms_of_a_coded_body_are_described() -> None:
    packed = gzip.compress(b"hello" * 9)
    body, problems = read(Keeping(1000, None), packed[:9], packed[9:], codings=("gzip",))
    assert body == Body.of(b"hello" * 9, packed)
    assert (body.data, body.encoded) == (b"hello" * 9, packed)
    assert not problems


@pytest.mark.parametrize("codings", [("gzip",), ("br",), ("zstd",), ("compress",), ("gzip",) * 9])
def test_what_cannot_be_decoded_is_given_as_it_came(codings: tuple[str, ...]) -> None:
    body, problems = read(Keeping(1000, None), b"no gzip", codings=codings)
    assert body == Body.of(b"no gzip")
    assert len(problems) == 1


def test_decoders_that_take_much_memory_are_counted() -> None:
    packed = brotli.compress(b"hello" * 9)
    keeping = Keeping(1000, None)
    under_way = [BodyReader(("br",), keeping) for _ in range(MAX_WIDE + 1)]
    for reader in under_way:
        reader.write(packed)
    bodies = [Body(*reader.finish()) for reader in under_way]
    assert bodies == [Body.of(b"hello" * 9, packed)] * MAX_WIDE + [Body.of(packed)]
    assert "at most 16 bodies in brotli or zstd" in under_way[-1].problems[0]
    assert read(keeping, packed, codings=("br",))[0] == bodies[0]
    read(keeping, packed, codings=("zstd",) * 9)
    assert keeping.wide == MAX_WIDE


def test_across_a_gap_nothing_is_decoded() -> None:
    packed = gzip.compress(b"hello" * 9)
    reader = BodyReader(("gzip",), Keeping(1000, None))
    reader.write(packed[:9])
    reader.hole(3)
    reader.write(packed[12:])
    assert Body(*reader.finish()) == Body.of(packed[:9] + packed[12:])
    assert reader.missing == 3
    assert reader.problems[0] == "gap: 3 bytes missing at 9 of the body"


def test_all_bodies_under_way_share_one_allowance() -> None:
    keeping = Keeping(100, None, left=150)
    first, second = BodyReader((), keeping), BodyReader((), keeping)
    first.write(b"a" * 90)
    second.write(b"b" * 90)
    assert Body(*second.finish()).data is None
    assert Body(*first.finish()).data == b"a" * 90
    assert keeping.left == 150
    assert read(keeping, b"c" * 90)[0].data is not None


def test_files_appear_whole_under_their_hash(tmp_path: Path) -> None:
    packed = gzip.compress(b"hello" * 9)
    keeping = Keeping(10, BodyFiles(tmp_path))
    bodies = [read(keeping, packed, codings=("gzip",))[0], read(keeping, b"small")[0], read(keeping)[0]]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        bodies[0].sha256: b"hello" * 9,
        hashlib.sha256(b"small").hexdigest(): b"small",
    }
