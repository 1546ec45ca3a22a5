"""Load for a proxy: update checks by wrk, where it is installed, else by a generator of our own, and one download.

The generator of our own, one process of its own: `python -m tools.bench.proxy_load PORT CONNECTIONS SECONDS [close]`.
It is slower than wrk and shows less than there is where a proxy is faster than it.
"""

from __future__ import annotations

import json
import re
import selectors
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from tools.bench import checks
from tools.errors import UnusableInput

PHONES = 256  # more than upshim remembers decoded bodies of
WITHIN = 30  # seconds that anything may take
PIECE = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

WRK_SCRIPT = """\
local requests = { %s }
local next = 0
request = function()
  next = next %% #requests + 1
  return requests[next]
end
done = function(summary, latency, _)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('{"requests":%%d,"seconds":%%.6f,"failed":%%d,"p50":%%.4f,"p99":%%.4f}\\n', summary.requests,
    summary.duration / 1e6, failed, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


class Load(NamedTuple):
    """What a load measured; times of one request are in milliseconds."""

    requests: int
    seconds: float
    failed: int
    p50: float
    p99: float


class Download(NamedTuple):
    """One download: MB (10^6 bytes) a second, and the milliseconds to the first byte of the body."""

    mb_per_s: float
    first_byte: float


def generator() -> str:
    """What makes the load."""
    return "wrk" if shutil.which("wrk") else "own"


def scripts(folder: Path) -> None:
    """Write what wrk reads: one script for connections that are kept, one for new ones."""
    for name, keep_alive in (("keep", True), ("close", False)):
        # JSON's strings are Lua's too, as long as they are ASCII.
        requests = ",\n".join(json.dumps(checks.check(n, keep_alive=keep_alive).decode()) for n in range(PHONES))
        (folder / f"{name}.lua").write_text(WRK_SCRIPT % requests)


def load(port: int, connections: int, seconds: float, folder: Path, *, keep_alive: bool = True) -> Load:
    """Update checks over so many connections at once, each sent when the one before has its answer."""
    kind = "keep" if keep_alive else "close"
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", f"{WITHIN}s"]
        command += ["-s", str(folder / f"{kind}.lua"), f"http://127.0.0.1:{port}{checks.TARGET}"]
    else:
        command = [sys.executable, "-m", "tools.bench.proxy_load", str(port), str(connections), str(seconds), kind]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    if done.returncode:
        raise UnusableInput(f"{command[0]}: exit {done.returncode}")
    return Load(**json.loads(done.stdout.splitlines()[-1]))


def download(port: int) -> Download:
    """Fetch the file once. Raises `OSError` where not all of it comes."""
    request = f"GET {checks.FIRMWARE_TARGET} HTTP/1.1\r\nHost: {checks.HOST}\r\nConnection: close\r\n\r\n"
    buffer = bytearray(PIECE)
    with socket.create_connection(("127.0.0.1", port), WITHIN) as connection:
        began = time.perf_counter()
        connection.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += (part := connection.recv(PIECE))
            if not part:
                raise OSError("the answer ended in its head")
        while (got := len(head) - head.index(b"\r\n\r\n") - 4) == 0 and (part := connection.recv(PIECE)):
            head += part
        first = time.perf_counter() - began
        found = _LENGTH.search(head)
        if found is None or not head.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"expected a file, found {head[:40]!r}")
        while got < int(found[1]):
            size = connection.recv_into(buffer)
            if not size:
                raise OSError(f"{got} bytes came of {int(found[1])}")
            got += size
        return Download(got / (time.perf_counter() - began) / 1e6, first * 1000)


class _Phone:
    """One connection of the generator of our own."""

    def __init__(self, port: int, number: int, *, keep_alive: bool) -> None:
        self._port = port
        self._keep_alive = keep_alive
        self._requests = [checks.check(number * 64 + one, keep_alive=keep_alive) for one in range(64)]
        self._sent = 0
        self._began = 0.0
        self._answer = b""
        self.times: list[float] = []
        self.failed = 0
        self.connection = socket.socket()

    def ask(self) -> None:
        """Send the next request."""
        if self._sent == 0 or not self._keep_alive:
            self.connection.close()
            self.connection = socket.create_connection(("127.0.0.1", self._port), WITHIN)
        self._began = time.perf_counter()
        self.connection.sendall(self._requests[self._sent % len(self._requests)])
        self._sent += 1
        self._answer = b""

    def take(self) -> bool:
        """Take what has come; whether the answer is whole."""
        part = self.connection.recv(65536)
        self._answer += part
        head, end, body = self._answer.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        whole = bool(end) and (len(body) >= int(found[1]) if found else not part)
        if whole and head.startswith(b"HTTP/1.1 200 "):
            self.times.append(time.perf_counter() - self._began)
        elif whole or not part:
            self.failed += 1
            self._sent = 0
            return True
        return whole


def run_own(port: int, connections: int, seconds: float, *, keep_alive: bool) -> Load:
    """The generator of our own."""
    phones = [_Phone(port, number, keep_alive=keep_alive) for number in range(connections)]
    began = time.perf_counter()
    with selectors.DefaultSelector() as selector:

        def ask(phone: _Phone) -> None:
            phone.ask()
            selector.register(phone.connection, selectors.EVENT_READ, phone)

        for phone in phones:
            ask(phone)
        while time.perf_counter() - began < seconds:
            for key, _ in selector.select(WITHIN):
                if key.data.take():
                    selector.unregister(key.data.connection)
                    ask(key.data)
    took = time.perf_counter() - began
    for phone in phones:
        phone.connection.close()
    times = sorted(one for phone in phones for one in phone.times)
    failed = sum(phone.failed for phone in phones)
    at = [times[min(len(times) - 1, len(times) * percent // 100)] * 1000 if times else 0.0 for percent in (50, 99)]
    return Load(len(times), took, failed, *at)


if __name__ == "__main__":
    _port, _connections, _seconds, _kind = sys.argv[1:]
    print(json.dumps(run_own(int(_port), int(_connections), float(_seconds), keep_alive=_kind == "keep")._asdict()))
