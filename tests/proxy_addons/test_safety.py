"""Limits and the kill switch in a real `upshim proxy`, over a crash."""

from __future__ import annotations

import http.client
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import pytest

from proxy_addons.kill_switch import KEPT, KillSwitch
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.proxies import Proxy, command, running, started
from tests.servers import Received, Server, message, serving
from tools.cli import main
from tools.ports import free_port


def ask(proxy: Proxy) -> bytes:
    with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
        phone.request("POST", CHECK_TARGET, check_body(), {"Content-Type": "text/xml"})
        return phone.getresponse().read()


def reported_zero(server: Server, proxy: Proxy) -> bool:
    ask(proxy)
    return b'"0.0.0.0"' in server.received[-1].body


def wait_for(proxy: Proxy, said: bytes, times: int = 1) -> None:
    deadline = time.monotonic() + 20
    while proxy.log.count(said) < times:
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
    with (
        serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as server,
        running("upshim", server.url, tmp_path, **options) as proxy,
    ):
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
        switch.touch()
        assert not reported_zero(server, proxy)
        assert main(["rules", "start", *at]) == 0  # whatever it was that stopped it
        assert reported_zero(server, proxy)


def test_what_was_stopped_by_command_or_signal_outlives_the_process(tmp_path: Path) -> None:
    rules, state, admin = tmp_path / "rules.toml", tmp_path / "s", f"127.0.0.1:{free_port()}"
    rules.write_text(REPORT_ZERO)
    options = {"rules": rules, "admin": admin}

    def restarted(*, stopped: bool) -> AbstractContextManager[Proxy]:
        proxy.kill()
        assert (state / KEPT).exists() is stopped
        return running("upshim", server.url, state, **options)

    with serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as server, ExitStack() as stack:
        proxy = stack.enter_context(running("upshim", server.url, state, **options))
        assert reported_zero(server, proxy)
        assert main(["rules", "stop", "--admin", admin, "--why", "bad image"]) == 0
        assert (state / KEPT).stat().st_mode & 0o777 == 0o600
        proxy = stack.enter_context(restarted(stopped=True))
        wait_for(proxy, b"rewriting is switched off: switched off by command since 2")
        wait_for(proxy, b": bad image")
        assert not reported_zero(server, proxy)
        assert main(["rules", "start", "--admin", admin]) == 0
        assert reported_zero(server, proxy)
        proxy = stack.enter_context(restarted(stopped=False))
        assert reported_zero(server, proxy)
        proxy.process.send_signal(signal.SIGUSR1)
        wait_for(proxy, b"rewriting is switched off")
        proxy = stack.enter_context(restarted(stopped=True))
        assert not reported_zero(server, proxy)
        proxy.process.send_signal(signal.SIGUSR1)
        wait_for(proxy, b"rewriting is switched on")
        proxy = stack.enter_context(restarted(stopped=False))
        assert reported_zero(server, proxy)
        assert b"switched" not in proxy.log


def test_what_is_stopped_stays_so_over_a_hand_over(tmp_path: Path) -> None:
    rules, admin, port = tmp_path / "rules.toml", f"127.0.0.1:{free_port()}", free_port()
    rules.write_text(REPORT_ZERO)
    going, asked = threading.Event(), threading.Event()

    def server_of(request: Received) -> Iterator[bytes]:
        if request.method == "GET":
            asked.set()
            assert going.wait(30)
        yield message(answer_body(), "Content-Type: text/xml")

    words = command("upshim", "", tmp_path / "s", rules=rules, admin=admin)
    with serving(server_of) as server, ExitStack() as stack:
        words = [{"": server.url, "127.0.0.1:0": f"127.0.0.1:{port}"}.get(word, word) for word in words]
        old = stack.enter_context(started(words))
        phone = stack.enter_context(closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)))
        phone.request("GET", "/CPE.nbt")  # is under way, and keeps the old one alive
        assert asked.wait(20)
        assert main(["rules", "stop", "--admin", admin]) == 0
        new = stack.enter_context(started([*words, "--hand-over"]))
        wait_for(old, b"replaced by another process")
        assert not reported_zero(server, new)
        # Given to the one that goes, it holds for the one that stays.
        old.process.send_signal(signal.SIGUSR1)
        wait_for(old, b"rewriting is switched on")
        assert reported_zero(server, new)
        old.process.send_signal(signal.SIGUSR1)
        wait_for(new, b"rewriting is switched off: switched off by signal")
        assert not reported_zero(server, new)
        going.set()
        assert phone.getresponse().read() == answer_body()
        assert old.process.wait(30) == 0
        assert not reported_zero(server, new)
        assert main(["rules", "start", "--admin", admin]) == 0
        assert reported_zero(server, new)


def test_a_stop_that_cannot_be_kept_is_one_all_the_same(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    switch = KillSwitch()
    switch.keep_in(tmp_path / "not there")
    assert "switched off by command" in switch.stop("command")
    assert "not beyond a restart" in caplog.text
    assert switch.start() == ""
    (tmp_path / KEPT).touch()  # by a disk that had no room for more
    switch.keep_in(tmp_path)
    assert switch.why() == f"{tmp_path / KEPT} exists"
    assert switch.start() == ""
    assert switch.stop("command", "amy: bad image").endswith(": amy: bad image")
    assert switch.stop("signal").endswith(": amy: bad image"), "who was first"
    assert KillSwitch().why() == ""
    assert (tmp_path / KEPT).read_text().count("\n") == 1


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
        wait_for(proxy, b"rewriting is switched off: " + str(switch).encode())  # without anybody asking
        assert not reported_zero(server, proxy)
        switch.unlink()
        assert reported_zero(server, proxy)
        wait_for(proxy, b"rewriting is switched on")
        assert proxy.log.count(b"rewriting is switched") == 2
        proxy.process.send_signal(signal.SIGUSR1)
        wait_for(proxy, b"switched off: switched off by signal")
        assert not reported_zero(server, proxy)
        proxy.process.send_signal(signal.SIGUSR1)
        wait_for(proxy, b"switched on", times=2)
        assert reported_zero(server, proxy)
