"""Does `upshim proxy` stay as it is for hours? A real one, with rules, recording and retention, under steady load.

Emulated phones send so many checks a second, some over new connections, and fetch a file now and then; some of them
hang up in the middle. Memory, descriptors, threads and the size of the recording are looked at every second. Through
the second half of the time a line is laid: how fast the heap grows (anonymous memory: what is mapped from files comes
and goes), with the margin that 95 of 100 such lines keep. What a program has once needed at a time it keeps, so memory
also grows where more checks than ever before are under way at once, which is told; a leak grows with their number.
Exit code 1 where

- the heap grew by more than --growth MB in the second half, even at the lower margin,
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

from captures.expiry import standing
from captures.store import Store
from tools.bench.proxy_targets import Usage, backend
from tools.bench.soak_phones import Phones
from tools.options import above_zero
from tools.ports import free_port

FILE_MB = 2
BLOCKS = 10  # means a line is laid through: neighbouring looks say nearly the same
STUDENT = 2.306  # margin of a line through ten points, in standard errors (t distribution, 8 degrees of freedom, 95 %)
SETTLES_WITHIN = 60.0  # seconds after the last phone has gone
SPARE = 6  # descriptors and threads that may come and go
KEEP_BYTES = 200_000_000
ENDS_WITHIN = 60.0


class Look(NamedTuple):
    """One look at the process: seconds since the start, bytes (resident, anonymous), counts, bytes, checks so far."""

    at: float
    memory: int
    heap: int
    descriptors: int
    threads: int
    store: int
    checks: int = 0


class Trend(NamedTuple):
    """The slope of a line, and how far it may be off."""

    slope: float
    margin: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--minutes", type=float, default=2, metavar="N", help="how long (default 2)")
    parser.add_argument("--rate", type=float, default=200, metavar="N", help="checks a second (default 200)")
    parser.add_argument("--growth", type=float, default=20, metavar="MB", help="the heap may grow by (default 20)")
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
        print(json.dumps({**told, "after": after and after._asdict(), "problems": problems}))
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
            seen = look(process, recording, time.monotonic() - began)
            looks.append(seen._replace(checks=len(phones.latencies)))
    if process.poll() is not None:
        load.cancel()
    await asyncio.gather(load, return_exceptions=process.poll() is not None)
    return looks


def look(process: subprocess.Popen[bytes], recording: Path, at: float) -> Look:
    """Look at the process and its recording."""
    descriptors = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    threads = len(list(Path(f"/proc/{process.pid}/task").iterdir()))
    store = sum(path.stat().st_size for path in recording.glob("store.sqlite*"))
    usage = Usage([process])
    return Look(at, usage.memory(), usage.memory("RssAnon"), descriptors, threads, store)


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
            return standing(connection).highest
    finally:
        store.close()


def trend(points: Sequence[tuple[float, float]]) -> Trend | None:
    """The line through the means of ten equal parts; None where there are too few points for that."""
    size = len(points) // BLOCKS
    if not size:
        return None
    parts = [points[number * size : (number + 1) * size] for number in range(BLOCKS)]
    times = [statistics.fmean(at for at, _ in part) for part in parts]
    values = [statistics.fmean(value for _, value in part) for part in parts]
    line = statistics.linear_regression(times, values)
    off = sum((value - line.intercept - line.slope * at) ** 2 for at, value in zip(times, values, strict=True))
    spread = statistics.pvariance(times) * BLOCKS
    return Trend(line.slope, STUDENT * (off / (BLOCKS - 2) / spread) ** 0.5)


def summary(phones: Phones, looks: Sequence[Look], seconds: float) -> dict[str, Any]:
    """The numbers."""
    half = [one for one in looks if one.at >= seconds / 2] or list(looks[-1:])
    times = sorted(phones.latencies)
    at = {
        percent: times[min(len(times) - 1, len(times) * percent // 100)] * 1000 if times else 0 for percent in (50, 99)
    }
    told: dict[str, Any] = {
        "minutes": round(seconds / 60, 2),
        "checks": len(times),
        "checks_per_s": round(len(times) / max(1.0, looks[-1].at), 1),
        "held_back": phones.held_back,
        "most_under_way": phones.most_under_way,
        "downloads": phones.downloads,
        "p50_ms": round(at[50], 2),
        "p99_ms": round(at[99], 2),
        "memory": [looks[0].memory, half[0].memory, looks[-1].memory, max(one.memory for one in looks)],
        "heap": [looks[0].heap, half[0].heap, looks[-1].heap, max(one.heap for one in looks)],
        "descriptors": [looks[0].descriptors, max(one.descriptors for one in looks), looks[-1].descriptors],
        "threads": [looks[0].threads, max(one.threads for one in looks), looks[-1].threads],
        "store_mb_per_hour": round((looks[-1].store - looks[0].store) / max(1.0, looks[-1].at) * 3600 / 1e6, 1),
    }
    line = trend([(one.at, one.heap) for one in half])
    if line is not None:
        span = half[-1].at - half[0].at
        each = span / max(1, half[-1].checks - half[0].checks)  # seconds from check to check
        told |= {
            "heap_growth": [round(part * span) for part in line],
            "heap_mb_per_hour": [round(part * 3600 / 1e6, 2) for part in line],
            "heap_bytes_per_check": [round(part * each, 1) for part in line],
        }
    return told


def judge(phones: Phones, result: dict[str, Any], first: Look, after: Look | None, growth: float) -> list[str]:
    """What is wrong, in words."""
    problems = [f"{count} times: {what}" for what, count in phones.failures.most_common(10)]
    grown, margin = result.get("heap_growth", (0, 0))
    if grown - margin > growth * 1e6:
        problems.append(f"the heap grew by {grown / 1e6:.1f} MB (give or take {margin / 1e6:.1f}) in the second half")
    if after is not None and not settled(first, after):
        told = f"{after.descriptors} descriptors and {after.threads} threads are left"
        problems.append(f"{told}, it began with {first.descriptors} and {first.threads}")
    return problems


def show(told: dict[str, Any], problems: Sequence[str]) -> None:
    """For people."""
    console = Console(highlight=False, width=None if os.isatty(1) else 120)
    console.print(f"{told['minutes']:g} minutes, {told['checks']:,} checks ({told['checks_per_s']:g}/s), ", end="")
    console.print(f"{told['downloads']} downloads, {told['most_under_way']} of both under way at most, ", end="")
    console.print(f"{told['held_back']} checks not sent for want of time")
    console.print(f"latency p50 {told['p50_ms']:.1f} ms, p99 {told['p99_ms']:.1f} ms")
    for name in ("memory", "heap"):
        first, half, last, most = (f"{size / 1e6:.0f}" for size in told[name])
        after = "" if told["after"] is None else f", {getattr(told['after'], name) / 1e6:.0f} after it"
        console.print(f"{name} {first} MB at first, {half} half-way, {last} at last, {most} at most{after}")
    if "heap_growth" in told:
        growth, hourly, each = (told[f"heap_{name}"] for name in ("growth", "mb_per_hour", "bytes_per_check"))
        console.print(f"heap in the second half {growth[0] / 1e6:+.1f} MB ± {growth[1] / 1e6:.1f}: ", end="")
        console.print(f"{hourly[0]:+.1f} ± {hourly[1]:.1f} MB/h, {each[0]:+.0f} ± {each[1]:.0f} bytes a check")
    for name in ("descriptors", "threads"):
        console.print("{}: {} at first, {} at most, {} at last under load".format(name, *told[name]), end="")
        console.print(f", {getattr(told['after'], name)} after it" if told["after"] else "")
    console.print(f"store {told['store_mb_per_hour']:+.0f} MB/h, {told['recorded']:,} exchanges recorded")
    for problem in problems:
        console.print(f"problem: {problem}", markup=False)
    if not problems:
        console.print("no problem found")
