"""What a phone sees when what stands around upshim changes or grows old: the HAProxy in front, certificates."""

from __future__ import annotations

import signal
import ssl
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.bodies import CHECK_TARGET, answer_body, check_body
from tests.faults.raw import check_request, connect, exchange, status_of, until
from tests.faults.test_own_faults import recorded
from tests.proxies import running
from tests.servers import serving
from tests.tools.doctor.test_tls import Authority, serving_tls
from tests.tools.test_deploy import front_process, phone, pool, update_server


def reloads(log: Path, more_than: int) -> bool:
    return log.read_bytes().count(b"Loading success") > more_than


def test_a_connection_that_a_phone_keeps_outlives_a_reload_of_haproxy(tmp_path: Path) -> None:
    """And what is asked meanwhile on new ones: test_deploy.py."""
    with (
        serving(update_server) as server,
        pool(server, 1, tmp_path) as (shim,),
        front_process("haproxy", server.url, [shim.port], tmp_path) as haproxy,
        phone(haproxy.port) as kept,
    ):
        for _ in range(2):
            kept.request("POST", CHECK_TARGET, check_body())
            assert kept.getresponse().read() == answer_body()
            local = kept.sock.getsockname()
            log = tmp_path / "front.log"
            before = log.read_bytes().count(b"Loading success")
            haproxy.process.send_signal(signal.SIGUSR2)
            until(partial(reloads, log, before))
            kept.request("POST", CHECK_TARGET, check_body())
            assert kept.sock.getsockname() == local
            assert kept.getresponse().read() == answer_body()


def test_the_servers_certificate_has_expired(tmp_path: Path) -> None:
    """Who checks certificates gets no answer, with upshim as without it; the phone is told by a 502."""
    authority = Authority()
    roots = tmp_path / "roots.pem"
    roots.write_bytes(authority.pem)
    expired = authority.file(tmp_path / "c.pem", "localhost", until=datetime.now(UTC) - timedelta(days=1))
    with serving_tls(expired) as port:
        context = ssl.create_default_context(cafile=str(roots))
        with connect(port) as plain, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            context.wrap_socket(plain, server_hostname="localhost")
        url = f"https://localhost:{port}"
        with running("upshim", url, tmp_path / "s", record=tmp_path / "rec") as proxy:
            assert status_of(exchange(proxy.port, check_request())) == 502
            until(lambda: len(recorded(tmp_path / "rec")) == 1)
    (one,) = recorded(tmp_path / "rec")
    assert not one.complete
    assert "certificate" in one.problems[0].lower()
