"""The health check while the server cannot be reached, by real processes; and when that is found."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from proxy_addons import upstream_watch
from proxy_addons.failures import Failures
from proxy_addons.health import PATH
from proxy_addons.upstream_watch import UpstreamWatch
from tests.bodies import answer_body
from tests.faults.raw import WITHIN, body_of, check_request, exchange, status_of, until
from tests.phone_certificates import ROOT, pem
from tests.proxies import KINDS, Proxy, running
from tests.proxy_addons.test_launcher import admin_port, get
from tests.servers import serving
from tests.tools.doctor.test_tls import serving_tls
from tests.tools.test_deploy import update_server
from tools.deploy import Address
from tools.doctor import network
from tools.doctor import running as doctor_running
from tools.doctor.result import PROBLEM, WARN
from tools.ports import free_port


def health(proxy: Proxy) -> tuple[int, bytes]:
    return get(proxy.port, PATH)


@pytest.mark.parametrize("kind", KINDS)
def test_the_health_check_fails_until_the_server_can_be_reached(kind: str, tmp_path: Path) -> None:
    port = free_port()
    with running(kind, f"http://127.0.0.1:{port}", tmp_path) as proxy:
        assert health(proxy) == (200, b'{"status":"ok"}\n')  # nobody has asked for anything yet
        assert status_of(exchange(proxy.port, check_request())) == 502
        until(lambda: health(proxy) == (503, b'{"status":"server unreachable"}\n'))
        (seen,) = network.port(Address("127.0.0.1", proxy.port))
        assert (seen.status, seen.found) == (WARN, "upshim listens, and cannot reach the server: its log says why")
        with serving(update_server, address=("127.0.0.1", port)):
            until(lambda: health(proxy)[0] == 200)
            assert body_of(exchange(proxy.port, check_request())) == answer_body()
        proxy.stop()  # with all it had to tell
    assert proxy.log.count(b"the server cannot be reached from here: ") == 1
    assert proxy.log.count(b"the server can be reached again") == 1


def test_a_server_whose_certificate_is_not_trusted_is_not_reached(tmp_path: Path) -> None:
    others = tmp_path / "others.pem"
    others.write_text(pem(ROOT))
    with (
        serving_tls(tmp_path) as port,
        running("upshim", f"https://localhost:{port}", tmp_path / "s", server_ca=others, admin="127.0.0.1:0") as proxy,
    ):
        numbers = get(admin_port(proxy), "/metrics")[1]
        assert b"\nupshim_server_unreachable 0.0\n" in numbers
        assert status_of(exchange(proxy.port, check_request())) == 502
        until(lambda: health(proxy)[0] == 503)
        assert b"\nupshim_server_unreachable 1.0\n" in get(admin_port(proxy), "/metrics")[1]
        assert b'"server_unreachable": "localhost:' in get(admin_port(proxy), "/health")[1]
        seen = doctor_running.running(f"127.0.0.1:{admin_port(proxy)}", None, None)
        assert [one.status for one in seen if "cannot reach the server" in one.found] == [PROBLEM]


@asynccontextmanager
async def watching(*ports: int) -> AsyncIterator[UpstreamWatch]:
    watch = UpstreamWatch(Failures(), ssl.create_default_context)
    watch.configure(("http", "127.0.0.1", port) for port in ports)
    try:
        yield watch
    finally:
        watch.close()


async def asked(watch: UpstreamWatch) -> None:
    """Until the question under way is answered."""
    async with asyncio.timeout(WITHIN):
        while watch._asking is not None and not watch.unreachable:
            await asyncio.sleep(0.01)


def test_what_failed_once_is_no_reason_while_a_server_can_be_reached() -> None:
    async def run(ports: list[int]) -> str:
        async with watching(*ports) as watch:
            watch.failed()
            assert watch._asking is not None
            await asked(watch)
            return watch.unreachable

    gone = [free_port(), free_port()]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        here = listener.getsockname()[1]
        assert asyncio.run(run([here])) == ""
        assert asyncio.run(run([gone[0], here])) == ""
    assert asyncio.run(run(gone)) == f"127.0.0.1:{gone[0]}: Connection refused"


def test_those_who_make_exchanges_fail_do_not_make_it_ask_without_end() -> None:
    async def run(port: int) -> list[bool]:
        asks = []
        async with watching(port) as watch:
            now = 0.0
            watch._clock = lambda: now
            for now in (10.0, 10.0, 10.0 + upstream_watch.ASK_EVERY):  # noqa: B007 - the clock's
                watch.failed()
                asks.append(watch._asking is not None)
                await asked(watch)
        return asks

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(run(listener.getsockname()[1])) == [True, False, True]


def test_phones_own_destinations_are_not_asked() -> None:
    async def run() -> None:
        async with watching() as watch:
            watch.failed()
            assert watch._asking is None

    asyncio.run(run())
