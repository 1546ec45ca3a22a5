"""A scripted HTTP/1 server on the loopback interface: tests say what it answers, byte for byte."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

TIMEOUT = 20


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came over the wire; `body` has its chunks joined."""

    head: bytes
    body: bytes
    connection: int

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode("latin-1")


Reply = Callable[[Received], Iterable[bytes]]


@dataclass(slots=True)
class Server:
    """What is listening, and what came. A reply that ends with b"" closes the connection."""

    port: int
    reply: Reply
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def message(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """An answer with a Content-Length."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def chunked(*chunks: bytes) -> bytes:
    """The wire form of a chunked body."""
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


@contextlib.contextmanager
def serving(
    reply: Reply, tls: ssl.SSLContext | None = None, address: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[Server]:
    """Serve until the block ends; over TLS with a context."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listener = socket.create_server(address, family=family)
    server = Server(listener.getsockname()[1], reply)
    open_sockets: set[socket.socket] = set()

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            server.connections += 1
            open_sockets.add(connection)
            threading.Thread(target=serve, args=(connection, server.connections), daemon=True).start()

    def serve(connection: socket.socket, number: int) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.suppress(OSError, ValueError))
            stack.enter_context(connection)
            connection.settimeout(TIMEOUT)
            if tls is not None:
                connection = stack.enter_context(tls.wrap_socket(connection, server_side=True))
            stream = stack.enter_context(connection.makefile("rb"))
            while (request := _request(stream, number)) is not None:
                server.received.append(request)
                for piece in server.reply(request):
                    if not piece:
                        return
                    connection.sendall(piece)
        open_sockets.discard(connection)

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in list(open_sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _request(stream: object, number: int) -> Received | None:
    read_line, read = stream.readline, stream.read  # type: ignore[attr-defined]
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = read_line()
        if not line:
            return None
        head += line
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:] if line)
    }
    if b"chunked" in headers.get(b"transfer-encoding", b"").lower():
        body = b""
        while size := int(read_line().split(b";")[0], 16):
            body += read(size)
            read_line()
        while read_line() not in {b"\r\n", b""}:
            pass
        return Received(head, body, number)
    return Received(head, read(int(headers.get(b"content-length", b"0"))), number)
