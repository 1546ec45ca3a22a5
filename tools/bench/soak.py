"""Does `upshim proxy` stay as it is for hours? A real one, with rules, recording and retention, under steady load.

Emulated phones send so many checks a second, some over new connections, and fetch a file now and then; some of them
hang up in the middle. Memory, descriptors, threads and the size of the recording are looked at every second. After a
warm-up (a quarter of the time, ten minutes at most) the growth of memory is fitted by a line. Exit code 1 where

- memory grew by more than --growth MB along that line,
- descriptors or threads do not come back to what they were once all phones have gone,
- a check or a file was not answered as the server answered it, or is not in the recording,
- upshim failed open, died, or does not end after SIGTERM.

How fast it is decides nothing here: a machine that is busy sends fewer checks, and that is told.

Examples:
  upshim bench soak --minutes 2
  upshim bench soak --minutes 60 --rate 200 --json
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console

from captures.expiry import highest
from captures.store import Store
from tools.bench.proxy_targets import Usage, backend
from tools.bench.soak_phones import Phones
from tools.options import above_zero
from tools.ports import free_port

FILE_MB = 2
WARM_UP, LONGEST_WARM_UP = 0.25, 600.0  # of the time; seconds
SETTLES_WITHIN = 60.0  # seconds after the last phone has gone
SPARE = 6  # descriptors and threads that may come and go
KEEP_BYTES = 200_000_000
ENDS_WITHIN = 60.0


class Look(NamedTuple):
    """One look at the process: seconds since the start, bytes, counts, bytes."""

    at: float
    memory: int
    descriptors: int
    threads: int
    store: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--minutes", type=float, default=2, metavar="N", help="how long (default 2)")
    parser.add_argument("--rate", type=float, default=200, metavar="N", help="checks a second (default 200)")
    parser.add_argument("--growth", type=float, default=20, metavar="MB", help="memory that may grow (default 20)")
    parser.add_argument("--json", action="store_true", help="print JSON Lines")


def run(args: argparse.Namespace) -> int:
    """Soak, print, judge."""
    seconds = above_zero("--minutes", args.minutes) * 60
    above_zero("--rate", args.rate)
    with tempfile.TemporaryDirectory() as name, backend(Path(name), FILE_MB) as (starter, port, _):
        admin, recording = free_port(), Path(name) / "rec"
        options = ["--rules", str(Path(name) / "rules.toml"), "--record", str(recording)]
        options += ["--admin", f"127.0.0.1:{admin}", "--keep-days", "7", "--keep-bytes", str(KEEP_BYTES)]
        upshim = starter.upshim("upshim", port, *options)
        process = upshim.processes[0]
        phones = Phones(upshim.port, args.rate, FILE_MB * 1_000_000)
        looks = asyncio.run(soak(phones, process, recording, seconds))
        dead = process.poll() is not None
        after = None if dead else settle(process, recording, looks[0])
        failed_open = 0 if dead else metric(admin, "upshim_fail_open_total")
        ended = None if dead else end(process)
        kept = recorded(recording)
    result = summary(phones, looks, seconds)
    problems = judge(phones, result, looks[0], after, args.growth)
    if failed_open:
        problems.append(f"upshim failed open {failed_open:g} times")
    if kept < len(phones.latencies) + phones.downloads:
        problems.append(f"{len(phones.latencies) + phones.downloads} exchanges were answered, {kept} recorded")
    if dead or ended != 0:
        problems.append("upshim has died" if dead else f"upshim ended with {ended} after SIGTERM")
    told = {"kind": "bench", "bench": "soak", **result, "recorded": kept, "failures": dict(phones.failures)}
    if args.json:
        print(json.dumps({**told, "problems": problems}))
    else:
        show({**told, "after": after}, problems)
    return 1 if problems else 0


async def soak(phones: Phones, process: subprocess.Popen[bytes], recording: Path, seconds: float) -> list[Look]:
    """Load, and a look every second. The first look is after the first exchanges, without a connection open."""
    await phones.run(1)
    await asyncio.sleep(1)
    began = time.monotonic()
    looks = [look(process, recording, 0)]
    load = asyncio.create_task(phones.run(seconds))
    while not load.done() and process.poll() is None:
        await asyncio.wait([load], timeout=1)
        if process.poll() is None:
            looks.append(look(process, recording, time.monotonic() - began))
    if process.poll() is not None:
        load.cancel()
    await asyncio.gather(load, return_exceptions=process.poll() is not None)
    return looks


def look(process: subprocess.Popen[bytes], recording: Path, at: float) -> Look:
    """Look at the process and its recording."""
    descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
    store = sum(path.stat().st_size for path in recording.glob("store.sqlite*"))
    return Look(at, Usage([process]).memory(), descriptors, threads, store)


def settle(process: subprocess.Popen[bytes], recording: Path, first: Look) -> Look:
    """Wait until what the phones used is free again, or long enough."""
    deadline = time.monotonic() + SETTLES_WITHIN
    while True:
        after = look(process, recording, 0)
        if settled(first, after) or time.monotonic() > deadline:
            return after
        time.sleep(0.2)


def settled(first: Look, after: Look) -> bool:
    """Whether descriptors and threads are what they were."""
    return after.descriptors <= first.descriptors + SPARE and after.threads <= first.threads + SPARE


def metric(admin: int, name: str) -> float:
    """One number of the metrics."""
    with closing(http.client.HTTPConnection("127.0.0.1", admin, timeout=30)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def end(process: subprocess.Popen[bytes]) -> int | None:
    """SIGTERM; the exit code, None where it does not end."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(ENDS_WITHIN)
    except subprocess.TimeoutExpired:
        return None


