"""Measure, beside other programs and as ratios.

Each bench makes its own material, runs everything it compares in one go, interleaved, and prints what it found: times
of a shared machine mean little, ratios of the same minute do.

Example:
  upshim bench dissect --rounds 5
"""

from __future__ import annotations

import argparse
import importlib
from typing import Protocol, cast

from tools.options import declare

# Bench -> module. One line each; a bench is a module like a verb.
BENCHES: dict[str, str] = {
    "captures": "tools.bench.captures",
    "dissect": "tools.bench.dissect",
    "fleet": "tools.bench.fleet",
    "rules": "tools.bench.rules",
    "proxy": "tools.bench.proxy",
    "soak": "tools.bench.soak",
}


class Bench(Protocol):
    """What a bench's module holds."""

    __doc__: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Measure, print and return the exit code."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-command per bench."""
    benches = parser.add_subparsers(dest="bench", metavar="BENCH", required=True)
    for name, module_name in BENCHES.items():
        module = cast(Bench, importlib.import_module(module_name))
        bench = declare(benches, name, module.__doc__)
        module.add_arguments(bench)
        bench.set_defaults(measure=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the bench asked for."""
    return int(args.measure(args))
