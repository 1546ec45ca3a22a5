"""Suites that Python's own TLS has no more, spoken by GnuTLS through a relay that keeps what passes as packets."""

from __future__ import annotations

import select
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from tests.captures.tls_talk import make_certificate
from tests.captures.wire import Talk, pcap, request, written
from tests.conftest import require_tool
from tests.tools.test_deploy import listening
from tools.ports import free_port

PRIORITY = "NORMAL:-VERS-ALL:+VERS-TLS1.0:-CIPHER-ALL:-MAC-ALL:-KX-ALL:{}:%COMPAT"
SUITES = {
    "RC4-SHA": "+ARCFOUR-128:+SHA1:+RSA",
    "RC4-MD5": "+ARCFOUR-128:+MD5:+RSA",
    "DES-CBC3-SHA": "+3DES-CBC:+SHA1:+RSA",
}


@contextmanager
def relay(port: int, talk: Talk) -> Iterator[int]:
    """The port of a relay for one connection to a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def carry() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:
                others = {client: server, server: client}
                while True:
                    for source in select.select(list(others), [], [])[0]:
                        data = source.recv(1 << 16)
                        if not data:
                            return
                        (talk.client if source is client else talk.server)(data)
                        others[source].sendall(data)

        thread = threading.Thread(target=carry)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.parametrize("suite", SUITES)
def test_what_old_phones_speak_is_decrypted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suite: str) -> None:
    require_tool("tshark")
    client, server = require_tool("gnutls-cli"), require_tool("gnutls-serv")
    key, certificate = make_certificate(tmp_path)
    keylog = tmp_path / "keys"
    monkeypatch.setenv("SSLKEYLOGFILE", str(keylog))
    priority = ["--priority", PRIORITY.format(SUITES[suite])]
    port = free_port()
    serving = [server, "--http", "-p", str(port), "--x509keyfile", str(key), "--x509certfile", str(certificate)]
    talk = Talk().open()
    with listening([*serving, *priority], port, tmp_path / "server.log"), relay(port, talk) as relayed:
        asking = [client, "--insecure", "--logfile", str(tmp_path / "client.log"), "-p", str(relayed), "127.0.0.1"]
        said = request(f"/{suite}").replace(b"HTTP/1.1", b"HTTP/1.0")
        got = subprocess.run([*asking, *priority], input=said, capture_output=True, timeout=60, check=True).stdout
    page = got[got.index(b"\r\n\r\n") + 4 :]
    assert SUITES[suite].split(":")[0].strip("+").encode() in page  # the server says what was agreed on
    path = written(tmp_path, pcap(talk.close().packets))
    for options in (ReadOptions(keylog=keylog), ReadOptions(tls_key=key)):
        (exchange,) = (item for item in read_exchanges(path, options) if isinstance(item, Exchange))
        assert exchange.request.target == f"/{suite}"
        assert exchange.response is not None
        assert exchange.response.status == 200
        assert exchange.response.body.data == page
