"""Packet captures read by upshim, tshark, tcpflow, dpkt and scapy.

Every program reads the same generated captures in a fresh process: a single download, a fleet of phones with late and
repeated segments, and a small download for those whose cost grows with the square of the size. upshim tells all
exchanges and the hashes of all bodies, tshark the status of every answer, tcpflow writes the streams to files, dpkt
hashes the segments that come in order, scapy hashes the bodies it puts together. Times are CPU seconds, the median
of the rounds; slow programs run once.

Example:
  upshim bench captures --fleet 1024 --rounds 3
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tools.bench.dissect import environment
from tools.bench.processes import Run, measure

OURS, FLOW, FIELDS, DEFAULT = "upshim", "tcpflow", "tshark, no desegmentation", "tshark"
SLOW = {DEFAULT, "scapy"}  # one round, and not on the fleet
ANSWERS = ("-Y", "http.response", "-T", "fields", "-e", "http.response.code")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--fleet", type=int, default=256, metavar="MIB", help="size of the fleet capture (default 256)")
    parser.add_argument("--download", type=int, default=60, metavar="MIB", help="size of the download (default 60)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="how often each is run (default 3)")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Make the captures, run everybody in turn, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = {"small download": 2, "download": args.download, "fleet": args.fleet}
        packets = {kind: make(folder / kind, kind.rpartition(" ")[2], size) for kind, size in sizes.items()}
        runs = run_rounds(folder, list(sizes), args.rounds)
        results = list(summarise(runs, {kind: ((folder / kind).stat().st_size, packets[kind]) for kind in sizes}))
    if args.json:
        for result in results:
            print(json.dumps(result))
    else:
        show(results)
    return 0


def make(path: Path, kind: str, size: int) -> int:
    """Write a capture; its packets."""
    command = [sys.executable, "-m", "tools.bench.traffic", str(path), kind, str(size)]
    return int(subprocess.run(command, check=True, env=environment(), stdout=subprocess.PIPE).stdout)


def contenders(path: Path, scratch: Path) -> dict[str, list[str]]:
    """Program -> command, of the programs that are there."""
    peers = [sys.executable, "-m", "tools.bench.capture_peers"]
    commands = {OURS: [sys.executable, "-m", "tools", "exchanges", "--json", str(path)]}
    if tcpflow := shutil.which("tcpflow"):
        commands[FLOW] = [tcpflow, "-r", str(path), "-o", str(scratch)]
    if tshark := shutil.which("tshark"):
        commands[FIELDS] = [tshark, "-r", str(path), "-o", "tcp.desegment_tcp_streams:FALSE", *ANSWERS]
        commands[DEFAULT] = [tshark, "-r", str(path), *ANSWERS]
    if importlib.util.find_spec("dpkt"):
        commands["dpkt"] = [*peers, "dpkt", str(path)]
    commands["scapy"] = [*peers, "scapy", str(path)]
    return commands


def run_rounds(folder: Path, kinds: list[str], rounds: int) -> dict[tuple[str, str], list[Run]]:
    """All runs by (capture, program); in each round every program takes its turn."""
    runs: dict[tuple[str, str], list[Run]] = {}
    for number in range(rounds):
        for kind in kinds:
            for program, command in contenders(folder / kind, folder / "streams").items():
                if program in SLOW and (number or kind == "fleet" or (program == "scapy" and kind == "download")):
                    continue
                runs.setdefault((kind, program), []).append(measure(command, environment()))
                shutil.rmtree(folder / "streams", ignore_errors=True)
    return runs


def summarise(runs: dict[tuple[str, str], list[Run]], sizes: dict[str, tuple[int, int]]) -> Iterator[dict[str, Any]]:
    """One entry per capture and program: medians, speed, and how many times upshim's time that is."""
    median: Callable[[list[float]], float] = statistics.median
    for (kind, program), all_ in runs.items():
        cpu, ours = median([one.cpu for one in all_]), median([one.cpu for one in runs[kind, OURS]])
        size, packets = sizes[kind]
        yield {
            "kind": "bench",
            "bench": "captures",
            "capture": kind,
            "program": program,
            "rounds": len(all_),
            "cpu": round(cpu, 4),
            "wall": round(median([one.wall for one in all_]), 4),
            "spread": [round(min(one.cpu for one in all_), 4), round(max(one.cpu for one in all_), 4)],
            "packets_per_s": round(packets / cpu),
            "mb_per_s": round(size / 1e6 / cpu, 1),
            "peak": max(one.peak for one in all_),
            "ratio": round(cpu / ours, 2),
        }


def show(results: list[dict[str, Any]]) -> None:
    """For people."""
    table = Table(title="Captures read, CPU time of whole processes, as multiples of upshim's")
    for column in ("capture", "program", "CPU s", "packets/s", "MB/s", "peak MiB", "x upshim"):
        table.add_column(column, justify="left" if column in {"capture", "program"} else "right")
    for result in sorted(results, key=lambda one: (one["capture"], one["ratio"])):
        table.add_row(
            result["capture"],
            result["program"],
            f"{result['cpu']:.2f}",
            f"{result['packets_per_s']:,}",
            f"{result['mb_per_s']:.0f}",
            f"{result['peak'] / 1024**2:.0f}",
            f"{result['ratio']:.2f}",
        )
    Console().print(table)
