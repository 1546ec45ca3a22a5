"""The rules for reading hostile cabinets (formats.md section 2), one or more tests each, on cabinets that lie."""

from __future__ import annotations

import tracemalloc
import zlib
from itertools import count

import pytest

from dissectors import DissectError, LimitExceeded, Unsupported
from dissectors.cabinet import Budget, Cabinet, Compression, NewFolder, NewMember, limits
from tests.dissectors.cabinet.making import TEXT, block, cabinet_of, folder_of, patched, raw_cabinet

GOOD = cabinet_of({"a.txt": TEXT, "b.txt": b"b"}, Compression.MSZIP)
HEADER_SIZE, FILES_OFFSET, FOLDER_COUNT, FILE_COUNT, FLAGS = 8, 16, 26, 28, 30


class Calls:
    """A clock that runs out after so many looks."""

    def __init__(self, allowed: int) -> None:
        self.left = allowed

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


class CountedSource:
    """A buffer that counts what is read of it."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)
        self.reads = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.reads += 1
        return self._data[offset : offset + size]


def inflating(size: int) -> bytes:
    """An MSZIP block that inflates to so many zeros."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return b"CK" + deflater.compress(bytes(size)) + deflater.flush()


# Rule 1: budget before work.


def test_rule_1_members_over_budget() -> None:
    with pytest.raises(LimitExceeded) as caught:
        Cabinet.parse(GOOD, Budget(members=1))
    assert caught.value.offset == FILE_COUNT


def test_rule_1_blocks_over_budget_are_not_walked() -> None:
    with pytest.raises(LimitExceeded):
        Cabinet.parse(GOOD, Budget(blocks=2))


def test_rule_1_declared_output_over_budget_is_refused_before_decoding() -> None:
    source = CountedSource(GOOD)
    cabinet = Cabinet.parse(source)
    before = source.reads
    with pytest.raises(LimitExceeded):
        list(cabinet.pieces(budget=Budget(output=len(TEXT))))
    assert source.reads == before


def test_rule_1_decoding_up_to_a_wanted_member_counts_too() -> None:
    cabinet = Cabinet.parse(GOOD)
    assert cabinet.read(cabinet.members[1]) == b"b"
    with pytest.raises(LimitExceeded):
        cabinet.read(cabinet.members[1], Budget(output=65536))


def test_rule_1_time_of_the_callers_clock() -> None:
    with pytest.raises(LimitExceeded):
        Cabinet.parse(GOOD, Budget(expired=Calls(0)))
    cabinet = Cabinet.parse(GOOD)
    pieces = cabinet.pieces(budget=Budget(expired=Calls(1)))
    assert len(next(pieces).data) == 32768
    with pytest.raises(LimitExceeded):
        next(pieces)


def test_rule_1_examine_tells_which_members_the_budget_cost() -> None:
    contents = Cabinet.parse(GOOD).examine(Budget(expired=Calls(1)))
    assert [type(each.fault) for each in contents.members] == [LimitExceeded, LimitExceeded]


def test_rule_1_65535_members_that_all_are_the_same_folder_decode_nothing() -> None:
    blocks = [(inflating(32768), 32768)] * 6400  # 200 MiB in 2 MB
    data = raw_cabinet(
        [{"size": 6400 * 32768}] * 65535,
        [{"block_count": len(blocks), "compression": 1}],
        b"".join(block(*each) for each in blocks),
    )
    cabinet = Cabinet.parse(data)
    contents = cabinet.examine()
    assert all(isinstance(each.fault, LimitExceeded) for each in contents.members)
    assert len(contents.problems) < 50


def test_rule_1_a_few_overlapping_members_are_each_whole() -> None:
    data = raw_cabinet(
        [
            {"name": b"all", "size": 6, "folder_offset": 0},
            {"name": b"end", "size": 3, "folder_offset": 3},
            {"name": b"all again", "size": 6, "folder_offset": 0},
        ],
        data=block(b"abcdef"),
    )
    cabinet = Cabinet.parse(data)
    assert [cabinet.read(member) for member in cabinet.members] == [b"abcdef", b"def", b"abcdef"]
    digests = [each.digests for each in cabinet.verify().members]
    assert digests[0] == digests[2] != digests[1]


# Rule 2: every offset and length against what is there.


def test_rule_2_every_truncation_is_refused_or_marked() -> None:
    data = cabinet_of({"a": b"hello", "b": b"world"}, Compression.MSZIP)
    places = []
    for size in range(len(data)):
        try:
            cabinet = Cabinet.parse(data[:size])
        except DissectError as error:
            places.append(error.offset)
            continue
        assert any("truncated" in problem for problem in cabinet.problems)
        with pytest.raises(DissectError):
            cabinet.verify()
    assert places
    assert max(places) < len(data)


def test_rule_2_the_declared_size_binds_although_the_file_goes_on() -> None:
    cabinet = Cabinet.parse(patched(GOOD, HEADER_SIZE, "<I", lambda size: size - 1))
    assert cabinet.folders[0].fault is not None
    with pytest.raises(DissectError):
        cabinet.verify()


