"""A fleet of emulated phones lives through an upgrade, and is judged by the server's audit log and what it served.

Days pass as fast as the machine can: the phones, the update server and its audit log are emulated, the addon, its rules
and its recording are the real ones. In it are models, revisions and locales no rule is for, phones that lose power or
their connection in downloads, that loop, that never install, a bad image, a kill switch that is on for half a day, and
a rollout that is widened.

With --record the shim is a process of its own, which twice is killed (kill -9) amid traffic and started again. With
--shims 2 the phones are shared out to two of them on one PostgreSQL database: a server that is started for it, from the
binaries of Debian's package, which is made to crash, and is away for some hours, in which the second kill falls. With
--database too it is your server, which is left running; with --record they share a folder.

Exit code 1 says that a limit did not hold, or that a phone was touched that should not have been, or that one did not
arrive.

Example:
  upshim bench fleet --phones 5000
  upshim bench fleet --phones 500 --record
  upshim bench fleet --phones 5000 --shims 2
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tools.bench.rule_load import peak
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput

if TYPE_CHECKING:
    from tools.fleet.story import Site

FEWEST = 100  # so that every kind is there


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--phones", type=int, default=5000, metavar="N", help="size of the fleet (default 5000)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another fleet (default 1)")
    parser.add_argument("--shims", type=int, default=1, metavar="N", help="shims that share a recording (default 1)")
    parser.add_argument("--record", action="store_true", help="into a folder")
    parser.add_argument("--database", metavar="URL", help="record into this database, which must be empty")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Let the fleet live, and print the verdict."""
    from tools.fleet.story import Plan, tell  # noqa: PLC0415 - mitmproxy takes half a second
    from tools.fleet.verdict import Verdict  # noqa: PLC0415

    if args.phones < FEWEST:
        raise UnusableInput(f"--phones: expected {FEWEST} or more, found {args.phones}")
    if args.shims < 1:
        raise UnusableInput(f"--shims: expected 1 or more, found {args.shims}")
    with tempfile.TemporaryDirectory(prefix="upshim-fleet-") as name, site(args, Path(name)) as where:
        plan = Plan.of(args.phones, args.seed, least=2 if where.record is None else 5)
        began, cpu = time.perf_counter(), cpu_seconds()
        told = asyncio.run(tell(plan, Path(name), where))
        seconds = {"wall_s": round(time.perf_counter() - began, 1), "cpu_s": round(cpu_seconds() - cpu, 1)}
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


@contextmanager
def site(args: argparse.Namespace, folder: Path) -> Iterator[Site]:
    """What stands between phones and server. Raises `UnusableInput`."""
    from tools.fleet.postgres import PostgresError, PostgresServer, binaries  # noqa: PLC0415 - as above
    from tools.fleet.story import Site  # noqa: PLC0415

    record = args.database or (str(folder / "recording") if args.record else None)
    if args.shims == 1 or record is not None:
        yield Site(args.shims, record)
        return
    programs = binaries()
    if programs is None:
        raise UnusableInput("--shims: PostgreSQL's server is not installed; name a database with --database")
    with tempfile.TemporaryDirectory(prefix="upshim-pg-") as place:
        try:
            server = PostgresServer(programs, Path(place), durable=True)
            server.start()
        except PostgresError as error:
            raise UnusableInput(f"PostgreSQL does not start: {error}") from error
        try:
            yield Site(args.shims, server.new_database().secret, server)
        finally:
            server.stop()


def cpu_seconds() -> float:
    """What this process has used, and those it has started that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system
