"""The proxy beside direct access, nginx, HAProxy and mitmdump: speed, latency, downloads, memory.

Everything runs in one go, on the loopback interface: in each round every program takes its turn with update checks
over 64 connections that are kept, as many phones as ask at the same moment, then over 8, of which times of an answer
are told, then over new ones (8 at once); then all take turns with downloads, six each. The medians of the rounds are
printed.

- upshim with rules rewrites and records every check, each with a reservation: the hardest case. In the mixed fleet the
  rules want one phone of 25; the others' checks are decoded, decided on and recorded.
- "CPU" is the program's own CPU time per check, with all its processes and with what it does afterwards, until it is
  quiet: a busy machine distorts it least. "load" is the generator's share of a core: near 100 it is what limits.
- Downloads are fetched by a client of our own: three times it hashes (SHA-256) what it gets, as one does who checks
  it, and three times it only takes the bytes, which nobody does, but shows more of the proxy. "x direct" compares
  hashed ones with the direct one of the same moment. First bytes are of all six, each over a new connection, counted
  from connecting.
- The nginx and HAProxy by themselves are tuned as the printed ones are; in front of two upshims, HAProxy has the
  configuration that `upshim deploy haproxy` prints.

Exit code 1 where a bar is missed: 1.5 times mitmdump, 0.9 times a direct download (hashed) through HAProxy, first byte
within 10 ms, 150 MB of memory.

Example:
  upshim bench proxy --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tools.bench.proxy_load import download, generator, load, scripts
from tools.bench.proxy_targets import Target, Usage, backend, targets
from tools.options import above_zero

MANY, FEW, DOWNLOADS = 64, 8, 3
PLAIN, OURS, FRONT = "mitmdump", "upshim, rules and recording", "HAProxy + 2 upshims"
AT_LEAST, FIRMWARE_AT_LEAST = 1.5, 0.9  # times mitmdump; times direct
FIRST_BYTE, MEMORY = 10.0, 150e6  # milliseconds, bytes


class Checks(NamedTuple):
    """One turn of one program with update checks."""

    checks_per_s: float  # over many connections
    few_per_s: float  # over few
    p50: float
    p99: float
    connections_per_s: float
    cpu_ms: float  # per check
    busy_after: float  # seconds that it still worked when the last check had its answer
    load_busy: float  # the generator's share of a core
    failed: int


class Files(NamedTuple):
    """One turn of one program with two downloads."""

    mb_per_s: float  # hashed by the client
    mb_taken_per_s: float  # only taken
    of_direct: float  # the hashed one, beside that of the same moment without a proxy
    first_byte: float
    failed: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each takes its turn (default 3)")
    parser.add_argument("--seconds", type=float, default=2, metavar="S", help="of load in a turn (default 2)")
    parser.add_argument("--download", type=int, default=60, metavar="MB", help="size of the download (default 60)")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Start everything, give everybody a turn in every round, print."""
    above_zero("--rounds", args.rounds)
    above_zero("--seconds", args.seconds)
    with tempfile.TemporaryDirectory() as name, backend(Path(name), args.download) as (starter, port, server):
        scripts(Path(name))
        contenders = list(targets(starter, port))
        sha256 = download(port).sha256
        there = [target for target in contenders if target.installed]
        checks: dict[str, list[Checks]] = {target.name: [] for target in there}
        files: dict[str, list[Files]] = {target.name: [] for target in there}
        for _ in range(args.rounds):
            for target in there:
                checks[target.name].append(check_turn(target, args.seconds, Path(name)))
            for _ in range(DOWNLOADS):
                for program, took in file_turns(there, sha256):
                    files[program].append(took)
        results = [summary(target, checks.get(target.name, []), files.get(target.name, [])) for target in contenders]
    missed = list(bars({result["program"]: result for result in results}))
    setting = {"generator": generator(), "server": server, "rounds": args.rounds, "download_mb": args.download}
    setting |= {"cores": os.cpu_count(), "python": platform.python_version(), "mitmproxy": version("mitmproxy")}
    if args.json:
        for result in results:
            print(json.dumps({"kind": "bench", "bench": "proxy", **setting, **result}))
        print(json.dumps({"kind": "bench-bars", "bench": "proxy", "missed": missed}))
    else:
        show(results, setting)
        for one in missed:
            print(f"missed: {one}")
    return 1 if missed else 0


def check_turn(target: Target, seconds: float, folder: Path) -> Checks:
    """One turn with checks over connections that are kept, many and few, and over new ones."""
    usage = Usage(target.processes)
    keep, close = ("mixed", "mixed-close") if target.mixed else ("keep", "close")
    load(target.port, MANY, 1, folder, keep)  # warm
    usage.settle()
    before = usage.cpu()
    kept = load(target.port, MANY, seconds, folder, keep)
    busy_after = usage.settle()
    cpu = usage.cpu() - before
    few = load(target.port, FEW, seconds, folder, keep)
    usage.settle()
    new = load(target.port, FEW, seconds, folder, close)
    usage.settle()
    return Checks(
        kept.requests / kept.seconds,
        few.requests / few.seconds,
        few.p50,
        few.p99,
        new.requests / new.seconds,
        cpu * 1000 / max(1, kept.requests),
        busy_after,
        kept.busy,
        kept.failed + few.failed + new.failed,
    )


