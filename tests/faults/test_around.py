"""What a phone sees when what stands around upshim changes or grows old: the HAProxy in front, certificates.

An expired certificate of upshim's own is in tests/proxy_addons/test_old_tls.py.
"""

from __future__ import annotations

import signal
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from tests.bodies import CHECK_TARGET, answer_body, check_body
from tests.faults.raw import body_of, check_request, connect, exchange, status_of, until
from tests.faults.test_own_faults import recorded
from tests.phone_certificates import ROOT, pem
from tests.proxies import running
from tests.proxy_addons.test_listeners import proxy_at, started
from tests.servers import Received, message, serving
from tests.tools.doctor.test_tls import EXPIRED, serving_tls
from tests.tools.test_deploy import FRONTS, Front, front_process, phone, pool, update_server
from tools.ports import free_port


def workers(master: int) -> set[str]:
    """The processes of a HAProxy master, as they are now."""
    return set(Path(f"/proc/{master}/task/{master}/children").read_text().split())


def reload(haproxy: Front, log: Path) -> None:
    """Have another worker take over. A master is deaf until it has told that the last one did."""
    until(lambda: log.read_bytes().count(b"Loading success") >= 1)
    before = workers(haproxy.process.pid)
    haproxy.process.send_signal(signal.SIGUSR2)
    until(lambda: workers(haproxy.process.pid) - before)


def test_a_connection_that_a_phone_keeps_outlives_a_reload_of_haproxy(tmp_path: Path) -> None:
    """And what is asked meanwhile on new ones: test_deploy.py."""
    with (
        serving(update_server) as server,
        pool(server, 1, tmp_path) as (shim,),
        front_process("haproxy", server.url, [shim.port], tmp_path) as haproxy,
        phone(haproxy.port) as kept,
    ):
        kept.request("POST", CHECK_TARGET, check_body())
        assert kept.getresponse().read() == answer_body()
        local = kept.sock.getsockname()
        reload(haproxy, tmp_path / "front.log")
        kept.request("POST", CHECK_TARGET, check_body())
        assert kept.sock.getsockname() == local
        assert kept.getresponse().read() == answer_body()
        assert [one.complete for one in recorded(tmp_path / "rec0")] == [True, True]


@pytest.mark.parametrize("kind", FRONTS)
def test_a_shim_that_cannot_reach_the_server_is_gone_around(kind: str, tmp_path: Path) -> None:
    """Its names, its route or what it trusts may be wrong while the server answers everybody else."""
    with (
        serving(update_server) as server,
        running("upshim", f"http://127.0.0.1:{free_port()}", tmp_path / "s") as shim,
        front_process(kind, server.url, [shim.port], tmp_path) as started,
    ):
        assert status_of(exchange(started.port, check_request())) == 502  # the one by which it is found
        until(lambda: b"the health check fails from now on" in shim.log)
        if kind == "haproxy":  # which asks for it once in a while; nginx before each check
            until(lambda: status_of(exchange(started.port, check_request())) == 200)
        for _ in range(20):
            assert body_of(exchange(started.port, check_request())) == answer_body()


def test_a_hand_over_behind_haproxy_has_nothing_asked_again(tmp_path: Path) -> None:
    """Unlike a stop: the port stays open, so that the shim is never out."""
    arrived, over = threading.Event(), threading.Event()

    def slow(_: Received) -> Iterator[bytes]:
        arrived.set()
        over.wait(60)
        yield message(answer_body())

    with (
        serving(slow) as server,
        ExitStack() as stack,
        ThreadPoolExecutor(1) as phones,
    ):
        port = free_port()
        words = proxy_at(port, server.url, tmp_path)
        old = stack.enter_context(started(words))
        old.wait_until_listening()
        haproxy = stack.enter_context(front_process("haproxy", server.url, [port], tmp_path))
        answer = phones.submit(exchange, haproxy.port, check_request())
        try:
            assert arrived.wait(20)
            new = stack.enter_context(started([*words, "--hand-over"]))
            new.wait_until_listening()
            until(lambda: b"replaced by another process" in old.log)
            assert not wait([answer], 3).done  # HAProxy asks for its health every second
        finally:
            over.set()
        assert body_of(answer.result(20)) == answer_body()
        assert old.process.wait(20) == 0
        assert len(server.received) == 1


def test_the_servers_certificate_has_expired(tmp_path: Path) -> None:
    """Who checks certificates gets no answer, with upshim as without it; the phone is told by a 502."""
    today = hashes.SHA256()  # OpenSSL of today verifies nothing older
    roots = tmp_path / "roots.pem"
    roots.write_text(pem(replace(ROOT, hash=today)))
    with serving_tls(tmp_path, replace(EXPIRED, hash=today)) as port:
        context = ssl.create_default_context(cafile=str(roots))
        with connect(port) as plain, pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            context.wrap_socket(plain, server_hostname="localhost")
        options = {"record": tmp_path / "rec", "server_ca": roots}
        with running("upshim", f"https://localhost:{port}", tmp_path / "s", **options) as proxy:
            assert status_of(exchange(proxy.port, check_request())) == 502
            until(lambda: len(recorded(tmp_path / "rec")) == 1)
    (one,) = recorded(tmp_path / "rec")
    assert not one.complete
    assert "expired" in one.problems[0].lower()
