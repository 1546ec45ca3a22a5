"""HTTP said byte for byte, and a process looked at from outside."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path

from tests.bodies import CHECK_TARGET, check_body
from tests.proxies import Proxy

WITHIN = 60.0  # seconds for something to come about on a loaded machine


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def check_request(target: str = CHECK_TARGET, *headers: str, body: bytes = check_body()) -> bytes:
    """An update check, after which the connection is closed."""
    lines = [f"POST {target} HTTP/1.1", "Host: dus", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def exchange(port: int, request: bytes, *, to_the_end: bool = False) -> bytes:
    """What comes back until the answer is whole, or the connection closed; how it is closed does not matter."""
    answer = bytearray()
    with connect(port) as phone, contextlib.suppress(ConnectionError):
        phone.sendall(request)
        while to_the_end or not whole(answer, request):
            piece = phone.recv(65536)
            if not piece:
                break
            answer += piece
    return bytes(answer)


def whole(answer: bytes | bytearray, request: bytes = b"") -> bool:
    """Whether an answer has all the bytes that its head announces."""
    end = answer.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = re.search(rb"\r\ncontent-length: *(\d+)\r\n", answer[: end + 2], re.IGNORECASE)
    return request.startswith(b"HEAD") or (length is not None and len(answer) - end - 4 >= int(length[1]))


def body_of(answer: bytes) -> bytes:
    return answer.partition(b"\r\n\r\n")[2]


def read_until(phone: socket.socket, mark: bytes, count: int = 1) -> bytes:
    """What comes until something has come so many times."""
    phone.settimeout(WITHIN)
    found = bytearray()
    while found.count(mark) < count:
        piece = phone.recv(65536)
        assert piece, bytes(found[-1000:])
        found += piece
    return bytes(found)


def send_until_full(phone: socket.socket, data: bytes, times: int) -> int:
    """Send something again and again until the other end takes no more; how many times that was."""
    phone.settimeout(1)
    for number in range(times):
        try:
            phone.sendall(data)
        except TimeoutError:
            return number
    raise AssertionError(f"all of {len(data) * times} bytes were taken")


def status_of(answer: bytes) -> int:
    """The status; 0 where there was no answer."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else 0


def closed(phone: socket.socket) -> bool:
    """Whether the other end has closed a connection on which nothing else comes; waits for it."""
    phone.settimeout(WITHIN)
    try:
        return phone.recv(65536) == b""
    except ConnectionError:
        return True


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def descriptors(proxy: Proxy) -> int:
    return len(list(Path(f"/proc/{proxy.process.pid}/fd").iterdir()))


def memory(proxy: Proxy) -> int:
    """Resident memory in bytes."""
    return int(Path(f"/proc/{proxy.process.pid}/statm").read_text().split()[1]) * 4096
