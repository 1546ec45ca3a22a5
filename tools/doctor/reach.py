"""The way to a server: straight, or through the proxy of --via, as proxy_addons/via.py goes it."""

from __future__ import annotations

import http.client
import select
import socket
import ssl
import threading
import warnings
from contextlib import closing, suppress
from dataclasses import dataclass

from tools.deploy import Address

WITHIN = 5.0  # seconds for each thing that is asked for
MAX_HEAD = 1 << 16


class ProxyRefuses(OSError):
    """The proxy of --via is there, and does not connect to the server."""


@dataclass(frozen=True, slots=True)
class Way:
    """`via` is the proxy; `tls` verifies it where it is spoken to by TLS."""

    via: Address | None = None
    tls: ssl.SSLContext | None = None

    def connect(self, server: Address) -> socket.socket:
        """A connection to a server. Raises `OSError`."""
        if self.via is None:
            return socket.create_connection((server.host, server.port), WITHIN)
        beyond = socket.create_connection((self.via.host, self.via.port), WITHIN)
        try:
            if self.tls is not None:
                beyond = self.tls.wrap_socket(beyond, server_hostname=self.via.host)
            beyond.sendall(f"CONNECT {server} HTTP/1.1\r\nHost: {server}\r\n\r\n".encode())
            _read_consent(beyond)
            return _pumped(beyond) if isinstance(beyond, ssl.SSLSocket) else beyond
        except BaseException:
            beyond.close()
            raise

    def ask(self, server: Address, method: str, target: str, *, secure: bool) -> tuple[http.client.HTTPResponse, bytes]:
        """An answer and the beginning of its body; any certificate will do. Raises `OSError` and `HTTPException`."""
        authority = str(server).removesuffix(":443" if secure else ":80")
        with closing(http.client.HTTPConnection(server.host, server.port, timeout=WITHIN)) as connection:
            if self.via is not None and not secure and self.tls is None:
                connection.sock = socket.create_connection((self.via.host, self.via.port), WITHIN)
                target = f"http://{authority}{target}"
            else:
                connection.sock = self.connect(server)
            if secure:
                connection.sock = lenient().wrap_socket(connection.sock, server_hostname=server.host)
            connection.request(method, target, headers={"Host": authority, "Connection": "close"})
            answer = connection.getresponse()
            return answer, answer.read(MAX_HEAD)


STRAIGHT = Way()


def lenient() -> ssl.SSLContext:
    """Talks to whatever there is: whose certificate it is, and how old the protocol, are checks of their own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    return context


def _read_consent(beyond: socket.socket) -> None:
    """A proxy's answer to CONNECT. Raises `OSError`."""
    head = b""
    while b"\r\n\r\n" not in head:
        if len(head) > MAX_HEAD or not (more := beyond.recv(1)):  # what follows it is the server's
            raise ProxyRefuses("does not answer CONNECT by HTTP")
        head += more
    version, _, status = head.split(b"\r\n")[0].decode("latin-1").partition(" ")
    if not version.startswith("HTTP/1."):
        raise ProxyRefuses("does not answer CONNECT by HTTP")
    if not status.startswith("2"):
        raise ProxyRefuses(f"answers CONNECT with {status[:80]}")


def _pumped(beyond: ssl.SSLSocket) -> socket.socket:
    """A plain socket whose bytes go through TLS: what speaks TLS itself wants one."""
    ours, inner = socket.socketpair()
    ours.settimeout(WITHIN)

    def pump() -> None:
        with suppress(OSError), beyond, inner:
            while ready := [beyond] if beyond.pending() else select.select([beyond, inner], [], [], WITHIN)[0]:
                for one, other in ((beyond, inner), (inner, beyond)):
                    if one in ready:
                        if not (data := one.recv(1 << 16)):
                            return
                        other.sendall(data)

    threading.Thread(target=pump, daemon=True).start()
    return ours
