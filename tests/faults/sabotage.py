"""`upshim` with faults put into it, to see what comes of them: python -m tests.faults.sabotage FILE proxy ...

The file's text names the fault that is there at the moment; while it is blank there is none. The process that writes
the recording has the same faults: `FILE writer ...`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captures.live_recording import LiveRecording
from captures.sinks import FolderSink
from proxy_addons import addon, phone_events, recording_process
from proxy_addons.folder_ledger import FolderLedger
from proxy_addons.rewriter import Rewriter
from tools.cli import main

FILE = Path(sys.argv[1])


def present() -> str:
    """The fault of the moment."""
    try:
        return FILE.read_text()
    except OSError:
        return ""


def endless() -> Any:
    return endless()


def bug() -> Any:
    raise ZeroDivisionError("a bug of ours")


def no_memory() -> Any:
    raise MemoryError


def hang() -> None:
    while present() == "hung disk":
        time.sleep(0.01)


FAULTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "decoder": ((Rewriter, "read"),),
    "endless decoder": ((Rewriter, "read"),),
    "greedy decoder": ((Rewriter, "read"),),
    "decoder of answers": ((Rewriter, "answer"),),
    "heads": ((addon, "headers_of"),),
    "stream": ((LiveRecording, "chunk"),),
    "history": ((phone_events, "situation"), (phone_events, "answered"), (FolderLedger, "decide")),
    "recorder": ((LiveRecording, "add"), (LiveRecording, "chunk"), (LiveRecording, "finish")),
    "writer": ((FolderSink, "write"),),
    "hung disk": ((FolderSink, "write"),),
}
ACTS: dict[str, Callable[[], Any]] = {"endless decoder": endless, "greedy decoder": no_memory, "hung disk": hang}


def put_in(fault: str, owner: Any, name: str) -> None:
    """Have a function do something else while the fault is there."""
    original, act = getattr(owner, name), ACTS.get(fault, bug)

    def faulty(*arguments: Any, **named: Any) -> Any:
        if present() == fault:
            act()
        return original(*arguments, **named)

    setattr(owner, name, faulty)


def clock() -> None:
    """Let the clock jump by the seconds in `clock SECONDS`; what counts seconds steadily does not."""
    real = time.time

    def shifted() -> float:
        what, _, by = present().partition(" ")
        return real() + (float(by) if what == "clock" else 0.0)

    time.time = shifted


if __name__ == "__main__":
    for fault, places in FAULTS.items():
        for place in places:
            put_in(fault, *place)
    clock()
    if sys.argv[2] == "writer":
        recording_process.main(sys.argv[3:])
    else:
        recording_process.COMMAND = (sys.executable, "-m", "tests.faults.sabotage", sys.argv[1], "writer")
        sys.exit(main(sys.argv[2:]))
