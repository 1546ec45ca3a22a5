"""Packet captures read by upshim, tshark, tcpflow, dpkt and scapy.

Every program reads the same generated captures in a fresh process: a single download; a fleet of phones, half of its
bytes downloads and half update checks, with segments lost, repeated and overtaken; the checks alone, which is the most
work a byte; and a small download for those whose cost grows with the square of the size (`tools/bench/traffic.py` says
what the mix is and why). upshim tells all exchanges with the hashes of all bodies and what they mean, tshark the status
of every answer (its default preferences put whole messages together, "no desegmentation" looks at single packets),
tcpflow writes the streams to files, dpkt hashes the segments that come in order, scapy hashes the bodies it puts
together. upshim reads a long capture with two processes: CPU time and memory are those of both. Times are seconds, the
median of the rounds, with Python's byte code cached as after the first run; slow programs run once, and not on the
fleet. The table ends with what was aimed at.

Example:
  upshim bench captures --fleet 1024 --checks 256 --rounds 3
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from tools.bench.dissect import environment
from tools.bench.processes import Run, measure

OURS, FLOW, FIELDS, DEFAULT = "upshim", "tcpflow", "tshark, no desegmentation", "tshark"
PYTHON_PEERS = ("dpkt", "scapy")
SLOW = {DEFAULT, "scapy"}  # one round; not on the fleet, where default tshark had not ended after 11 minutes
ANSWERS = ("-n", "-Y", "http.response", "-T", "fields", "-e", "http.response.code")
SMALL = "small download"
WIDTH = 125  # of the table, where a terminal does not give it more
MAX_PEAK = 200_000_000  # bytes
# Program -> how many times upshim's time its own is to be at least.
AIMS = {FLOW: 0.5, FIELDS: 2.0, DEFAULT: 30.0}


class Capture(NamedTuple):
    """A generated capture: bytes of the file, packets and exchanges in it."""

    size: int
    packets: int
    exchanges: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--fleet", type=int, default=1024, metavar="MIB", help="size of the fleet (default 1024)")
    parser.add_argument("--checks", type=int, default=256, metavar="MIB", help="size of the checks alone (default 256)")
    parser.add_argument("--download", type=int, default=60, metavar="MIB", help="size of the download (default 60)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each is run (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Make the captures, run everybody in turn, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {SMALL: 2, "download": args.download, "fleet": args.fleet, "checks": args.checks}
        captures = {kind: make(folder / kind, kind.rpartition(" ")[2], size) for kind, size in sizes.items()}
        runs = run_rounds(folder, list(sizes), args.rounds)
    results = list(summarise(runs, captures))
    aims = list(compare(results))
    if args.json:
        for result in (*results, *aims):
            print(json.dumps(result))
    else:
        show(results, aims)
    return 0


def make(path: Path, kind: str, size: int) -> Capture:
    """Write a capture."""
    command = [sys.executable, "-m", "tools.bench.traffic", str(path), kind, str(size)]
    said = subprocess.run(command, check=True, env=environment(), stdout=subprocess.PIPE).stdout
    packets, exchanges = map(int, said.split())
    return Capture(path.stat().st_size, packets, exchanges)


def contenders(path: Path, scratch: Path) -> dict[str, list[str]]:
    """Program -> command, of the programs that are there."""
    peers = [sys.executable, "-m", "tools.bench.capture_peers"]
    commands = {OURS: [sys.executable, "-m", "tools", "exchanges", "--json", str(path)]}
    if tcpflow := shutil.which("tcpflow"):
        commands[FLOW] = [tcpflow, "-r", str(path), "-o", str(scratch)]
    if tshark := shutil.which("tshark"):
        commands[FIELDS] = [tshark, "-r", str(path), "-o", "tcp.desegment_tcp_streams:FALSE", *ANSWERS]
        commands[DEFAULT] = [tshark, "-r", str(path), *ANSWERS]
    for peer in PYTHON_PEERS:
        if importlib.util.find_spec(peer):
            commands[peer] = [*peers, peer, str(path)]
    return commands


def run_rounds(folder: Path, kinds: list[str], rounds: int) -> dict[tuple[str, str], list[Run]]:
    """All runs by (capture, program); in each round every program takes its turn."""
    runs: dict[tuple[str, str], list[Run]] = {}
    variables = environment(folder / "byte code")
    for peer_or_us in (OURS, *PYTHON_PEERS):
        if command := contenders(folder / SMALL, folder).get(peer_or_us):
            measure(command, variables)
    for number in range(rounds):
        for kind in kinds:
            for program, command in contenders(folder / kind, folder / "streams").items():
                if (program in SLOW and (number or kind == "fleet")) or (program == "scapy" and kind != SMALL):
                    continue
                runs.setdefault((kind, program), []).append(measure(command, variables))
                shutil.rmtree(folder / "streams", ignore_errors=True)
    return runs


def summarise(runs: dict[tuple[str, str], list[Run]], captures: dict[str, Capture]) -> Iterator[dict[str, Any]]:
    """One entry per capture and program: medians, speed, and how many times upshim's time that is."""
    for (kind, program), all_ in runs.items():
        ours = runs[kind, OURS]
        cpu, wall = median(one.cpu for one in all_), median(one.wall for one in all_)
        size, packets, exchanges = captures[kind]
        yield {
            "kind": "bench",
            "bench": "captures",
            "capture": kind,
            "program": program,
            "rounds": len(all_),
            "cpu": round(cpu, 4),
            "wall": round(wall, 4),
            "spread": [round(min(one.cpu for one in all_), 4), round(max(one.cpu for one in all_), 4)],
            "packets_per_s": round(packets / cpu),
            "mb_per_s": round(size / 1e6 / cpu, 1),
            "exchanges_per_s": round(exchanges / cpu),
            "peak": max(one.peak for one in all_),
            "ratio": round(cpu / median(one.cpu for one in ours), 2),
            "ratio_wall": round(wall / median(one.wall for one in ours), 2),
        }


