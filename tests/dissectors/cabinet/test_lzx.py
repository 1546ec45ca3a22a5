from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.cabinet import Cabinet, Compression, NewFolder, NewMember, accelerate
from dissectors.cabinet.lzx import untranslate_calls
from tests.conftest import require_tool
from tests.dissectors.cabinet.making import TEXT
from tools.bench.lzx_encoder import FRAME, Kind, encode_lzx, translate_calls

CALLS = b"".join(
    b"\x55\x8b\xec" + b"\xe8" + struct.pack("<i", target) + bytes([number % 256])
    for number, target in enumerate(range(-70_000, 90_000, 13))
)
"""Something like code: calls to near, far and impossible places."""

blocks = st.lists(st.tuples(st.sampled_from(Kind), st.integers(1, 70_000)), max_size=6)
contents = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(
        lambda data, size: (data * (size // len(data) + 1))[:size],
        st.binary(min_size=1, max_size=99),
        st.integers(1, 80_000),
    ),
    st.integers(1, len(CALLS)).map(lambda size: CALLS[:size]),
    st.integers(1, len(TEXT)).map(lambda size: TEXT[:size]),
)


def lzx_cabinet(data: bytes, window: int, plan: list[tuple[Kind, int]], e8_size: int = 0) -> bytes:
    frames = encode_lzx(data, window, plan, e8_size)
    return Cabinet.build([NewFolder([NewMember("member", data)], Compression.LZX, window, frames=frames)])


@settings(deadline=None, max_examples=60)
@given(contents, st.integers(15, 21), blocks, st.booleans())
def test_what_is_encoded_decodes(data: bytes, window: int, plan: list[tuple[Kind, int]], translate: bool) -> None:
    cabinet = Cabinet.parse(lzx_cabinet(data, window, plan, len(data) if translate else 0))
    assert cabinet.read(cabinet.members[0], native=False) == data
    if accelerate.available():
        assert b"".join(accelerate.decode(cabinet.folders[0])) == data


@pytest.mark.parametrize("window", range(15, 22))
def test_cabextract_reads_the_same(tmp_path: Path, window: int) -> None:
    """That encoder and decoder agree proves little if they share a mistake."""
    program = require_tool("cabextract")
    data = (CALLS + TEXT) * 2
    plan = [(Kind.ALIGNED, 50_001), (Kind.UNCOMPRESSED, 40_001), (Kind.VERBATIM, 7), (Kind.UNCOMPRESSED, FRAME + 1)]
    path = tmp_path / "a.cab"
    path.write_bytes(lzx_cabinet(data, window, plan, len(data)))
    done = subprocess.run([program, "--pipe", str(path)], capture_output=True, check=True)
    assert done.stdout == data


def test_raw_bytes_that_leave_an_odd_stretch_to_the_next_frame(tmp_path: Path) -> None:
    """Words are then counted from an odd place until the frame ends."""
    program = require_tool("cabextract")
    data = CALLS[:100_000]
    plan = [(Kind.UNCOMPRESSED, 12_227), (Kind.VERBATIM, 10_780), (Kind.UNCOMPRESSED, 12_507), (Kind.ALIGNED, 40_000)]
    packed = lzx_cabinet(data, 16, plan)
    cabinet = Cabinet.parse(packed)
    assert cabinet.folders[0].parts[0].blocks[0].packed_size % 2
    assert cabinet.read(cabinet.members[0], native=False) == data
    path = tmp_path / "a.cab"
    path.write_bytes(packed)
    assert subprocess.run([program, "--pipe", str(path)], capture_output=True, check=True).stdout == data


@given(st.integers(1, len(CALLS)), st.integers(1, 2**31 - 1))
def test_calls_are_translated_back(size: int, file_size: int) -> None:
    data = CALLS[:size]
    translated = translate_calls(data, file_size)
    frames = (
        untranslate_calls(translated[start : start + FRAME], start, file_size)
        if len(translated) - start > 10
        else translated[start:]
        for start in range(0, size, FRAME)
    )
    assert b"".join(frames) == data


def test_the_window_forgets_no_sooner_and_no_later() -> None:
    """A match as far back as the window of 32 KiB reaches, long after the decoder has let go of the rest."""
    unit = bytes(value * value % 253 for value in range(FRAME - 3))
    data = unit * 12
    cabinet = Cabinet.parse(lzx_cabinet(data, 15, []))
    assert cabinet.folders[0].packed_size < len(unit) * 2
    assert cabinet.read(cabinet.members[0], native=False) == data


def broken(frames: list[tuple[bytes, int]], window: int = 15) -> Cabinet:
    size = sum(size for _data, size in frames)
    folder = NewFolder([NewMember("member", bytes(size))], Compression.LZX, window, frames=frames)
    return Cabinet.parse(Cabinet.build([folder]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: data[:2],
        lambda data: bytes(len(data)),
        lambda data: b"\xff" * len(data),
        lambda data: data[:20] + b"\xff" * 20 + data[40:],
    ],
)
def test_damaged_frames_are_refused_at_their_block(spoil: object) -> None:
    assert callable(spoil)
    (data, size), *_rest = encode_lzx(TEXT[:FRAME], 15)
    cabinet = broken([(spoil(data), size)])
    for native in (False, True):
        with pytest.raises(DissectError) as caught:
            cabinet.verify(native=native)
        assert caught.value.offset == cabinet.folders[0].parts[0].blocks[0].offset + 8


def test_a_frame_short_in_the_middle_is_refused() -> None:
    frames = encode_lzx(TEXT[: 2 * FRAME], 15)
    for native in (False, True):
        with pytest.raises(DissectError, match="every LZX block but the last"):
            broken([(frames[0][0], FRAME - 1), frames[1]]).verify(native=native)


def bits(*fields: tuple[int, int]) -> bytes:
    """Fields of (value, width) as LZX words."""
    value, width = 0, 0
    for field, count in fields:
        value, width = value << count | field, width + count
    value, width = value << -width % 16, width + -width % 16
    return b"".join(struct.pack("<H", value >> shift & 0xFFFF) for shift in range(width - 16, -1, -16))


@pytest.mark.parametrize("repeated", [0, 1 << 15 | 1, 0xFFFFFFFF])
def test_repeated_offsets_of_an_uncompressed_block_may_be_nonsense_until_used(repeated: int) -> None:
    start = bits((0, 1), (3, 3), (0, 16), (4, 8)) + struct.pack("<3I", repeated, repeated, repeated) + b"data"
    cabinet = broken([(start, 4)])
    assert cabinet.read(cabinet.members[0], native=False) == b"data"


def test_block_types_without_meaning_are_refused() -> None:
    for kind in (0, 4, 5, 6, 7):
        with pytest.raises(DissectError, match=f"LZX block type {kind}"):
            broken([(bits((0, 1), (kind, 3), (0, 16), (4, 8)) + bytes(40), 4)]).verify(native=False)


def test_empty_blocks_end_with_the_data() -> None:
    """A chain of blocks of length 0 makes no output; it must not make an endless loop either."""
    empty = bits((0, 1), (3, 3), (0, 16), (0, 8)) + struct.pack("<3I", 1, 1, 1)
    rest = (bits((3, 3), (0, 16), (0, 8)) + struct.pack("<3I", 1, 1, 1)) * 2000
    for native in (False, True):
        with pytest.raises(DissectError):
            broken([(empty + rest, 4)]).verify(native=native)
