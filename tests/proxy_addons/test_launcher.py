"""`upshim proxy` as a service: several addresses, health and metrics, and an end that cuts nobody off."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.bodies import CHECK_TARGET, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.conftest import ROOT
from tests.proxies import KINDS, Proxy, command, running
from tests.servers import Received, message, serving

HEALTH = "/__upshim/health"


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml") if request.method == "POST" else message(b"firmware" * 4096)


def get(port: int, path: str, host: str = "127.0.0.1", **headers: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(host, port, timeout=20)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def admin_port(proxy: Proxy) -> int:
    match = re.search(rb"admin listener at http://[^\s]*:(\d+)", proxy.log)
    assert match is not None, proxy.log
    return int(match[1])


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_the_health_check_is_answered_here_and_nothing_else(kind: str, tmp_path: Path) -> None:
    with serving(update_server) as server, running(kind, server.url, tmp_path / "s", record=tmp_path / "rec") as proxy:
        assert get(proxy.port, HEALTH) == (200, b'{"status":"ok"}\n')
        assert server.received == []
        assert get(proxy.port, HEALTH + "?")[1].startswith(b"firmware")
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as connection:
            connection.request("POST", HEALTH, b"x")
            assert connection.getresponse().read() == answer_body()
        assert [request.target for request in server.received] == [HEALTH + "?", HEALTH]


def test_before_an_https_server_too_only_tcp_is_listened_for(tmp_path: Path) -> None:
    with running("upshim", "https://127.0.0.1:1", tmp_path) as proxy, socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", proxy.port))
        assert proxy.log.count(b"listening on") == 1


def test_metrics_and_health_on_their_own_listener(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(OFFER_NEXT)
    options = {"rules": rules, "record": tmp_path / "rec", "admin": "127.0.0.1:0"}
    with serving(update_server) as server, running("upshim", server.url, tmp_path / "s", **options) as proxy:
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
            for body in (check_body(), b"not xml"):
                phone.request("POST", CHECK_TARGET, body)
                phone.getresponse().read()
            phone.request("GET", "/x.nbt")
            assert len(phone.getresponse().read()) == 32768
            status, text = get(admin_port(proxy), "/metrics")
        assert status == 200
        samples = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(text.decode())
            for sample in family.samples
        }
        offers = {name: value for name, value in samples.items() if name[0] == "upshim_checks_total"}
        assert {name[1:]: value for name, value in offers.items() if "stuck" in name} == {("offer", "no", "stuck"): 1}
        assert sum(offers.values()) == 2
        assert samples["upshim_rewrites_total", "response"] == 1
        assert samples["upshim_streamed_bytes_total", "response"] >= 32768
        assert samples["upshim_exchanges_total", "check", "answered"] == 2
        assert samples["upshim_exchanges_total", "other", "answered"] == 1
        assert samples["upshim_handling_seconds_count", "request"] == 2
        assert samples["upshim_handling_seconds_count", "response"] == 1
        assert samples["upshim_upstream_seconds_count", "check"] == 2
        assert samples["upshim_rules",] == 1
        assert samples["upshim_fail_open_total",] == 0
        assert samples["upshim_connections",] == 1
        status, body = get(admin_port(proxy), "/health")
        assert status == 200
        assert json.loads(body)["status"] == "ok"
        assert get(admin_port(proxy), HEALTH)[0] == 404


def test_two_addresses_one_of_them_ipv6(tmp_path: Path) -> None:
    with serving(update_server) as server, running("upshim", server.url, tmp_path, listen="[::1]:0") as proxy:
        wait_for(lambda: proxy.log.count(b"listening on") == 2)
        found = re.findall(rb"listening on (\S+):(\d+)", proxy.log)
        assert sorted(host for host, _ in found) == [b"127.0.0.1", b"[::1]"]
        for host, port in found:
            assert get(int(port), "/x", host.decode().strip("[]"))[0] == 200


def test_a_download_completes_after_sigterm(tmp_path: Path) -> None:
    going, half = threading.Event(), b"x" * (1 << 20)

    def slow(request: Received) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (2 * len(half)) + half
        assert going.wait(20)
        yield half

    with serving(slow) as server, running("upshim", server.url, tmp_path, admin="127.0.0.1:0") as proxy:
        admin = admin_port(proxy)
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
            phone.request("GET", "/CPE.nbt")
            response = phone.getresponse()
            first = response.read(len(half))
            proxy.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(proxy.port))
            status, body = get(admin, "/health")
            assert (status, json.loads(body)["exchanges_in_flight"]) == (503, 1)
            going.set()
            assert first + response.read() == half + half
        assert proxy.process.wait(15) == 0


@pytest.mark.parametrize("options", [{}, {"drain": 0.2}])
def test_a_second_sigterm_and_the_limit_end_at_once(options: dict[str, float], tmp_path: Path) -> None:
    forever = threading.Event()

    def never(request: Received) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx"
        forever.wait(30)

    try:
        with (
            serving(never) as server,
            running("upshim", server.url, tmp_path, **options) as proxy,
            closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone,
        ):
            phone.request("GET", "/CPE.nbt")
            phone.getresponse()
            proxy.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(proxy.port))
            if not options:
                assert proxy.process.poll() is None
                proxy.process.send_signal(signal.SIGTERM)
            assert proxy.process.wait(10) == 0
    finally:
        forever.set()


def test_a_connection_kept_alive_is_served_and_then_closed(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(REPORT_ZERO)
    with serving(update_server) as server, running("upshim", server.url, tmp_path / "s", rules=rules) as proxy:
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
            phone.request("POST", CHECK_TARGET, check_body())
            answer = phone.getresponse()
            assert answer.getheader("Connection") is None
            answer.read()
            proxy.process.send_signal(signal.SIGTERM)
            wait_for(lambda: refused(proxy.port))
            phone.request("POST", CHECK_TARGET, check_body())
            answer = phone.getresponse()
            assert answer.getheader("Connection") == "close"
            assert answer.read() == answer_body()
        assert proxy.process.wait(15) == 0
        assert b'Version="0.0.0.0"' in server.received[1].body


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
def test_signals_while_it_starts(number: signal.Signals, tmp_path: Path) -> None:
    words = command("upshim", "http://127.0.0.1:1", tmp_path)
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT)
    proxy = Proxy(process)
    try:
        # From the moment on at which it is our command and no longer Python's own start.
        wait_for(lambda: caught(process.pid, signal.SIGHUP))
        assert not proxy.port
        process.send_signal(number)
        if number == signal.SIGTERM:
            assert process.wait(15) == -signal.SIGTERM
            return
        proxy.wait_until_listening()
        if number == signal.SIGUSR1:
            wait_for(lambda: b"switched off by signal" in proxy.log)
        assert get(proxy.port, HEALTH)[0] == 200
        assert proxy.stop() == 0
    finally:
        process.kill()
        process.wait(15)
        proxy._reader.join(15)
        assert process.stdout is not None
        process.stdout.close()


def caught(pid: int, number: signal.Signals) -> bool:
    """Whether a process handles a signal."""
    match = re.search(r"^SigCgt:\s+(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return match is not None and bool(int(match[1], 16) >> (number - 1) & 1)


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "100000")
        with serving(update_server) as server, running("upshim", server.url, tmp_path / "s") as proxy:
            assert manager.recv(100) == b"READY=1"
            assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            proxy.process.send_signal(signal.SIGTERM)
            while (state := manager.recv(100)) == b"WATCHDOG=1":
                pass
            assert state == b"STOPPING=1"
            assert proxy.process.wait(15) == 0
