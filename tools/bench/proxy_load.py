"""Load for a proxy: update checks by wrk, where it is installed, else by a generator of our own, and downloads.

The generator of our own is a process of its own: `python -m tools.bench.proxy_load PORT CONNECTIONS SECONDS KIND`.
It is slower than wrk and shows less than there is where a proxy is faster than it.
"""

from __future__ import annotations

import hashlib
import json
import re
import resource
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


# What a load is: whether connections are kept, and whether the fleet is mixed.
KINDS = {"keep": (True, False), "close": (False, False), "mixed": (True, True), "mixed-close": (False, True)}


class Load(NamedTuple):
    """What a load measured; times of one request are in milliseconds. `busy` is the generator's own share of a core."""

    requests: int
    seconds: float
    failed: int
    p50: float
    p99: float
    busy: float = 0.0


class Download(NamedTuple):
    """One download: MB (10^6 bytes) a second, and the milliseconds from connecting to the first byte of the body.

    `sha256` is blank where the client only took the bytes.
    """

    mb_per_s: float
    first_byte: float
    sha256: str


def generator() -> str:
    """What makes the load."""
    return "wrk" if shutil.which("wrk") else "own"


def scripts(folder: Path) -> None:
    """Write what wrk reads: a script for each kind of load."""
    for name, (keep_alive, mixed) in KINDS.items():
        sent = (checks.check(number, keep_alive=keep_alive, mixed=mixed).decode() for number in range(PHONES))
        # JSON's strings are Lua's too, as long as they are ASCII.
        (folder / f"{name}.lua").write_text(WRK_SCRIPT % ",\n".join(map(json.dumps, sent)))


def load(port: int, connections: int, seconds: float, folder: Path, kind: str = "keep") -> Load:
    """Update checks over so many connections at once, each sent when the one before has its answer."""
    if wrk := shutil.which("wrk"):
        command = [wrk, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", f"{WITHIN}s"]
        command += ["-s", str(folder / f"{kind}.lua"), f"http://127.0.0.1:{port}{checks.TARGET}"]
    else:
        command = [sys.executable, "-m", "tools.bench.proxy_load", str(port), str(connections), str(seconds), kind]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UnusableInput(f"{command[0]}: exit {done.returncode}")
    told = Load(**json.loads(done.stdout.splitlines()[-1]))
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return told._replace(busy=used / told.seconds)


def download(port: int, *, hashing: bool = True) -> Download:
    """Fetch the file once, and hash what comes as one who checks it does, or only take it.

    Raises `OSError` where not all of it comes.
    """
    request = f"GET {checks.FIRMWARE_TARGET} HTTP/1.1\r\nHost: {checks.HOST}\r\nConnection: close\r\n\r\n"
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(PIECE))
    began = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), WITHIN) as connection:
        connection.sendall(request.encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += (part := connection.recv(PIECE))
            if not part:
                raise OSError("the answer ended in its head")
        head, _, body = head.partition(b"\r\n\r\n")
        found = _LENGTH.search(head)
        if found is None or not head.startswith(b"HTTP/1.1 200 "):
            raise OSError(f"expected a file, found {head[:40]!r}")
        piece = memoryview(body) if body else buffer[: connection.recv_into(buffer)]
        first = time.perf_counter() - began
        got, length = len(piece), int(found[1])
        while piece:
            if hashing:
                digest.update(piece)
            piece = buffer[: connection.recv_into(buffer)] if got < length else piece[:0]
            got += len(piece)
        if got != length:
            raise OSError(f"{got} bytes came of {length}")
        took = time.perf_counter() - began
    return Download(got / took / 1e6, first * 1000, digest.hexdigest() if hashing else "")


class _Phone:
    """One connection of the generator of our own."""

    def __init__(self, port: int, number: int, kind: str) -> None:
        self._port = port
        self._keep_alive, mixed = KINDS[kind]
        numbers = range(number * 64, number * 64 + 64)
        self._requests = [checks.check(one, keep_alive=self._keep_alive, mixed=mixed) for one in numbers]
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


def run_own(port: int, connections: int, seconds: float, kind: str) -> Load:
    """The generator of our own."""
    phones = [_Phone(port, number, kind) for number in range(connections)]
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
    print(json.dumps(run_own(int(_port), int(_connections), float(_seconds), _kind)._asdict()))
