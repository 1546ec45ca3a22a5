"""Limits and the kill switch in a real `upshim proxy`, over a crash."""

from __future__ import annotations

import http.client
import re
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest

from proxy_addons.kill_switch import KillSwitch
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.proxies import Proxy, running
from tests.servers import Server, message, serving
from tools.cli import main


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


def test_the_kill_switch_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules, switch, token = tmp_path / "rules.toml", tmp_path / "stop", tmp_path / "token"
    rules.write_text(REPORT_ZERO)
    token.write_text("secret\n")
    options = {"rules": rules, "kill_switch": switch, "admin": "127.0.0.1:0", "admin_token": token}
    with serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as server:
        with running("upshim", server.url, tmp_path, **options) as proxy:
            wait_for(proxy, b"admin listener at")
            admin = re.search(rb"admin listener at http://(\S+)", proxy.log)
            assert admin is not None
            at = ["--admin", admin[1].decode(), "--admin-token", str(token)]
            phone = ["--model", "CX700", "--version", "1.0.522.73"]
            assert reported_zero(server, proxy)
            assert main(["rules", "stop", "--admin", at[1]]) == 2  # without the token
            assert reported_zero(server, proxy)
            assert main(["rules", "stop", *at]) == 0
            assert not reported_zero(server, proxy)
            assert main(["rules", "explain", str(rules), *phone, *at]) == 1
            assert "kill_switch: switched off by command" in capsys.readouterr().out
            assert main(["rules", "start", *at]) == 0
            assert reported_zero(server, proxy)
            assert main(["rules", "stop", *at]) == 0
            proxy.kill()
        with running("upshim", server.url, tmp_path, **options) as proxy:
            assert not reported_zero(server, proxy)  # what was stopped stays so
            assert main(["rules", "start", "--kill-switch", str(switch)]) == 0
            assert reported_zero(server, proxy)


def test_a_kill_switch_that_could_not_be_pulled_is_refused(tmp_path: Path) -> None:
    switch = KillSwitch()
    for wrong in (tmp_path / "no" / "stop", tmp_path, Path("/dev/null/stop")):
        with pytest.raises(OSError, match=r"."):
            switch.watch(wrong)
    assert switch.file is None


def test_a_file_that_holds_something_is_not_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    switch = KillSwitch()
    file = tmp_path / "rules.toml"
    file.write_text("# rules")
    switch.watch(file)
    assert f"switched off: {file} exists" in caplog.text, "it says so at the start"
    assert switch.start() == f"{file} exists"
    assert file.read_text() == "# rules"


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
