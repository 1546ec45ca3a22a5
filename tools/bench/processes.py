"""One run of a program, measured: CPU time, wall time, peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tools.errors import UnusableInput

# Linux counts a process's peak memory from that of the one that started it, so a bare interpreter does the starting.
STARTER = """
import json, os, sys, time
null = os.open(os.devnull, os.O_RDWR)
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)])
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - began
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, wall, used.ru_maxrss * 1024]))
"""


class Run(NamedTuple):
    """CPU and wall time in seconds, peak resident memory in bytes (that of a bare interpreter at least)."""

    cpu: float
    wall: float
    peak: int


def measure(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Run:
    """Run it to its end; raises UnusableInput when it fails, for then its time means nothing."""
    starter = [sys.executable, "-I", "-S", "-c", STARTER, *command]
    said = subprocess.run(starter, check=True, stdout=subprocess.PIPE, env=environment).stdout
    code, cpu, wall, peak = json.loads(said)
    if code:
        raise UnusableInput(f"{' '.join(command)}: exit {code}")
    return Run(cpu, wall, peak)