def test_rule_2_data_far_outside_is_refused_where_it_is_said_to_be() -> None:
    cabinet = Cabinet.parse(raw_cabinet([{}], [{"data_offset": 0xFFFF0000}], block(b"a")))
    with pytest.raises(DissectError) as caught:
        cabinet.verify()
    assert caught.value.offset > 0xFFFF0000


# Rule 3: order, and no overlaps.


def test_rule_3_a_member_list_inside_the_header_is_not_believed() -> None:
    cabinet = Cabinet.parse(patched(GOOD, FILES_OFFSET, "<I", 4))
    assert [member.name for member in cabinet.members] == ["a.txt", "b.txt"]
    assert "not right after the folders" in cabinet.problems[0]


def test_rule_3_folders_that_share_data_are_read_once() -> None:
    data = raw_cabinet([{"folder": 0}, {"folder": 1}], [{}, {}], block(b"a"))
    contents = Cabinet.parse(data).examine()
    assert [each.digests is None for each in contents.members] == [False, True]


def test_rule_3_a_folder_over_the_directory_is_refused() -> None:
    data = raw_cabinet([{"size": 5}], data=block(b"hello"))
    cabinet = Cabinet.parse(patched(data, 36, "<I", 36))
    with pytest.raises(DissectError) as caught:
        cabinet.verify()
    assert caught.value.offset == 36


def test_rule_3_65535_folders_times_65535_blocks_cost_one_walk() -> None:
    blocks = block(b"a") * 60000
    folders = [{"block_count": 60000}] + [{"block_count": 5000, "data_offset": 9}] * 65534
    source = CountedSource(raw_cabinet([{}], folders, blocks))
    cabinet = Cabinet.parse(source)
    assert sum(folder.blocks for folder in cabinet.folders) == 60000
    assert source.reads < 70000


# Rule 4: the sizes of a block.


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (block(b"a" * 32769), "output"),
        (block(b"a", 65535), "output"),
        (block(b"a" * 38913, 32768), "input"),
        (block(b"ab", 1), "stored"),
        (block(b"a", 2), "stored"),
        (block(b"", 0), "nothing"),
        (block(b"a", 0), "no output"),
        (block(b"", 1), "no data"),
    ],
)
def test_rule_4_sizes_no_block_may_have(bad: bytes, why: str) -> None:
    cabinet = Cabinet.parse(raw_cabinet([{}], data=bad))
    with pytest.raises(DissectError):
        cabinet.verify()


# Rule 5: one block at a time, exactly.


def test_rule_5_a_bomb_is_cut_off_at_one_byte_too_many() -> None:
    bomb = folder_of((inflating(32 * 1024**2), 32768), compression=Compression.MSZIP, size=32768)
    cabinet = Cabinet.parse(bomb)
    tracemalloc.start()
    try:
        with pytest.raises(DissectError, match="found more"):
            cabinet.verify()
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 512 * 1024


@pytest.mark.parametrize(
    "data",
    [
        inflating(99),
        inflating(101),
        inflating(100)[:-1],
        b"CK",
        b"KC" + inflating(100)[2:],
        b"CK\x07",
        b"CK\xff\xff\xff",
    ],
)
def test_rule_5_not_exactly_what_is_declared(data: bytes) -> None:
    with pytest.raises(DissectError):
        Cabinet.parse(folder_of((data, 100), compression=Compression.MSZIP, size=100)).verify()


def test_rule_5_history_stays_within_its_folder() -> None:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=TEXT[:32768])
    needs_history = b"CK" + deflater.compress(TEXT[:1000]) + deflater.flush()
    first = NewFolder([NewMember("a", TEXT[:32768])])
    frames = [(needs_history, 1000)]
    alone = NewFolder([NewMember("b", bytes(1000))], frames=frames)
    contents = Cabinet.parse(Cabinet.build([first, alone])).examine()
    assert [each.fault is None for each in contents.members] == [True, False]
    packed = Cabinet.parse(Cabinet.build([first])).folders[0].parts[0]
    together = [(packed.source.read_at(packed.blocks[0].offset + 8, packed.blocks[0].packed_size), 32768), *frames]
    joined = NewFolder([NewMember("a", bytes(32768)), NewMember("b", bytes(1000))], frames=together)
    cabinet = Cabinet.parse(Cabinet.build([joined]))
    assert cabinet.read(cabinet.members[1]) == TEXT[:1000]


# Rule 6: members within folders.


def test_rule_6_a_folder_that_is_not_there() -> None:
    with pytest.raises(DissectError):
        Cabinet.parse(raw_cabinet([{"folder": 1}], data=block(b"a")))


def test_rule_6_an_empty_name() -> None:
    with pytest.raises(DissectError):
        Cabinet.parse(raw_cabinet([{"name": b""}], data=block(b"a")))


@pytest.mark.parametrize("length", [256, 32 * 1024**2])
def test_rule_6_a_name_without_end(length: int) -> None:
    data = raw_cabinet([{}], data=block(b"a"))
    name = data.index(b"x\0")
    source = CountedSource(patched(data[:name] + b"n" * length, HEADER_SIZE, "<I", 0xFFFFFFFF))
    with pytest.raises(DissectError):
        Cabinet.parse(source)
    assert source.reads < 20


