"""Limits and the kill switch in a real `upshim proxy`, over a crash."""

from __future__ import annotations

import http.client
import signal
import time
from contextlib import closing
from pathlib import Path

from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.proxies import Proxy, running
from tests.servers import Server, message, serving


def ask(proxy: Proxy) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
        phone.request("POST", CHECK_TARGET, check_body(), {"Content-Type": "text/xml"})
        return phone.getresponse().read()


def reported_zero(server: Server, proxy: Proxy) -> bool:
    ask(proxy)
    return b'"0.0.0.0"' in server.received[-1].body


def wait_for(proxy: Proxy, said: bytes) -> None:
    deadline = time.monotonic() + 20
    while said not in proxy.log:
        assert time.monotonic() < deadline, proxy.log.decode()
        time.sleep(0.01)


def test_a_limit_holds_over_kill_9(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(OFFER_NEXT + "limits.per_phone_per_day = 2\n")
    options = {"rules": rules, "record": tmp_path / "rec"}
    with serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as server:
        with running("upshim", server.url, tmp_path, **options) as proxy:
            assert INTERIM.encode() in ask(proxy)
            proxy.kill()
        with running("upshim", server.url, tmp_path, **options) as proxy:
            assert INTERIM.encode() in ask(proxy)
            assert ask(proxy) == answer_body()
            proxy.kill()
        with running("upshim", server.url, tmp_path, **options) as proxy:
            assert ask(proxy) == answer_body()
            wait_for(proxy, b"daily_limit")


def test_the_kill_switch_by_file_and_by_signal(tmp_path: Path) -> None:
    rules, switch = tmp_path / "rules.toml", tmp_path / "stop"
    rules.write_text(REPORT_ZERO)
    with (
        serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as server,
        running("upshim", server.url, tmp_path, rules=rules, kill_switch=switch) as proxy,
    ):
        assert reported_zero(server, proxy)
        switch.touch()
        assert not reported_zero(server, proxy)
        switch.unlink()
        assert reported_zero(server, proxy)
        for said, expected in ((b"switched off", False), (b"switched on", True)):
            proxy.process.send_signal(signal.SIGUSR1)
            wait_for(proxy, said)
            assert reported_zero(server, proxy) is expected