def compare(results: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What was aimed at on the large captures, and whether it is reached."""
    for result in results:
        kind, program = result["capture"], result["program"]
        aim = {"kind": "aim", "bench": "captures", "capture": kind}
        if kind == SMALL:
            continue
        if program == OURS:
            peak = result["peak"]
            yield aim | {"aim": "under 200 MB of memory", "found": peak, "met": peak < MAX_PEAK}
        elif program in AIMS:
            for clock, ratio in (("CPU", result["ratio"]), ("wall", result["ratio_wall"])):
                text = f"at least {AIMS[program]:g} times as fast as {program} ({clock} time)"
                yield aim | {"aim": text, "found": ratio, "met": ratio >= AIMS[program]}


def show(results: list[dict[str, Any]], aims: list[dict[str, Any]]) -> None:
    """For people."""
    table = Table(title="Captures read by whole processes; speeds per CPU second, ratios as multiples of upshim's")
    right = ("CPU s", "wall s", "packets/s", "MB/s", "exchanges/s", "peak MB", "x CPU", "x wall")
    for column in ("capture", "program", *right):
        table.add_column(column, justify="right" if column in right else "left")
    for result in sorted(results, key=lambda one: (one["capture"], one["ratio"])):
        table.add_row(
            result["capture"],
            result["program"],
            f"{result['cpu']:.2f}",
            f"{result['wall']:.2f}",
            f"{result['packets_per_s']:,}",
            f"{result['mb_per_s']:.0f}",
            f"{result['exchanges_per_s']:,}",
            f"{result['peak'] / 1e6:.0f}",
            f"{result['ratio']:.2f}",
            f"{result['ratio_wall']:.2f}",
        )
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    absent = {OURS, FLOW, FIELDS, DEFAULT, *PYTHON_PEERS} - {result["program"] for result in results}
    if absent:
        console.print(f"not measured, for they are not here: {', '.join(sorted(absent))}")
    for aim in aims:
        found = f"{aim['found'] / 1e6:.0f} MB" if "memory" in aim["aim"] else f"{aim['found']}"
        console.print(f"{aim['capture']}: {aim['aim']}: {found}, {'met' if aim['met'] else 'not met'}")
