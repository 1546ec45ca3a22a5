"""What a phone sees when what stands around upshim changes or grows old: the HAProxy in front, certificates."""

from __future__ import annotations

import http.client
import signal
import ssl
import subprocess
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.bodies import CHECK_TARGET, answer_body, check_body
from tests.conftest import require_tool
from tests.faults.raw import check_request, connect, exchange, status_of, until
from tests.faults.test_own_faults import recorded
from tests.proxies import running
from tests.servers import serving
from tests.tools.doctor.test_tls import Authority, serving_tls
from tests.tools.test_deploy import check, free_port, phone, pool, update_server
from tools.deploy import Address, render

WORKERS = 4


def test_haproxy_is_reloaded_under_load(tmp_path: Path) -> None:
    program = require_tool("haproxy")
    file, port = tmp_path / "haproxy.cfg", free_port()
    with serving(update_server) as server, pool(server, 1, tmp_path) as (shim,), ExitStack() as stack:
        places = [Address("127.0.0.1", shim.port)], [Address("127.0.0.1", port)]
        file.write_text(render("haproxy", server.url, *places))
        front = subprocess.Popen([program, "-W", "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
        stack.callback(front.wait, 20)
        stack.callback(front.send_signal, signal.SIGTERM)
        until(lambda: reachable(port))
        kept = stack.enter_context(phone(port))
        ending, answered, failed = threading.Event(), [0] * WORKERS, [0] * WORKERS

        def load(worker: int) -> None:
            while not ending.is_set():
                try:
                    assert check(port) == answer_body()
                    answered[worker] += 1
                except (OSError, AssertionError, http.client.HTTPException):
                    failed[worker] += 1

        threads = [threading.Thread(target=load, args=(number,)) for number in range(WORKERS)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(3):
                until(partial(more, answered, list(answered)))
                kept.request("POST", CHECK_TARGET, check_body())
                assert kept.getresponse().read() == answer_body()
                front.send_signal(signal.SIGUSR2)
        finally:
            until(partial(more, answered, list(answered)))
            ending.set()
            for thread in threads:
                thread.join(30)
        assert sum(failed) <= WORKERS  # those that were being accepted


def more(answered: list[int], before: list[int]) -> bool:
    """Whether every worker has had some more answers."""
    return all(now >= then + 5 for now, then in zip(answered, before, strict=True))


def reachable(port: int) -> bool:
    try:
        connect(port).close()
    except OSError:
        return False
    return True


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
