"""Mutation, guided by coverage where the interpreter can tell it cheaply (3.12 and later)."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

import dissectors

HERE = str(Path(dissectors.__file__).parent)
INTERESTING = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFD, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
LARGEST = 1 << 17
"""Bytes of a mutant at most."""
POOL = 400
"""Mutants kept because they reached something new."""


def mutate(seed: bytes, choice: random.Random, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A changed copy: bits, integers, words of the format, pieces doubled, dropped, moved, taken from another seed."""
    result = bytearray(seed)
    for _change in range(choice.choice((1, 1, 1, 2, 3, 5, 9))):
        at = choice.randrange(len(result) + 1)
        end = min(at + choice.choice((1, 2, 4, 8, 30, 300)), len(result))
        match choice.randrange(10):
            case 0 if at < len(result):
                result[at] ^= 1 << choice.randrange(8)
            case 1:
                width = choice.choice((1, 2, 4))
                value = choice.choice(INTERESTING) & (1 << 8 * width) - 1
                result[at : at + width] = value.to_bytes(width, choice.choice(("little", "big")))
            case 2 if words:
                result[at:end] = choice.choice(words)
            case 3 if words:
                result[at:at] = choice.choice(words)
            case 4:
                del result[at:end]
            case 5:
                result[at:at] = result[at:end] * choice.choice((1, 1, 2, 50))
            case 6:
                result[at:] = choice.choice(others)[at:]
            case 7:
                del result[at:]
            case 8 if at < len(result):
                result[at] = choice.randrange(256)
            case _:
                other = choice.choice(others)
                begin = choice.randrange(len(other) + 1)
                result[at:at] = other[begin : begin + 64]
    return bytes(result[:LARGEST])


def inputs(
    seeds: Sequence[bytes], words: Sequence[bytes], count: int, number: int, discovered: Callable[[], bool]
) -> Iterator[bytes]:
    """The seeds, then mutants; one after which `discovered` says so becomes a seed."""
    choice = random.Random(number)
    pool = list(seeds)
    for seed in seeds:
        yield seed
        discovered()
    for _number in range(count):
        mutant = mutate(choice.choice(pool), choice, pool, words)
        yield mutant
        if discovered() and len(pool) < POOL:
            pool.append(mutant)


@contextmanager
def coverage() -> Iterator[Callable[[], bool]]:
    """A question: has a line of a dissector been reached since the last time that never was before?

    Where it cannot be told, the answer is no.
    """
    monitoring = getattr(sys, "monitoring", None)
    if monitoring is None or monitoring.get_tool(monitoring.PROFILER_ID) is not None:
        yield lambda: False
        return
    seen = [0, 0]

    def reached(code: CodeType, _line: int) -> object:
        seen[0] += code.co_filename.startswith(HERE)
        return monitoring.DISABLE

    def discovered() -> bool:
        new = seen[0] != seen[1]
        seen[1] = seen[0]
        return new

    monitoring.use_tool_id(monitoring.PROFILER_ID, "fuzzing")
    try:
        monitoring.register_callback(monitoring.PROFILER_ID, monitoring.events.LINE, reached)
        monitoring.set_events(monitoring.PROFILER_ID, monitoring.events.LINE)
        monitoring.restart_events()
        yield discovered
    finally:
        monitoring.set_events(monitoring.PROFILER_ID, 0)
        monitoring.free_tool_id(monitoring.PROFILER_ID)
