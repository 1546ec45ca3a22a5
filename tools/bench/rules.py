"""Decisions per second, and what rules add to an exchange, with few and with many rules and a fleet of known phones.

Each line is a process of its own. `models` has as many upgrade paths as rules; `branches` and `phones` have one path
and a rule for each subnet or MAC address. Times are CPU microseconds: a decision is the history and the rules alone, an
exchange is an update check decoded, decided, edited, and its answer; "added" is what it costs more than without rules.
"x few" is the cost of a decision as a multiple of that with the fewest rules of the same shape: flat means near 1.

Example:
  upshim bench rules --phones 100000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench.dissect import environment
from tools.bench.rule_load import SHAPES
from tools.errors import UnusableInput

COUNTS = (1, 100, 10_000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--phones", type=int, default=100_000, metavar="N", help="known phones (default 100000)")
    parser.add_argument("--checks", type=int, default=20_000, metavar="N", help="update checks (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="of which the best counts (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Measure each, in turn, and print."""
    if args.phones < 1 or args.checks < 2 or args.rounds < 1:
        raise UnusableInput("expected --phones and --rounds of 1 or more and --checks of 2 or more")
    results = measured(args.phones, args.checks, args.rounds)
    if args.json:
        for result in results:
            print(json.dumps(result))
    else:
        show(results)
    return 0


def measured(phones: int, checks: int, rounds: int) -> list[dict[str, Any]]:
    """The best of the rounds for each shape and number of rules; in each round all take their turn."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for _ in range(rounds):
        for shape in SHAPES:
            for count in COUNTS:
                words = [shape, str(count), str(phones), str(checks)]
                command = [sys.executable, "-m", "tools.bench.rule_load", *words]
                found = json.loads(
                    subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment()).stdout
                )
                if (shape, count) not in best or found["decision"]["us"] < best[shape, count]["decision"]["us"]:
                    best[shape, count] = found
    for (shape, _), result in best.items():
        result["times_few"] = round(result["decision"]["us"] / best[shape, COUNTS[0]]["decision"]["us"], 2)
    return list(best.values())


def show(results: list[dict[str, Any]]) -> None:
    """For people."""
    table = Table(title=f"{results[0]['phones']} known phones")
    columns = (
        "rules for",
        "rules",
        "decisions/s",
        "us",
        "p99 us",
        "x few",
        "exchange us",
        "added us",
        "load s",
        "peak MiB",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "rules for" else "right")
    for result in results:
        table.add_row(
            result["shape"],
            str(result["rules"]),
            str(result["decisions_per_s"]),
            f"{result['decision']['us']:.1f}",
            f"{result['decision']['p99_us']:.1f}",
            f"{result['times_few']:.2f}",
            f"{result['exchange']['us']:.0f}",
            f"{result['added_us']:.0f}",
            f"{result['load_s']:.2f}",
            f"{result['peak'] / 1024**2:.0f}",
        )
    Console().print(table)
