from __future__ import annotations

from pathlib import Path

import pytest

import dissectors
from dissectors import DissectError
from tests.dissectors.fuzzing.engine import coverage, inputs
from tests.dissectors.fuzzing.targets import TARGETS, seeds_of

COUNT = 250


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_our_error_comes_out(name: str) -> None:
    target, seeds = TARGETS[name], seeds_of(name)
    taken = refused = 0
    with coverage() as discovered:
        for number, data in enumerate(inputs(seeds, target.words, COUNT, len(name), discovered)):
            try:
                target.run(data)
                taken += 1
            except DissectError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"input {number}: {data[:2000].hex()}") from error
    assert taken >= len(target.seeds) // 2  # the mutants are worth something
    assert taken + refused == COUNT + len(seeds)


def test_every_dissector_is_among_them() -> None:
    covered = {name for target in TARGETS.values() for name in target.covers}
    folder = Path(dissectors.__file__).parent
    there = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__", "errors"} == covered
