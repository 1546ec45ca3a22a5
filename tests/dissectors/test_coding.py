from __future__ import annotations

import contextlib
import gzip
import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import coding
from dissectors.coding import BodyDecoder, decode_body, encode_body, parse_codings
from dissectors.errors import DissectError, LimitExceeded, Unsupported

CODINGS = st.lists(st.sampled_from(["gzip", "x-gzip", "deflate", "identity"]), max_size=3)


@given(st.binary(max_size=3000), CODINGS)
def test_what_is_encoded_decodes_to_itself(data: bytes, codings: list[str]) -> None:
    assert decode_body(encode_body(data, codings), codings) == data


@given(st.binary(max_size=2000), CODINGS, st.lists(st.integers(0, 3000), max_size=8))
def test_the_pieces_a_body_comes_in_do_not_matter(data: bytes, codings: list[str], cuts: list[int]) -> None:
    encoded = encode_body(data, codings)
    decoder = BodyDecoder(codings)
    edges = [0, *sorted(cut % (len(encoded) + 1) for cut in cuts), len(encoded)]
    pieces = [decoder.feed(encoded[start:end]) for start, end in itertools.pairwise(edges)]
    assert b"".join(pieces) + decoder.finish() == data


@given(st.binary(max_size=300), CODINGS)
def test_nothing_but_the_one_error_escapes(data: bytes, codings: list[str]) -> None:
    with contextlib.suppress(DissectError):
        decode_body(data, codings, 1000)


def raw_deflate(data: bytes) -> bytes:
    raw = zlib.compressobj(wbits=-15)
    return raw.compress(data) + raw.flush()


def test_deflate_comes_wrapped_or_raw() -> None:
    assert decode_body(raw_deflate(b"phone" * 9), ["deflate"]) == b"phone" * 9
    assert decode_body(zlib.compress(b"phone" * 9), ["deflate"]) == b"phone" * 9


@given(st.binary(max_size=3000), st.binary(max_size=3000))
def test_deflate_is_written_as_it_came(came: bytes, data: bytes) -> None:
    assert encode_body(data, ["deflate"], raw_deflate(came)) == raw_deflate(data)
    assert encode_body(data, ["deflate"], zlib.compress(came)) == zlib.compress(data)
    both = gzip.compress(raw_deflate(came))
    assert gzip.decompress(encode_body(data, ["deflate", "gzip"], both)) == raw_deflate(data)
    assert zlib.decompress(encode_body(data, ["gzip", "deflate"], raw_deflate(both)), -15) == gzip.compress(
        data, mtime=0
    )
    with pytest.raises(DissectError):
        encode_body(data, ["deflate", "gzip"], b"damaged")


def test_gzip_members_join_and_zero_padding_is_dropped() -> None:
    assert decode_body(gzip.compress(b"ab") + gzip.compress(b"cd") + bytes(70000), ["gzip"]) == b"abcd"


def test_encoding_is_deterministic() -> None:
    assert encode_body(b"same", ["gzip"]) == encode_body(b"same", ["gzip"])


@pytest.mark.parametrize(
    "data", [gzip.compress(b"x" * 99, mtime=0)[:-1], gzip.compress(b"x", mtime=0) + b"junk", b"not gzip", b"\x1f"]
)
def test_damaged_gzip_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        decode_body(data, ["gzip"])


@pytest.mark.parametrize("data", [zlib.compress(b"x" * 99)[:-1], zlib.compress(b"x") + b"junk", b"x"])
def test_damaged_deflate_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        decode_body(data, ["deflate"])


def test_an_empty_body_is_empty_in_every_coding() -> None:
    assert decode_body(b"", ["gzip"]) == decode_body(b"", ["deflate"]) == b""


def test_a_bomb_stops_at_the_limit() -> None:
    bomb = gzip.compress(bytes(1 << 20))
    assert len(decode_body(bomb, ["gzip"], 1 << 20)) == 1 << 20
    with pytest.raises(LimitExceeded):
        decode_body(bomb, ["gzip"], (1 << 20) - 1)
    with pytest.raises(LimitExceeded):
        decode_body(gzip.compress(bomb), ["gzip", "gzip"], 1000)


def test_members_and_codings_are_limited() -> None:
    with pytest.raises(LimitExceeded):
        decode_body(gzip.compress(b"") * (coding.MAX_MEMBERS + 1), ["gzip"])
    with pytest.raises(LimitExceeded):
        BodyDecoder(["gzip"] * (coding.MAX_CODINGS + 1))


def test_other_codings_are_named_as_unsupported() -> None:
    with pytest.raises(Unsupported, match="compress"):
        decode_body(b"", ["compress"])
    for name in ("br", "zstd", "compress"):
        with pytest.raises(Unsupported, match=name):
            encode_body(b"", [name])


def test_the_header_value_is_a_list_without_case() -> None:
    assert parse_codings("GZIP, identity ,,deflate") == ("gzip", "deflate")
