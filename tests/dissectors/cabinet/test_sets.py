from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded
from dissectors.cabinet import Budget, Cabinet, Compression, NewFolder, build_set
from tests.conftest import require_tool
from tests.dissectors.cabinet.making import TEXT, cabinet_of, patched

SET_ID, SET_INDEX, FLAGS = 32, 34, 30
NAMES = [f"part{number}.cab" for number in range(1000)]
FILES = {"a": TEXT[:40_000], "b": b"b", "empty": b"", "c": bytes(range(256)) * 300, "last": b"last"}


def parts_of(size: int, compression: Compression = Compression.STORED, **files: bytes) -> list[bytes]:
    return build_set(NewFolder.of(files or FILES, compression), size, NAMES, set_id=5)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.integers(0, 50_000), min_size=1, max_size=6),
    st.integers(1_000, 60_000),
    st.sampled_from([Compression.STORED, Compression.MSZIP]),
    st.randoms(use_true_random=False),
)
def test_a_set_joins_whatever_its_order(sizes: list[int], part: int, compression: Compression, order: object) -> None:
    files = {f"member{number}": (TEXT * 2)[number : number + size] for number, size in enumerate(sizes)}
    cabinets = [Cabinet.parse(data) for data in parts_of(part, compression, **files)]
    order.shuffle(cabinets)  # type: ignore[attr-defined]
    joined = Cabinet.join(cabinets)
    assert {member.name: joined.read(member) for member in joined.members} == files
    assert joined.complete
    assert joined.problems == ()
    joined.verify()


def test_cabextract_joins_them_too(tmp_path: Path) -> None:
    program = require_tool("cabextract")
    for name, data in zip(NAMES, parts_of(20_000, Compression.MSZIP), strict=False):
        (tmp_path / name).write_bytes(data)
    done = subprocess.run([program, "--test", str(tmp_path / NAMES[0])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" OK ") == len(FILES)


def test_a_part_alone_tells_what_it_lacks() -> None:
    first, middle, *_rest = (Cabinet.parse(data) for data in parts_of(20_000))
    assert not first.complete
    assert first.header.next is not None
    assert first.header.next.cabinet == "part1.cab"
    with pytest.raises(DissectError, match="the next cabinet of the set"):
        first.verify()
    with pytest.raises(DissectError, match="the previous cabinet of the set"):
        middle.verify()


def test_what_ends_in_a_part_can_be_had_of_it_alone() -> None:
    first = Cabinet.parse(parts_of(70_000)[0])
    assert [each.fault is None for each in first.examine().members] == [True, True, True, False]


def test_a_set_without_its_last_part_is_joined_as_far_as_it_goes() -> None:
    cabinets = [Cabinet.parse(data) for data in parts_of(20_000)]
    joined = Cabinet.join(cabinets[:-1])
    assert any("incomplete" in problem for problem in joined.problems)
    good = [each.member.name for each in joined.examine().members if each.fault is None]
    assert good == ["a", "b", "empty"]


def test_gaps_duplicates_and_strangers_are_refused() -> None:
    cabinets = [Cabinet.parse(data) for data in parts_of(20_000)]
    with pytest.raises(DissectError, match="index 1"):
        Cabinet.join([cabinets[0], *cabinets[2:]])
    with pytest.raises(DissectError, match="twice"):
        Cabinet.join([*cabinets, cabinets[1]])
    stranger = Cabinet.parse(patched(parts_of(20_000)[1], SET_ID, "<H", 6))
    with pytest.raises(DissectError, match="set 5"):
        Cabinet.join([cabinets[0], stranger, *cabinets[2:]])


def test_neighbours_must_be_linked() -> None:
    cabinets = [cabinet_of({"a": b"a"}, set_index=number) for number in range(2)]
    with pytest.raises(DissectError, match="linked"):
        Cabinet.join(map(Cabinet.parse, cabinets))


def test_a_folder_may_not_change_its_compression() -> None:
    first, second, *rest = parts_of(20_000)
    changed = patched(second, Cabinet.parse(second).header.end + 6, "<H", 1)
    with pytest.raises(DissectError, match="stored folder"):
        Cabinet.join(map(Cabinet.parse, [first, changed, *rest]))


def test_a_cut_off_part_spoils_what_comes_after_it_only() -> None:
    first, second, *rest = parts_of(50_000)
    joined = Cabinet.join(map(Cabinet.parse, [first, second[:-10], *rest]))
    assert [each.fault is None for each in joined.examine().members] == [True, True, True, False, False]


def test_the_halves_of_a_block_together_stay_within_the_limit() -> None:
    # Two full stored halves declare one block of 32 KiB.
    first, second = parts_of(32768, a=bytes(32768), b=bytes(32768))
    halves = [patched(first, Cabinet.parse(first).folders[0].parts[0].blocks[0].offset, "<Q", 32768 << 32), second]
    halves[0] = patched(patched(halves[0], FLAGS, "<H", 2), SET_INDEX, "<H", 0)
    with pytest.raises(DissectError):
        Cabinet.join(map(Cabinet.parse, halves)).verify()


def test_members_of_all_parts_share_the_budget() -> None:
    cabinets = [Cabinet.parse(data) for data in parts_of(20_000)]
    with pytest.raises(LimitExceeded):
        Cabinet.join(cabinets, Budget(members=2))


def test_no_cabinet_is_no_set() -> None:
    with pytest.raises(DissectError):
        Cabinet.join(itertools.repeat(Cabinet.parse(cabinet_of({"a": b""})), 0))
