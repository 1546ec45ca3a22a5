"""One run of a program, measured: CPU time, wall time, peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tools.errors import UnusableInput

# Linux counts a process's peak memory from that of the one that started it, so a bare interpreter does the starting. It
# also looks at how much the program and the processes it starts take together, which nobody counts.
STARTER = """
import json, os, sys, threading, time
def peaks():
    children = open(f"/proc/{pid}/task/{pid}/children").read().split()
    for one in (str(pid), *children):
        with open(f"/proc/{one}/status") as status:
            yield one, next((int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:")), 0)
def look():
    while not over.wait(0.02):
        try:
            taken.update((one, peak) for one, peak in peaks() if peak)  # what has ended takes nothing any more
        except OSError:
            pass
null = os.open(os.devnull, os.O_RDWR)
taken, over = {}, threading.Event()
began = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[
    (os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)])
looking = threading.Thread(target=look)
looking.start()
_, status, used = os.wait4(pid, 0)
wall = time.perf_counter() - began
over.set()
looking.join()
peak = max(used.ru_maxrss * 1024, sum(taken.values()))
print(json.dumps([os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, wall, peak]))
"""


class Run(NamedTuple):
    """CPU and wall time in seconds, peak resident memory in bytes: at least that of a bare interpreter,
    and of a program that starts others the sum of their peaks.
    """

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
