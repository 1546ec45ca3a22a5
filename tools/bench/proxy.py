"""The proxy beside direct access, nginx, HAProxy and mitmdump: speed, latency, downloads, memory.

Everything runs in one go: in each round every program takes its turn with update checks over 8 connections that are
kept, over new connections, and one download; the medians of the rounds are printed. "CPU" is the program's own CPU
time per check, which a busy machine distorts least. upshim with rules rewrites and records every check. In front of
two upshims, HAProxy has the configuration that `upshim deploy haproxy` prints. Exit code 1 where a bar is missed:
1.5 times mitmdump, 0.9 times a direct download through HAProxy, first byte within 10 ms, 150 MB of memory.

Example:
  upshim bench proxy --rounds 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tools.bench.proxy_load import download, generator, load, scripts
from tools.bench.proxy_targets import Target, Usage, backend, targets
from tools.options import above_zero

CONNECTIONS, NEW_CONNECTIONS = 8, 4
PLAIN, OURS, FRONT, DIRECT = "mitmdump", "upshim, rules and recording", "HAProxy + 2 upshims", "direct"
AT_LEAST, FIRMWARE_AT_LEAST = 1.5, 0.9  # times mitmdump; times direct
FIRST_BYTE, MEMORY = 10.0, 150e6  # milliseconds, bytes


class Turn(NamedTuple):
    """One turn of one program."""

    checks_per_s: float
    p50: float
    p99: float
    connections_per_s: float
    mb_per_s: float
    first_byte: float
    cpu_ms: float  # per check
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
        turns: dict[str, list[Turn]] = {}
        for _ in range(args.rounds):
            for target in contenders:
                if target.installed:
                    turns.setdefault(target.name, []).append(turn(target, args.seconds, Path(name)))
        results = [summary(target, turns.get(target.name, [])) for target in contenders]
    missed = list(bars({result["program"]: result for result in results}))
    setting = {"generator": generator(), "server": server, "rounds": args.rounds, "download_mb": args.download}
    if args.json:
        for result in results:
            print(json.dumps({"kind": "bench", "bench": "proxy", **setting, **result}))
        print(json.dumps({"kind": "bench-bars", "bench": "proxy", "missed": missed}))
    else:
        show(results, setting)
        for one in missed:
            print(f"missed: {one}")
    return 1 if missed else 0


def turn(target: Target, seconds: float, folder: Path) -> Turn:
    """One turn: checks, new connections, a download."""
    usage = Usage(target.processes)
    load(target.port, CONNECTIONS, 1, folder)  # warm
    before = usage.cpu()
    kept = load(target.port, CONNECTIONS, seconds, folder)
    cpu = usage.cpu() - before
    new = load(target.port, NEW_CONNECTIONS, seconds, folder, keep_alive=False)
    fetched = download(target.port)
    return Turn(
        kept.requests / kept.seconds,
        kept.p50,
        kept.p99,
        new.requests / new.seconds,
        fetched.mb_per_s,
        fetched.first_byte,
        cpu * 1000 / max(1, kept.requests),
        kept.failed + new.failed,
    )


def summary(target: Target, turns: list[Turn]) -> dict[str, Any]:
    """The medians of a program, and its memory at the end."""
    if not turns:
        return {"program": target.name, "installed": False}
    usage = Usage(target.processes)
    medians = {name: statistics.median(getattr(one, name) for one in turns) for name in Turn._fields[:-1]}
    rates = [one.checks_per_s for one in turns]
    return {
        "program": target.name,
        "installed": True,
        **{name: round(value, 3) for name, value in medians.items()},
        "spread": [round(min(rates)), round(max(rates))],
        "failed": sum(one.failed for one in turns),
        "memory": usage.memory() or None,
        "peak": usage.memory("VmHWM") or None,
        "processes": len(usage.pids),
    }


def bars(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """The bars that are missed, in words. What is not installed sets none."""
    ours, plain, direct = results[OURS], results[PLAIN], results[DIRECT]
    if plain["installed"] and ours["checks_per_s"] < AT_LEAST * plain["checks_per_s"]:
        yield f"{ours['checks_per_s'] / plain['checks_per_s']:.2f} times mitmdump, wanted {AT_LEAST}"
    front = results[FRONT]
    if front["installed"] and (share := front["mb_per_s"] / direct["mb_per_s"]) < FIRMWARE_AT_LEAST:
        yield f"firmware through HAProxy {share:.2f} of direct, wanted {FIRMWARE_AT_LEAST}"
    if ours["first_byte"] > FIRST_BYTE:
        yield f"first byte after {ours['first_byte']:.1f} ms, wanted {FIRST_BYTE:g}"
    if ours["peak"] > MEMORY:
        yield f"{ours['peak'] / 1e6:.0f} MB of memory at its peak, wanted {MEMORY / 1e6:g}"
    for name, result in results.items():
        if result.get("failed"):
            yield f"{name}: {result['failed']} checks failed"


def show(results: list[dict[str, Any]], setting: dict[str, Any]) -> None:
    """For people."""
    load_by = "wrk" if setting["generator"] == "wrk" else "a generator of our own (wrk is not installed)"
    served = "nginx" if setting["server"] == "nginx" else "a server of our own (nginx is not installed)"
    table = Table(title=f"Medians of {setting['rounds']} rounds; load by {load_by}, answered by {served}")
    table.add_column("program", no_wrap=True)
    columns = ("checks/s", "x mitmdump", "p50/p99 ms", "CPU ms", "new conn/s", "MB/s", "first byte ms", "RSS/peak MB")
    for name in columns:
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
            f"{one['p50']:.2f}/{one['p99']:.1f}",
            f"{one['cpu_ms']:.3f}" if one["memory"] is not None else "",
            f"{one['connections_per_s']:,.0f}",
            f"{one['mb_per_s']:,.0f}",
            f"{one['first_byte']:.1f}",
            memory,
        )
    Console(width=None if Console().is_terminal else 140).print(table)
