from __future__ import annotations

import io

import pytest

from dissectors import DissectError, LimitExceeded
from dissectors.cabinet import Budget, Cabinet
from dissectors.source import STEP
from tests.dissectors.cabinet.making import TEXT, cabinet_of, raw_cabinet, self_extractor

ONE = cabinet_of({"one.txt": b"1"})
TWO = cabinet_of({"two.txt": TEXT})


def names(data: bytes) -> list[tuple[int, str]]:
    return [(cabinet.offset, cabinet.members[0].name) for cabinet in Cabinet.search(data)]


def test_cabinets_in_a_program() -> None:
    program = b"MZ" + bytes(1000) + ONE + b"between" + TWO + b"the end"
    assert names(program) == [(1002, "one.txt"), (1002 + len(ONE) + 7, "two.txt")]


def test_found_cabinets_are_whole_and_clean() -> None:
    (found,) = Cabinet.search(io.BytesIO(b"x" * 77 + TWO + b"y" * 99))
    assert found.problems == ()
    assert found.read(found.members[0]) == TEXT


def test_a_self_extractor_gives_its_cabinets_and_none_of_what_looks_like_one() -> None:
    program = self_extractor(TWO, ONE, tail=b"signature, say")
    first, second = Cabinet.search(program)
    assert [program[one.offset : one.offset + one.size] for one in (first, second)] == [TWO, ONE]
    assert (first.offset % 4, first.problems, second.problems) == (3, (), ())
    assert first.read(first.members[0]) == TEXT


@pytest.mark.parametrize("before", [STEP - 2, STEP - 1, STEP, 2 * STEP - 3])
def test_the_magic_across_the_border_of_two_steps(before: int) -> None:
    assert names(bytes(before) + ONE) == [(before, "one.txt")]


def test_a_cabinet_in_a_cabinet_is_not_another() -> None:
    assert names(cabinet_of({"outer": ONE})) == [(0, "outer")]


def test_almost_cabinets_are_passed_over() -> None:
    assert names(b"MSCF" + b"MSCF" * 5 + ONE[:30] + ONE) == [(54, "one.txt")]


def test_a_cut_off_cabinet_is_none() -> None:
    assert names(b"x" + TWO[:-1]) == []


def test_a_signed_cabinet_is_found_with_its_signature() -> None:
    reserve = b"\0\0\x10\0" + bytes(16)
    size = len(cabinet_of({"a": b"a"}, header_reserve=reserve))
    reserve = b"\0\0\x10\0" + size.to_bytes(4, "little") + (5).to_bytes(4, "little") + bytes(8)
    (found,) = Cabinet.search(b"xyz" + cabinet_of({"a": b"a"}, header_reserve=reserve) + b"12345 and more")
    assert found.signature is not None
    assert found.signature.der == b"12345"


def test_many_almost_cabinets_share_one_budget() -> None:
    big = raw_cabinet([{"folder": 9}] * 3000)  # fails at its first member
    with pytest.raises(LimitExceeded):
        list(Cabinet.search(big * 30, Budget(members=20_000)))


def test_thousands_of_magics_end() -> None:
    with pytest.raises(DissectError):
        list(Cabinet.search(b"MSCF" * 100_000))
