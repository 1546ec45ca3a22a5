"""Fuzz every dissector for longer, measure each input, report the worst.

  python -m tests.dissectors.fuzzing --count 5000 --keep /tmp/worst

Time is CPU time of one input, the least of three runs for those that were slow; memory is what Python allocated at
most for the slowest inputs and for every fiftieth. Exit code 1: something else than our error came out, or an input
went over its budget.
"""

from __future__ import annotations

import argparse
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from dissectors import DissectError
from tests.dissectors.fuzzing.engine import coverage, inputs
from tests.dissectors.fuzzing.targets import TARGETS, seeds_of

SECONDS = 1.0
MEMORY = 64 << 20
SLOWEST = 5
SAMPLED = 50


class Worst(NamedTuple):
    """The outcome for one target."""

    inputs: int
    taken: int
    stray: str
    seconds: float
    slowest: bytes
    memory: int
    largest: bytes


def main() -> int:
    """Run; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.dissectors.fuzzing", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)} (default: all)")
    parser.add_argument("--count", type=int, default=2000, help="mutants for each (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers (default 0)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the worst inputs there")
    args = parser.parse_args()
    if unknown := set(args.targets) - set(TARGETS):
        parser.error(f"unknown target {', '.join(unknown)}")
    results = {name: fuzz(name, args.count, args.seed) for name in args.targets or TARGETS}
    show(results)
    if args.keep is not None:
        keep(args.keep, results)
    good = [not one.stray and one.seconds <= SECONDS and one.memory <= MEMORY for one in results.values()]
    return 0 if all(good) else 1


def fuzz(name: str, count: int, number: int) -> Worst:
    """All inputs of one target."""
    target = TARGETS[name]
    timed: list[tuple[float, bytes]] = []
    sampled: list[bytes] = []
    taken, stray, seen = 0, "", 0
    with coverage() as discovered:
        for data in inputs(seeds_of(name), target.words, count, number, discovered):
            seen += 1
            began = time.process_time()
            try:
                target.run(data)
                taken += 1
            except DissectError:
                pass
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                stray = stray or f"{type(error).__name__}: {error}: {data[:200].hex()}"
            timed.append((time.process_time() - began, data))
            timed = sorted(timed, reverse=True)[:SLOWEST]
            if seen % SAMPLED == 0:
                sampled.append(data)
    seconds, slowest = max((min(took(target.run, data) for _ in range(3)), data) for _seconds, data in timed)
    memory, largest = max((allocated(target.run, data), data) for data in [*sampled, *(data for _, data in timed)])
    return Worst(seen, taken, stray, seconds, slowest, memory, largest)


def took(run: Callable[[bytes], object], data: bytes) -> float:
    """CPU seconds."""
    began = time.process_time()
    with suppress(Exception):
        run(data)
    return time.process_time() - began


def allocated(run: Callable[[bytes], object], data: bytes) -> int:
    """Bytes that Python held at most."""
    tracemalloc.start()
    try:
        with suppress(Exception):
            run(data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def show(results: dict[str, Worst]) -> None:
    """The table, and what is wrong."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    table = Table(title=f"Worst of each dissector; budget {SECONDS:g} s and {MEMORY >> 20} MiB for one input")
    for column in ("dissector", "inputs", "taken", "slowest ms", "of bytes", "most KiB", "of bytes"):
        table.add_column(column, justify="left" if column == "dissector" else "right")
    for name, one in sorted(results.items(), key=lambda pair: -pair[1].seconds):
        sizes = f"{1000 * one.seconds:.1f}", f"{len(one.slowest)}", f"{one.memory >> 10}", f"{len(one.largest)}"
        table.add_row(name, f"{one.inputs}", f"{one.taken}", *sizes)
    console.print(table)
    for name, one in results.items():
        if one.stray:
            console.print(f"{name}: {one.stray}", markup=False)


def keep(folder: Path, results: dict[str, Worst]) -> None:
    """The worst inputs as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in results.items():
        stem = "".join(character if character.isalnum() else "-" for character in name)
        (folder / f"{stem}.slowest").write_bytes(one.slowest)
        (folder / f"{stem}.largest").write_bytes(one.largest)


if __name__ == "__main__":
    raise SystemExit(main())
