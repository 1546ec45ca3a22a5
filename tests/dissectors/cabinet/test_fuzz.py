"""Mutated cabinets: nothing but DissectError comes out, and everything comes back within the work its bytes allow.

Seeds are made here and, where it is there, taken from the corpus. Bounded by count; the random numbers are seeded, so a
failure names its mutant.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dissectors import DissectError
from dissectors.cabinet import Budget, Cabinet, Compression, NewFolder, NewMember, build_set
from tests.conftest import CORPUS
from tests.dissectors.cabinet.making import TEXT, cabinet_of, raw_cabinet
from tools.bench.lzx_encoder import Kind, encode_lzx

MUTANTS = 6000
OUTPUT = 1 << 20


def made() -> list[bytes]:
    text = TEXT[:3000]
    lzx = encode_lzx(text, 15, [(Kind.ALIGNED, 900), (Kind.UNCOMPRESSED, 901)], len(text))
    return [
        cabinet_of({"a": text, "b\\c": b"x", "empty": b""}),
        cabinet_of({"a": text, "b\\c": b"x"}, Compression.MSZIP, header_reserve=b"\0\0\x10\0" + bytes(16)),
        Cabinet.build([NewFolder([NewMember("a", text)], Compression.LZX, 15, frames=lzx)], data_reserve=3),
        Cabinet.build([NewFolder.of({"a": text}), NewFolder.of({"ä": text}, Compression.STORED)]),
        *build_set(NewFolder.of({"a": text, "b": text}), 40, [f"{number}" for number in range(99)])[:2],
        raw_cabinet([{"size": 3}] * 3, [{}, {}], b"\0" * 40),
    ]


def seeds() -> list[bytes]:
    folder = CORPUS / "payloads" / "cab"
    found = sorted(folder.rglob("*.cab")) if folder.is_dir() else []
    return made() + [path.read_bytes() for path in found if path.stat().st_size < 3000]


INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFD, 0xFFFE, 0xFFFF, 0x8000, 0x8001, 0x7FFF8000, 0xFFFFFFFF]


def mutate(data: bytes, choice: random.Random, others: list[bytes]) -> bytes:
    result = bytearray(data)
    for _change in range(choice.randint(1, 4)):
        if not result:
            break
        at = choice.randrange(len(result))
        match choice.randrange(7):
            case 0:
                result[at] ^= 1 << choice.randrange(8)
            case 1:
                width = choice.choice([1, 2, 4])
                value = choice.choice(INTERESTING) & (1 << 8 * width) - 1
                result[at : at + width] = value.to_bytes(width, "little")
            case 2:
                # Where the header and the first tables are.
                result[choice.randrange(min(len(result), 80))] = choice.randrange(256)
            case 3:
                del result[at : at + choice.randint(1, 20)]
            case 4:
                result[at:at] = result[at : at + choice.randint(1, 20)]
            case 5:
                other = choice.choice(others)
                result[at:] = other[at:]
            case _:
                del result[at:]
    return bytes(result)


def mutants() -> Iterator[tuple[int, bytes]]:
    pool = seeds()
    choice = random.Random(1997)
    for number in range(MUTANTS):
        yield number, mutate(choice.choice(pool), choice, pool)


@pytest.mark.parametrize("native", [True, False], ids=["libmspack", "own"])
def test_nothing_but_our_errors_and_no_more_than_the_budget(native: bool) -> None:
    opened = decoded = refused = 0
    budget = Budget(output=OUTPUT)
    for number, data in mutants():
        try:
            cabinet = Cabinet.parse(data, budget)
            opened += 1
            contents = cabinet.examine(budget, native=native)
            contents.to_json()
            produced = sum(len(piece.data) for piece in cabinet.pieces(budget=budget, native=native))
            assert produced <= OUTPUT
            decoded += all(each.fault is None for each in contents.members)
        except DissectError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"mutant {number}: {data.hex()}") from error
    # The mutants are worth something: some get through, some fail early, some late.
    assert opened > MUTANTS // 10
    assert decoded > MUTANTS // 100
    assert refused > MUTANTS // 10


def test_searching_and_joining_mutants() -> None:
    waiting: list[Cabinet] = []
    for number, data in mutants():
        try:
            found = list(Cabinet.search(b"xx" + data + data))
            waiting = [*waiting[-2:], *found]
            for _cabinet in Cabinet.join(waiting).members if waiting else ():
                pass
        except DissectError:
            continue
        except Exception as error:
            raise AssertionError(f"mutant {number}: {data.hex()}") from error


def test_seeds_are_good() -> None:
    for data in made()[:4]:
        Cabinet.parse(data).verify()


def test_a_directory_of_maximal_counts_costs_what_its_bytes_cost(tmp_path: Path) -> None:
    """Counts of 65535 over few bytes end where the bytes end."""
    data = raw_cabinet([{}] * 3, [{}], b"", file_count=65535)
    with pytest.raises(DissectError, match="member 3 of 65535"):
        Cabinet.parse(data)