def file_turns(targets: Sequence[Target], sha256: str) -> Iterator[tuple[str, Files]]:
    """A turn of everybody with the file of this hash; the first target is the server itself, the last its neighbour."""
    direct, *others = targets
    hashed = {target.name: download(target.port) for target in (*others, direct)}
    taken = {target.name: download(target.port, hashing=False) for target in (*others, direct)}
    for name, one in hashed.items():
        firsts = (one.first_byte, taken[name].first_byte)
        of_direct = one.mb_per_s / hashed[direct.name].mb_per_s
        rates = one.mb_per_s, taken[name].mb_per_s, of_direct
        yield name, Files(*rates, statistics.fmean(firsts), int(one.sha256 != sha256))


def summary(target: Target, checks: Sequence[Checks], files: Sequence[Files]) -> dict[str, Any]:
    """The medians of a program, and its memory at the end."""
    if not checks:
        return {"program": target.name, "installed": False}
    usage = Usage(target.processes)
    rates = [one.checks_per_s for one in checks]
    return {
        "program": target.name,
        "installed": True,
        **medians(checks),
        **medians(files),
        "spread": [round(min(rates)), round(max(rates))],
        "failed": sum(one.failed for one in checks) + sum(one.failed for one in files),
        "memory": usage.memory() or None,
        "peak": usage.memory("VmHWM") or None,
        "processes": len(usage.pids),
    }


def medians(turns: Sequence[Checks] | Sequence[Files]) -> dict[str, float]:
    """The median of each number."""
    return {
        name: round(statistics.median(numbers), 3)
        for name, numbers in zip(turns[0]._fields, zip(*turns, strict=True), strict=True)
        if name != "failed"
    }


def bars(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The bars that are missed, in words. What is not installed sets none."""
    ours, plain = results[OURS], results[PLAIN]
    if plain["installed"] and ours["checks_per_s"] < AT_LEAST * plain["checks_per_s"]:
        yield f"{ours['checks_per_s'] / plain['checks_per_s']:.2f} times mitmdump, wanted {AT_LEAST}"
    front = results[FRONT]
    if front["installed"] and front["of_direct"] < FIRMWARE_AT_LEAST:
        yield f"firmware through HAProxy {front['of_direct']:.2f} of direct, wanted {FIRMWARE_AT_LEAST}"
    if ours["first_byte"] > FIRST_BYTE:
        yield f"first byte after {ours['first_byte']:.1f} ms, wanted {FIRST_BYTE:g}"
    if ours["peak"] > MEMORY:
        yield f"{ours['peak'] / 1e6:.0f} MB of memory at its peak, wanted {MEMORY / 1e6:g}"
    for name, result in results.items():
        if result.get("failed"):
            yield f"{name}: {result['failed']} checks or downloads failed"


def show(results: list[dict[str, Any]], setting: dict[str, Any]) -> None:
    """For people."""
    load_by = "wrk" if setting["generator"] == "wrk" else "a generator of our own (wrk is not installed)"
    served = "nginx (sendfile)" if setting["server"] == "nginx" else "a server of our own (nginx is not installed)"
    on = "{cores} cores, Python {python}, mitmproxy {mitmproxy}".format(**setting)
    title = f"Medians of {setting['rounds']} rounds; {on}; load by {load_by}, answered by {served}"
    files = f"MB/s: a file of {setting['download_mb']} MB, hashed by the client / only taken"
    table = Table(title=title, caption=files)
    table.add_column("program", no_wrap=True)
    columns = ("checks/s", "x mitmdump", "few/s", "p50/p99 ms", "CPU ms", "load %", "new conn/s")
    for name in (*columns, "MB/s", "x direct", "first byte ms", "RSS/peak MB"):
        table.add_column(name, justify="right", no_wrap=True)
    plain = next(result for result in results if result["program"] == PLAIN)
    for one in results:
        if not one["installed"]:
            table.add_row(one["program"], "not installed")
            continue
        memory = "" if one["memory"] is None else f"{one['memory'] / 1e6:.0f}/{one['peak'] / 1e6:.0f}"
        table.add_row(
            one["program"],
            f"{one['checks_per_s']:,.0f}",
            f"{one['checks_per_s'] / plain['checks_per_s']:.2f}" if plain["installed"] else "",
            f"{one['few_per_s']:,.0f}",
            f"{one['p50']:.2f}/{one['p99']:.1f}",
            f"{one['cpu_ms']:.3f}" if one["memory"] is not None else "",
            f"{one['load_busy']:.0%}".removesuffix("%"),
            f"{one['connections_per_s']:,.0f}",
            f"{one['mb_per_s']:,.0f}/{one['mb_taken_per_s']:,.0f}",
            f"{one['of_direct']:.2f}",
            f"{one['first_byte']:.1f}",
            memory,
        )
    Console(width=None if Console().is_terminal else 170).print(table)