def recorded(folder: Path) -> int:
    """Exchanges that were recorded, those removed since included."""
    store = Store.open(folder)
    try:
        with store.engine.connect() as connection:
            return highest(connection)
    finally:
        store.close()


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The growth in one second of the line that fits best."""
    if len(points) < 3:
        return 0.0
    return statistics.linear_regression([at for at, _ in points], [value for _, value in points]).slope


def summary(phones: Phones, looks: Sequence[Look], seconds: float) -> dict[str, Any]:
    """The numbers."""
    warm = [one for one in looks if one.at >= min(seconds * WARM_UP, LONGEST_WARM_UP)] or list(looks)
    growth = slope([(one.at, one.memory) for one in warm])
    span = warm[-1].at - warm[0].at
    times = sorted(phones.latencies)
    at = {
        percent: times[min(len(times) - 1, len(times) * percent // 100)] * 1000 if times else 0 for percent in (50, 99)
    }
    return {
        "minutes": round(seconds / 60, 2),
        "checks": len(times),
        "checks_per_s": round(len(times) / max(1.0, looks[-1].at), 1),
        "held_back": phones.held_back,
        "downloads": phones.downloads,
        "p50_ms": round(at[50], 2),
        "p99_ms": round(at[99], 2),
        "memory": [looks[0].memory, warm[0].memory, looks[-1].memory, max(one.memory for one in looks)],
        "memory_mb_per_hour": round(growth * 3600 / 1e6, 2),
        "memory_growth": round(growth * span),
        "descriptors": [looks[0].descriptors, max(one.descriptors for one in looks), looks[-1].descriptors],
        "threads": [looks[0].threads, max(one.threads for one in looks), looks[-1].threads],
        "store_mb_per_hour": round(slope([(one.at, one.store) for one in looks]) * 3600 / 1e6, 1),
    }


def judge(phones: Phones, result: dict[str, Any], first: Look, after: Look | None, growth: float) -> list[str]:
    """What is wrong, in words."""
    problems = [f"{count} times: {what}" for what, count in phones.failures.most_common(10)]
    if result["memory_growth"] > growth * 1e6:
        problems.append(f"memory grew by {result['memory_growth'] / 1e6:.1f} MB after the warm-up")
    if after is not None and not settled(first, after):
        told = f"{after.descriptors} descriptors and {after.threads} threads are left"
        problems.append(f"{told}, it began with {first.descriptors} and {first.threads}")
    return problems


def show(told: dict[str, Any], problems: Sequence[str]) -> None:
    """For people."""
    first, warm, last, most = (f"{size / 1e6:.0f}" for size in told["memory"])
    console = Console(highlight=False, width=None if os.isatty(1) else 120)
    console.print(f"{told['minutes']:g} minutes, {told['checks']:,} checks ({told['checks_per_s']:g}/s), ", end="")
    console.print(f"{told['downloads']} downloads, {told['held_back']} checks not sent for want of time")
    console.print(f"latency p50 {told['p50_ms']:.1f} ms, p99 {told['p99_ms']:.1f} ms")
    console.print(f"memory {first} MB at first, {warm} warm, {last} at last, {most} at most; ", end="")
    console.print(f"{told['memory_mb_per_hour']:+.1f} MB/h ({told['memory_growth'] / 1e6:+.1f} MB after the warm-up)")
    for name in ("descriptors", "threads"):
        console.print("{}: {} at first, {} at most, {} at last under load".format(name, *told[name]), end="")
        console.print(f", {getattr(told['after'], name)} after it" if told["after"] else "")
    console.print(f"store {told['store_mb_per_hour']:+.0f} MB/h, {told['recorded']:,} exchanges recorded")
    for problem in problems:
        console.print(f"problem: {problem}", markup=False)
    if not problems:
        console.print("nothing leaks, nothing failed")
