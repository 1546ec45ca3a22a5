"""libmspack and our own decoder: the same bytes, the same refusals."""

from __future__ import annotations

import random

import pytest

from dissectors import DissectError
from dissectors.cabinet import Cabinet, Compression, NewFolder, NewMember, accelerate
from dissectors.cabinet.decoders import decode_folder
from tests.dissectors.cabinet.making import TEXT, patched
from tools.bench.lzx_encoder import FRAME, Kind, encode_lzx

DATA = (TEXT[:50_000] + bytes(random.Random(7).randbytes(30_000))) * 8


@pytest.fixture
def cabinet() -> Cabinet:
    if not accelerate.available():
        pytest.skip("libmspack is not installed")
    frames = encode_lzx(DATA, 18, [(Kind.ALIGNED, 100_000), (Kind.UNCOMPRESSED, 50_001)], len(DATA))
    members = [NewMember("a", DATA[:100_000]), NewMember("b", DATA[100_000:500_000]), NewMember("c", DATA[500_000:])]
    return Cabinet.parse(Cabinet.build([NewFolder(members, Compression.LZX, 18, frames=frames)]))


def test_chunks_add_up(cabinet: Cabinet) -> None:
    chunks = list(accelerate.decode(cabinet.folders[0]))
    assert b"".join(chunks) == DATA
    assert {len(chunk) for chunk in chunks[:-1]} == {accelerate.CHUNK}


def test_stopping_early_leaves_nothing_behind(cabinet: Cabinet) -> None:
    for _again in range(3):
        chunks = accelerate.decode(cabinet.folders[0])
        assert next(chunks) == DATA[: accelerate.CHUNK]
        chunks.close()  # type: ignore[attr-defined]


def test_two_folders_may_be_decoded_in_turn(cabinet: Cabinet) -> None:
    one, two = (accelerate.decode(cabinet.folders[0]) for _time in range(2))
    assert b"".join(a + b for a, b in zip(one, two, strict=True))[: accelerate.CHUNK] == DATA[: accelerate.CHUNK]


def test_a_refusal_is_explained_by_the_reference_and_costs_no_good_byte(cabinet: Cabinet) -> None:
    part = cabinet.folders[0].parts[0]
    bad = part.blocks[12]
    whole = bytearray(part.source.read_at(0, part.source.size))
    # No checksum, so that it is the LZX data that is wrong.
    spoiled = patched(bytes(whole), bad.offset, "<I", 0)
    spoiled = spoiled[: bad.offset + 8] + b"\xff" * bad.packed_size + spoiled[bad.offset + 8 + bad.packed_size :]
    folder = Cabinet.parse(spoiled).folders[0]
    results = []
    for native in (True, False):
        got: list[bytes] = []
        with pytest.raises(DissectError) as caught:
            got.extend(decode_folder(folder, native=native))
        results.append((b"".join(got), str(caught.value)))
    assert results[0] == results[1]
    assert results[0][0] == DATA[: 12 * FRAME]


def test_errors_of_the_input_come_through(cabinet: Cabinet) -> None:
    class Unreadable:
        def __init__(self, data: bytes) -> None:
            self.data = data
            self.size = len(data)
            self.broken = False

        def read_at(self, offset: int, size: int) -> bytes:
            if self.broken:
                raise KeyboardInterrupt
            return self.data[offset : offset + size]

    part = cabinet.folders[0].parts[0]
    source = Unreadable(part.source.read_at(0, part.source.size))
    other = Cabinet.parse(source)
    source.broken = True
    with pytest.raises(KeyboardInterrupt):
        list(accelerate.decode(other.folders[0]))


def test_damaged_data_is_never_decoded_to_different_bytes(cabinet: Cabinet) -> None:
    """Bits flipped anywhere in small LZX folders: where both accept, they agree; both always come back."""
    choice = random.Random(20)
    accepted = 0
    for _mutant in range(150):
        size = choice.choice([200, 5_000])
        frames = encode_lzx(DATA[:size], 15, [(choice.choice(list(Kind)), size)])
        data = bytearray(frames[0][0])
        for _flip in range(choice.randint(1, 3)):
            data[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
        folder = NewFolder([NewMember("a", bytes(size))], Compression.LZX, 15, frames=[(bytes(data), size)])
        mutant = Cabinet.parse(Cabinet.build([folder])).folders[0]
        results = []
        for native in (True, False):
            try:
                results.append(b"".join(decode_folder(mutant, native=native)))
            except DissectError:
                results.append(b"")
        if all(results):
            accepted += 1
            assert results[0] == results[1]
    assert accepted
