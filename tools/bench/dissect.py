"""Cabinets decoded by upshim, cabextract and 7-Zip.

Every program tests the same stored, MSZIP and LZX cabinets in a fresh process: `upshim decode` hashes file and members
with SHA-1 and SHA-256 and looks into members of up to 16 MiB, the library only hashes the members, cabextract does so
with MD5, 7-Zip with CRC-32. All verify the checksums of the data. Times are seconds, the median of the rounds, with
Python's byte code cached as after the first run; "net" is CPU time without what the same program needs for a cabinet of
four bytes, its start. The own LZX decoder, which libmspack stands in for where it is installed, runs in the first round
only.

Example:
  upshim bench dissect --size 60 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from dissectors.cabinet import accelerate
from tools.bench.processes import Run, measure

CABINETS = ("tiny", "stored", "mszip", "lzx")
VERB = "upshim decode"
LIBRARY = "upshim, library"
OWN = "upshim, library without libmspack"
PEER = "cabextract"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--size", type=int, default=60, metavar="MIB", help="content of each cabinet (default 60)")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="how often each is run (default 5)")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Make the cabinets, run everybody in turn, print."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        make = [sys.executable, "-m", "tools.bench.cabinets", name, str(args.size)]
        subprocess.run(make, check=True, env=environment())
        results = list(summarise(run_rounds(directory, args.rounds), args.size))
    if args.json:
        for result in results:
            print(json.dumps(result))
    else:
        show(results)
    return 0


def environment(byte_code: Path | None = None) -> dict[str, str]:
    """With the way to this very source tree, wherever the command was started; byte code is cached where it is told."""
    root = str(Path(__file__).resolve().parent.parent.parent)
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))}
    if byte_code is not None:
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        variables["PYTHONPYCACHEPREFIX"] = str(byte_code)
    return variables


def contenders(cabinet: Path) -> dict[str, list[str]]:
    """Program -> command, of the programs that are there."""
    worker = [sys.executable, "-m", "tools.bench.hash_members", str(cabinet)]
    verb = [sys.executable, "-m", "tools", "decode", "--json", str(cabinet)]
    commands = {VERB: verb, LIBRARY: worker}
    if path := shutil.which("cabextract"):
        commands[PEER] = [path, "--quiet", "--test", str(cabinet)]
    if path := shutil.which("7zz") or shutil.which("7z"):
        commands["7-Zip"] = [path, "t", "-tCab", "-mmt1", str(cabinet)]
    if accelerate.available():
        commands[OWN] = [*worker, "own"]
    return commands


def run_rounds(directory: Path, rounds: int) -> dict[tuple[str, str], list[Run]]:
    """All runs by (cabinet, program); in each round every program takes its turn."""
    runs: dict[tuple[str, str], list[Run]] = {}
    variables = environment(directory / "byte code")
    for cabinet in CABINETS:
        for program, command in contenders(directory / f"{cabinet}.cab").items():
            if program in {VERB, LIBRARY}:
                measure(command, variables)  # once, for the byte code
    for number in range(rounds):
        for cabinet in CABINETS:
            path = directory / f"{cabinet}.cab"
            for program, command in contenders(path).items():
                if program != OWN or (number == 0 and cabinet in {"tiny", "lzx"}):
                    runs.setdefault((cabinet, program), []).append(measure(command, variables))
    return runs


def summarise(runs: dict[tuple[str, str], list[Run]], megabytes: int) -> Iterator[dict[str, Any]]:
    """One entry per cabinet and program: medians, speed, and the ratios to cabextract."""
    cpu = {key: statistics.median(each.cpu for each in all_) for key, all_ in runs.items()}
    wall = {key: statistics.median(each.wall for each in all_) for key, all_ in runs.items()}
    for (cabinet, program), all_ in runs.items():
        if cabinet == "tiny":
            continue
        net = max(cpu[cabinet, program] - cpu["tiny", program], 1e-3)
        peer = cpu.get((cabinet, PEER))
        peer_net = max(peer - cpu["tiny", PEER], 1e-3) if peer is not None else None
        yield {
            "kind": "bench",
            "bench": "dissect",
            "cabinet": cabinet,
            "program": program,
            "rounds": len(all_),
            "cpu": round(cpu[cabinet, program], 4),
            "wall": round(wall[cabinet, program], 4),
            "spread": [round(min(each.cpu for each in all_), 4), round(max(each.cpu for each in all_), 4)],
            "start": round(cpu["tiny", program], 4),
            "mb_per_s": round(megabytes * 1024**2 / 1e6 / cpu[cabinet, program], 1),
            "peak": max(each.peak for each in all_),
            "ratio": round(cpu[cabinet, program] / peer, 2) if peer else None,
            "ratio_wall": round(wall[cabinet, program] / wall[cabinet, PEER], 2) if peer else None,
            "ratio_net": round(net / peer_net, 2) if peer_net else None,
        }


def show(results: list[dict[str, Any]]) -> None:
    """For people."""
    table = Table(title=f"Cabinets tested, times of whole processes, as multiples of {PEER}'s")
    columns = ("cabinet", "program", "time s", "CPU s", "start s", "MB/s", "peak MiB", "x time", "x CPU", "x net")
    for column in columns:
        table.add_column(column, justify="left" if column in {"cabinet", "program"} else "right")
    for result in results:
        table.add_row(
            result["cabinet"],
            result["program"],
            f"{result['wall']:.3f}",
            f"{result['cpu']:.3f}",
            f"{result['start']:.3f}",
            f"{result['mb_per_s']:.0f}",
            f"{result['peak'] / 1024**2:.0f}",
            *("" if result[name] is None else f"{result[name]:.2f}" for name in ("ratio_wall", "ratio", "ratio_net")),
        )
    Console().print(table)
