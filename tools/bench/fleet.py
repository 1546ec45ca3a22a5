"""A fleet of emulated phones lives through an upgrade, and is judged by the server's audit log and what it served.

Days pass as fast as the machine can: the phones, the update server and its audit log are emulated, the addon, its rules
and its recording are the real ones. In it are models, revisions and locales no rule is for, phones that lose power or
their connection in downloads, that loop, that never install, a bad image, a kill switch that is on for half a day, a
rollout that is widened, and with --record a restart. Exit code 1 says that a limit did not hold, or that a phone was
touched that should not have been, or that one did not arrive.

Example:
  upshim bench fleet --phones 5000
  upshim bench fleet --phones 500 --record
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from tools.bench.rule_load import peak
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput

FEWEST = 100  # so that every kind is there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--phones", type=int, default=5000, metavar="N", help="size of the fleet (default 5000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another fleet (default 1)")
    parser.add_argument("--record", action="store_true", help="with a recording, and a restart in the middle")
    parser.add_argument("--database", metavar="URL", help="record into this database, which must be empty")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Let the fleet live, and print the verdict."""
    from tools.fleet.story import Plan, tell  # noqa: PLC0415 - mitmproxy takes half a second
    from tools.fleet.verdict import Verdict  # noqa: PLC0415

    if args.phones < FEWEST:
        raise UnusableInput(f"--phones: expected {FEWEST} or more, found {args.phones}")
    with tempfile.TemporaryDirectory(prefix="upshim-fleet-") as name:
        folder = Path(name)
        record = args.database or (str(folder / "recording") if args.record else None)
        began, cpu = time.perf_counter(), time.process_time()
        told = asyncio.run(tell(Plan.of(args.phones, args.seed), folder, record))
        seconds = {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(time.process_time() - cpu, 1)}
        verdict = Verdict(told)
    counts = {**verdict.summary(), **seconds, "peak": peak()}
    if args.json:
        print(json.dumps({"kind": "bench", "bench": "fleet", **counts}))
    else:
        for key, value in counts.items():
            if key != "wrong":
                print(f"{key.replace('_', ' ')}: {value}")
        for what in verdict.wrong:
            print(f"WRONG {what}")
        print("every limit held, everyone eligible arrived" if not verdict.wrong else "NOT good")
    return EXIT_OK if not verdict.wrong else EXIT_PROBLEM
