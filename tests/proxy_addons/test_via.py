"""The server behind another proxy: what that one is asked, by a proxy that does as it is told and remembers."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from captures.store import Store
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body
from tests.phone_certificates import identity_file, server_context
from tests.proxies import running
from tests.proxy_addons.test_old_tls import check, client, client_hello, said
from tests.servers import Received, message, serving


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml")


class Beyond:
    """An HTTP proxy: CONNECT and absolute form, to a server that it knows under any name."""

    def __init__(self, port: int, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[bytes] = []
        self._server, self._tls = port, tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            plain,
            self._secured(plain) as phone,
            socket.create_connection(("127.0.0.1", self._server)) as server,
        ):
            head = b""
            while b"\r\n\r\n" not in head:
                head += phone.recv(65536)
            line = head.split(b"\r\n")[0]
            self.asked.append(line)
            if line.startswith(b"CONNECT"):
                phone.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            else:
                method, target, version = line.split(b" ")
                path = b"/" + target.split(b"/", 3)[3]
                server.sendall(head.replace(line, b" ".join((method, path, version)), 1))
            back = threading.Thread(target=self._carry, args=(server, phone), daemon=True)
            back.start()
            self._carry(phone, server)
            back.join(20)

    def _secured(self, plain: socket.socket) -> socket.socket:
        return plain if self._tls is None else self._tls.wrap_socket(plain, server_side=True)

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.toml"
    file.write_text(REPORT_ZERO)
    return file


def test_http_in_absolute_form(rules: Path, tmp_path: Path) -> None:
    with serving(update_server) as server, closing(Beyond(server.port)) as beyond:
        options = {"via": beyond.url, "rules": rules, "record": tmp_path / "rec"}
        with running("upshim", "http://dus.invalid", tmp_path / "s", **options) as proxy:
            assert check(proxy.port) == (200, answer_body())
        assert beyond.asked == [f"POST http://dus.invalid{CHECK_TARGET} HTTP/1.1".encode()]
        assert b'Version="0.0.0.0"' in server.received[0].body
        with closing(Store.open(tmp_path / "rec")) as store:
            (told,) = store.exchanges()
        assert told.request.target == CHECK_TARGET  # as the phone said it


def test_tls_by_connect_whether_ours_or_not(rules: Path, tmp_path: Path) -> None:
    certs = identity_file(tmp_path / "phones.pem")
    with (
        serving(update_server, server_context(tmp_path / "server.pem")) as server,
        closing(Beyond(server.port)) as beyond,
    ):
        options = {"via": beyond.url, "rules": rules, "certs": certs, "server_insecure": True}
        with running("upshim", "https://dus.invalid", tmp_path / "s", **options) as proxy:
            assert check(proxy.port, client(ssl.TLSVersion.TLSv1_2)) == (200, answer_body())
            assert b'Version="0.0.0.0"' in server.received[0].body
            assert said(proxy.port, client_hello(0x0004))[:1] in {b"\x15", b""}  # what the server makes of RC4
        assert beyond.asked == [b"CONNECT dus.invalid:443 HTTP/1.1"] * 2


def test_a_proxy_that_is_not_there(tmp_path: Path) -> None:
    with running("upshim", "http://dus.invalid", tmp_path, via="http://127.0.0.1:1") as proxy:
        assert check(proxy.port)[0] == 502