@pytest.mark.parametrize(
    ("size", "offset"), [(7, 0), (6, 1), (0xFFFFFFFF, 0), (0xFFFFFFFF, 0xFFFFFFFF), (2, 0xFFFFFFFF), (0, 7)]
)
def test_rule_6_beyond_the_folder(size: int, offset: int) -> None:
    cabinet = Cabinet.parse(raw_cabinet([{"size": size, "folder_offset": offset}, {}], data=block(b"abcdef")))
    contents = cabinet.examine()
    assert contents.members[0].fault is not None
    assert contents.members[0].fault.offset == cabinet.members[0].position


# Rule 7, names as labels: test_names.py.


# Rule 8: checksums.


def test_rule_8_a_wrong_checksum_ends_its_folder_there() -> None:
    data = cabinet_of({"first": b"a" * 32768, "second": b"b" * 32768})
    second = Cabinet.parse(data).folders[0].parts[0].blocks[1]
    spoiled = patched(data, second.offset + 100, "<B", lambda value: value ^ 1)
    contents = Cabinet.parse(spoiled).examine()
    assert [each.fault is None for each in contents.members] == [True, False]
    assert contents.members[1].fault is not None
    assert contents.members[1].fault.offset == second.offset


def test_rule_8_the_checksum_covers_sizes_and_reserve() -> None:
    data = cabinet_of({"a": b"hello"}, data_reserve=5)
    (only,) = Cabinet.parse(data).folders[0].parts[0].blocks
    with pytest.raises(DissectError, match="checksum"):
        Cabinet.parse(patched(data, only.offset + 8, "<B", 1)).verify()


def test_rule_8_zero_means_absent() -> None:
    Cabinet.parse(raw_cabinet([{"size": 5}], data=block(b"hello"))).verify()
    with pytest.raises(DissectError):
        Cabinet.parse(raw_cabinet([{"size": 5}], data=block(b"hello", checksum=1))).verify()


# Rule 9: kinds of errors.


def test_rule_9_malformed_unsupported_and_limit_are_told_apart() -> None:
    with pytest.raises(Unsupported):
        Cabinet.parse(raw_cabinet([{}], [{"compression": 15}], block(b"a"))).verify()
    with pytest.raises(Unsupported):
        Cabinet.parse(raw_cabinet([{}], [{"compression": 0x1602}], block(b"a"))).verify()
    with pytest.raises(Unsupported):
        Cabinet.parse(raw_cabinet([{}], [{"compression": 0x0E03}], block(b"a"))).verify()
    with pytest.raises(LimitExceeded):
        Cabinet.parse(GOOD, Budget(members=1))
    with pytest.raises(DissectError) as caught:
        Cabinet.parse(b"MSCG" + bytes(100))
    assert type(caught.value) is DissectError


def test_rule_9_quantum_without_libmspack_is_shown_but_not_decoded() -> None:
    cabinet = Cabinet.parse(raw_cabinet([{}], [{"compression": 0x1222}], block(b"a")))
    contents = cabinet.examine(native=False)
    assert isinstance(contents.members[0].fault, Unsupported)
    assert (cabinet.folders[0].compression, cabinet.folders[0].level) == ("Quantum-18", 2)


# Rule 10: what is behind the cabinet.


def test_rule_10_trailing_bytes_are_an_overlay() -> None:
    cabinet = Cabinet.parse(GOOD + b"xyz")
    cabinet.verify()
    assert cabinet.signature is None
    assert cabinet.problems == ("3 bytes after the cabinet",)


def test_a_cabinet_costs_no_more_memory_than_its_index() -> None:
    """Constant memory: no block is held once it has been handed on."""

    class Endless:
        """8 MiB of stored blocks that exist only while they are read."""

        size = 0

        def __init__(self) -> None:
            self.head = cabinet_of({"a": bytes(32768)})
            self.directory = len(self.head) - 8 - 32768
            whole = patched(self.head, 36 + 4, "<H", 256)
            whole = patched(whole, 44, "<I", 256 * 32768)
            self.size = self.directory + 256 * (8 + 32768)
            self.head = patched(whole, HEADER_SIZE, "<I", self.size)

        def read_at(self, offset: int, size: int) -> bytes:
            if offset < self.directory:
                return self.head[offset : min(offset + size, self.directory)]
            start = self.directory + (offset - self.directory) % (8 + 32768)
            return self.head[start : start + size]

    cabinet = Cabinet.parse(Endless())
    tracemalloc.start()
    try:
        got = sum(len(piece.data) for piece in cabinet.pieces())
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert got == 256 * 32768
    assert peak < 8 * limits.BLOCK_OUTPUT


def test_an_endless_clock_is_looked_at_again_and_again() -> None:
    looks = count()
    Cabinet.parse(GOOD).examine(Budget(expired=lambda: next(looks) < 0))
    assert next(looks) >= 3
