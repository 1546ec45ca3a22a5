from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from proxy_addons import memory
from proxy_addons.memory import give_back, keep_small


def anonymous() -> int:
    found = re.search(r"^RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def test_what_is_free_between_things_that_stay_is_given_back() -> None:
    if not give_back():
        pytest.skip("the C library has no malloc_trim")
    kept, freed = [], []
    for _ in range(2000):
        freed.append(bytes(20_000))
        kept.append(bytes(1_000))
    del freed
    before = anonymous()
    assert give_back()
    assert before - anonymous() > 20_000_000
    assert len(kept) == 2000


FREED_AND_MADE = """
import sys
from proxy_addons.memory import map_large
if sys.argv[1] == "mapped" and not map_large():
    sys.exit(3)
large = bytearray(20 << 20)
del large
buffers = [bytes(256 << 10) for _ in range(20)]
heap = next(line for line in open("/proc/self/maps") if line.endswith("[heap]\\n"))
begin, end = (int(one, 16) for one in heap.split()[0].split("-"))
print(sum(begin <= id(one) < end for one in buffers))
"""


def test_what_is_large_stays_out_of_the_heap() -> None:
    def within(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", FREED_AND_MADE, how], capture_output=True, text=True, check=False)
        if done.returncode == 3:
            pytest.skip("the C library has no mallopt")
        return int(done.stdout)

    assert within("mapped") == 0
    assert within("as it comes") == 20


def test_where_it_cannot_be_done_it_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "EVERY", 0)
    answers = iter((True, True, False))
    monkeypatch.setattr(memory, "give_back", lambda: next(answers))
    asyncio.run(keep_small())
    assert next(answers, None) is None
