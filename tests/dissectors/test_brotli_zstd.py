from __future__ import annotations

import contextlib
import gzip
import itertools
import subprocess
import sys
import tracemalloc
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from dissectors import brotli_zstd
from dissectors.coding import BodyDecoder, decode_body
from dissectors.errors import DissectError, LimitExceeded

CODINGS = ["br", "zstd"]
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "br": lambda data: bytes(brotli.compress(data, quality=1)),
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,
}
TEXT = b"hello world " * 50


@pytest.fixture(params=[True, False], autouse=brotli_zstd.ASKED)
def asked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of keeping brotli's output small."""
    monkeypatch.setattr(brotli_zstd, "ASKED", request.param)


@pytest.mark.parametrize("name", CODINGS)
@given(data=st.binary(max_size=2000), times=st.integers(1, 40), cuts=st.lists(st.integers(0, 3000), max_size=8))
def test_the_pieces_a_body_comes_in_do_not_matter(name: str, data: bytes, times: int, cuts: list[int]) -> None:
    encoded = ENCODERS[name](data * times)
    decoder = BodyDecoder([name])
    edges = [0, *sorted(cut % (len(encoded) + 1) for cut in cuts), len(encoded)]
    pieces = [decoder.feed(encoded[start:end]) for start, end in itertools.pairwise(edges)]
    assert b"".join(pieces) + decoder.finish() == data * times


@pytest.mark.parametrize("name", CODINGS)
@given(data=st.binary(max_size=300), at=st.integers(0, 300))
def test_nothing_but_the_one_error_escapes(name: str, data: bytes, at: int) -> None:
    for hostile in (data, ENCODERS[name](TEXT)[:at] + data):
        with contextlib.suppress(DissectError):
            decode_body(hostile, [name], 1000)


@pytest.mark.parametrize("name", CODINGS)
def test_what_is_cut_off_or_goes_on_is_refused(name: str) -> None:
    encoded = ENCODERS[name](TEXT)
    assert decode_body(encoded, [name]) == TEXT
    assert decode_body(b"", [name]) == b""
    for damaged in (*(encoded[:end] for end in range(1, len(encoded))), encoded + b"junk"):
        with pytest.raises(DissectError):
            decode_body(damaged, [name])


@pytest.mark.parametrize("name", CODINGS)
def test_with_another_coding(name: str) -> None:
    assert decode_body(gzip.compress(ENCODERS[name](TEXT)), [name, "gzip"]) == TEXT
    assert decode_body(ENCODERS[name](gzip.compress(TEXT)), ["gzip", name]) == TEXT


@pytest.mark.parametrize("name", CODINGS)
def test_a_bomb_stops_at_the_limit(name: str) -> None:
    bomb = ENCODERS[name](bytes(64 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(LimitExceeded):
        decode_body(bomb, [name], 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20
    assert len(decode_body(ENCODERS[name](bytes(1 << 20)), [name], 1 << 20)) == 1 << 20


def test_frames_of_zstd_join_and_are_limited() -> None:
    packed = ENCODERS["zstd"]
    assert decode_body(packed(b"ab") + packed(b"") + packed(b"cd"), ["zstd"]) == b"abcd"
    with pytest.raises(LimitExceeded):
        decode_body(packed(b"") * (brotli_zstd.MAX_FRAMES + 1), ["zstd"])


def test_a_window_beyond_what_the_coding_allows_is_refused() -> None:
    wide = zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27))
    stream = wide.compressobj()
    with pytest.raises(DissectError):
        decode_body(stream.compress(TEXT) + stream.flush(), ["zstd"])


def test_neither_is_imported_before_such_a_body_comes() -> None:
    code = "import sys, captures.body_reader; print({'brotli', 'zstandard'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.strip() == "set()"
