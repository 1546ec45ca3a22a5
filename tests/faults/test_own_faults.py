"""What a phone sees and what is recorded when upshim itself, or the machine it runs on, fails.

The end of the process is tested in tests/proxy_addons: kill -9 (test_in_mitmproxy.py, test_safety.py) and SIGTERM
(test_launcher.py); shims that die behind HAProxy in tests/tools/test_deploy.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from captures.errors import StoreError
from captures.exchange import Exchange
from captures.store import Store
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.conftest import ROOT, cannot_run, require_tool
from tests.faults.raw import body_of, check_request, exchange, status_of, until
from tests.proxies import Proxy, command, running, started
from tests.proxy_addons.test_launcher import admin_port, get
from tests.proxy_addons.test_metrics import samples
from tests.servers import Received, Server, message, serving
from tools.bench.proxy_targets import family

CHECK = check_request()
FIRMWARE = b"GET /DeviceUpdateFiles_Int/CPE.nbt HTTP/1.1\r\nHost: dus\r\nConnection: close\r\n\r\n"
CHUNKED = (
    f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: dus\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    + b"%x\r\n%s\r\n0\r\n\r\n" % (len(check_body()), check_body())
)
IMAGE = bytes(range(256)) * 2048


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml") if request.method == "POST" else message(IMAGE)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(update_server) as running_server:
        yield running_server


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(REPORT_ZERO)
    return path


class Place:
    """A proxy into which faults can be put, and taken out again."""

    def __init__(self, proxy: Proxy, server: Server, folder: Path) -> None:
        self.proxy, self.server, self.record = proxy, server, folder / "rec"
        self._file = folder / "fault"

    @contextmanager
    def fault(self, name: str) -> Iterator[None]:
        self._file.write_text(name)
        try:
            yield
        finally:
            self._file.write_text("")

    def ask(self, request: bytes = CHECK) -> bytes:
        return body_of(exchange(self.proxy.port, request))

    def settled(self) -> list[Exchange]:
        """What is recorded once all that was asked so far is; the last is a check of its own, made by the rule."""
        mark = ("X-Mark", str(len(self.server.received)))
        assert INTERIM.encode() in self.ask(check_request(CHECK_TARGET, ": ".join(mark)))
        exchanges: list[Exchange] = []

        def there() -> bool:
            exchanges[:] = recorded(self.record)
            return bool(exchanges) and mark in exchanges[-1].request.headers

        until(there)
        assert exchanges[-1].rewritten_response is not None
        return exchanges

    def trouble(self) -> float:
        """What went wrong so far, as the metrics tell it."""
        return metric(self.proxy, "upshim_fail_open_total") + metric(self.proxy, "upshim_recording_lost_total")


@pytest.fixture(scope="module")
def shared(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("own")
    rules = folder / "rules.toml"
    rules.write_text(OFFER_NEXT)
    words = command("upshim", server.url, folder / "s", rules=rules, record=folder / "rec", admin="127.0.0.1:0")
    with started([words[0], "-m", "tests.faults.sabotage", str(folder / "fault"), *words[3:]]) as proxy:
        yield Place(proxy, server, folder)


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    yield shared
    shared.settled()  # all is well again


def metric(proxy: Proxy, name: str) -> float:
    """A metric, summed over its labels."""
    status, text = get(admin_port(proxy), "/metrics")
    assert status == 200
    return sum(value for (sample, _), value in samples(text).items() if sample == name)


def limit_files(proxy: Proxy, size: int) -> None:
    """No file of the proxy, nor of the process that writes for it, grows beyond a size."""
    for pid in family(proxy.process.pid):
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def recorded(folder: Path) -> list[Exchange]:
    with closing(Store.open(folder)) as store:
        return list(store.exchanges())


def sound(answer: bytes) -> bool:
    """The server's own answer, or the one that the rule makes of it."""
    return answer == answer_body() or INTERIM.encode() in answer


def told_often(proxy: Proxy, times: int) -> bool:
    return proxy.log.count(b"the old rules stay in force") == times


def told_zero(server: Server) -> bool:
    return b'"0.0.0.0"' in server.received[-1].body


BUGS = ("decoder", "endless decoder", "greedy decoder", "decoder of answers", "heads", "stream", "history",
        "recorder", "writer")  # fmt: skip


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_of_ours(bug: str, place: Place) -> None:
    before = place.trouble()
    known = len(place.settled())
    untouched = bug not in {"recorder", "writer", "stream"}  # what is decided does not depend on what is kept
    with place.fault(bug):
        for request in (CHECK, CHUNKED, FIRMWARE):
            direct = body_of(exchange(place.server.port, request))
            through = place.ask(request)
            assert through == direct or (not untouched and sound(through))
            assert place.server.received[-1].body == place.server.received[-2].body
        until(lambda: place.trouble() > before)
    if untouched and bug != "heads":
        assert len(place.settled()) == known + 4
    assert place.proxy.log.count(b"crashed") == 0


def test_a_disk_that_hangs(place: Place) -> None:
    before = place.settled()
    with place.fault("hung disk"):
        for request in (CHECK, CHUNKED, CHECK):
            assert sound(place.ask(request))
        assert place.ask(FIRMWARE) == IMAGE
        assert metric(place.proxy, "upshim_recording_waiting") >= 4
        assert metric(place.proxy, "upshim_recording_lag_seconds") > 0
        until(lambda: b"late record" in place.proxy.log)
        assert recorded(place.record) == before
    assert len(place.settled()) == len(before) + 5  # nothing was lost, it was late


@pytest.mark.parametrize("seconds", [86_400, -86_400])
def test_a_clock_that_jumps(seconds: int, place: Place) -> None:
    trouble, known = place.trouble(), len(place.settled())
    fault = place.fault(f"clock {seconds}")

    def jump(request: Received) -> Iterator[bytes]:
        fault.__enter__()
        yield from update_server(request)

    place.server.reply = jump
    try:
        assert sound(place.ask())
        place.server.reply = update_server
        assert place.ask(FIRMWARE) == IMAGE
        assert sound(place.ask(CHUNKED))
        exchanges = place.settled()
    finally:
        place.server.reply = update_server
        fault.__exit__(None, None, None)
    assert len(exchanges) == known + 4
    assert all(one.complete for one in exchanges[known:])
    assert round((exchanges[-1].started - exchanges[known - 1].started).total_seconds() / 86_400) == seconds / 86_400
    assert [one.index for one in exchanges] == list(range(exchanges[0].index, exchanges[-1].index + 1))
    assert place.trouble() == trouble


@contextmanager
def small_disk(folder: Path, words: list[str]) -> Iterator[tuple[Proxy, Path]]:
    """A proxy in whose eyes, and nobody else's, a folder is a disk of 3 MB; and where others find that."""
    if os.geteuid():
        cannot_run("only root mounts a small disk")
    folder.mkdir()
    inside = [
        require_tool("unshare"),
        "-m",
        "sh",
        "-c",
        'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"',
        str(folder),
    ]
    tried = subprocess.run([*inside, "true"], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode:
        cannot_run(f"no small disk can be mounted here: {tried.stderr.strip()}")
    with started([*inside, *words]) as proxy:
        yield proxy, Path(f"/proc/{proxy.process.pid}/root{folder}")


def fill(file: Path) -> None:
    """Take what room there is."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as full:
        while True:
            full.write(bytes(4096))


def told_there(proxy: Proxy, folder: Path) -> list[dict[str, Any]]:
    """What is recorded in a folder that only the proxy sees."""
    words = [require_tool("nsenter"), "-m", "-t", str(proxy.process.pid)]
    words += [sys.executable, "-m", "tools", "exchanges", "--json", str(folder)]
    told = subprocess.run(
        words, capture_output=True, timeout=60, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    return [line for line in map(json.loads, told.stdout.splitlines()) if line["kind"] == "exchange"]


def lost(proxy: Proxy, what: str) -> float:
    """How many of these the recording lacks, as the metrics tell it."""
    _, text = get(admin_port(proxy), "/metrics")
    counts = {dict(labels).get("what", ""): value for (name, labels), value in samples(text).items() if "_lost" in name}
    return sum(count for told, count in counts.items() if told.startswith(what))


HEADERS = REPORT_ZERO.replace('then.report = "0.0.0.0"', 'then.request_headers.set = { X-New = "1" }')


@pytest.mark.parametrize("rule", [REPORT_ZERO, HEADERS], ids=["report", "headers"])
def test_a_disk_without_room(rule: str, server: Server, rules: Path, tmp_path: Path) -> None:
    rules.write_text(rule)
    disk = tmp_path / "disk"
    options = {"rules": rules, "record": disk / "rec", "admin": "127.0.0.1:0"}
    asked = 0

    def ask() -> bool:
        """Whether the check was rewritten; the answer is the server's either way."""
        nonlocal asked
        asked += 1
        check = check_request(body=check_body(mac=f"0004F20004{asked:02d}"))
        assert body_of(exchange(proxy.port, check)) == answer_body()
        return told_zero(server) or b"X-New" in server.received[-1].head

    with small_disk(disk, command("upshim", server.url, tmp_path / "s", **options)) as (proxy, there):
        assert [ask() for _ in range(3)] == [True] * 3
        before = told_there(proxy, disk / "rec")
        assert len(before) == 3
        fill(there / "full")
        # An offer has to be recorded first. A header goes on, and what comes of it cannot be recorded.
        assert ask() is (rule == HEADERS)
        until(lambda: metric(proxy, "upshim_journal_failed") == 1)
        assert [ask() for _ in range(5)] == [False] * 5
        until(lambda: lost(proxy, "exchanges: ") == 6)
        assert body_of(exchange(proxy.port, FIRMWARE)) == IMAGE
        until(lambda: lost(proxy, "exchanges: ") == 7)
        until(lambda: lost(proxy, "a body: ") == 1)
        assert lost(proxy, "") == 8
        assert told_there(proxy, disk / "rec") == before
        (there / "full").unlink()
        until(ask)
        assert metric(proxy, "upshim_journal_failed") == 0
        after = told_there(proxy, disk / "rec")
        assert after[:3] == before
        assert len(after) == asked - 6


def test_a_file_that_may_not_grow(server: Server, rules: Path, tmp_path: Path) -> None:
    options = {"rules": rules, "record": tmp_path / "rec", "admin": "127.0.0.1:0"}
    record = tmp_path / "rec"
    with running("upshim", server.url, tmp_path / "s", **options) as proxy:
        for _ in range(3):
            assert body_of(exchange(proxy.port, CHECK)) == answer_body()
        before = recorded(record)
        assert len(before) == 3
        limit_files(proxy, 0)
        for number in range(3):
            assert (
                body_of(exchange(proxy.port, check_request(body=check_body(mac=f"0004F20002{number:02d}"))))
                == answer_body()
            )
            assert not told_zero(server)  # what could not be told later is not done
        assert body_of(exchange(proxy.port, FIRMWARE)) == IMAGE
        until(lambda: metric(proxy, "upshim_journal_failed") == 1)
        until(lambda: lost(proxy, "exchanges: ") == 4)
        assert recorded(record) == before
        limit_files(proxy, resource.RLIM_INFINITY)

        def records_again() -> bool:
            assert body_of(exchange(proxy.port, CHECK)) == answer_body()
            return len(recorded(record)) > len(before)

        until(records_again)
        until(lambda: body_of(exchange(proxy.port, CHECK)) == answer_body() and told_zero(server))
        proxy.kill()
    assert recorded(record)[: len(before)] == before


def test_the_process_that_writes_the_recording_is_killed(server: Server, rules: Path, tmp_path: Path) -> None:
    record = tmp_path / "rec"
    asked = 0

    def ask() -> bool:
        """Whether the check was rewritten; the answer is the server's either way."""
        nonlocal asked
        asked += 1
        assert (
            body_of(exchange(proxy.port, check_request(body=check_body(mac=f"0004F20003{asked:02d}")))) == answer_body()
        )
        return told_zero(server)

    with running("upshim", server.url, tmp_path / "s", rules=rules, record=record, admin="127.0.0.1:0") as proxy:
        assert ask()
        _, writer = family(proxy.process.pid)
        os.kill(writer, signal.SIGKILL)
        until(lambda: not Path("/proc", str(writer)).exists())
        assert not ask()  # what could not be told later is not done
        assert body_of(exchange(proxy.port, FIRMWARE)) == IMAGE
        until(ask)
        assert b"another one goes on" in proxy.log
    assert len(recorded(record)) == asked + 1
    assert len({one.client for one in recorded(record)}) == asked + 1


def test_a_recording_that_is_taken_away(server: Server, rules: Path, tmp_path: Path) -> None:
    record = tmp_path / "rec"
    options = {"rules": rules, "record": record, "admin": "127.0.0.1:0"}
    with running("upshim", server.url, tmp_path / "s", **options) as proxy:
        assert body_of(exchange(proxy.port, CHECK)) == answer_body()
        shutil.move(record, tmp_path / "aside")
        for request in (CHECK, CHUNKED, CHECK):
            assert body_of(exchange(proxy.port, request)) == body_of(exchange(server.port, request))
        assert body_of(exchange(proxy.port, FIRMWARE)) == IMAGE
        assert status_of(exchange(proxy.port, FIRMWARE.replace(b"GET", b"HEAD"))) == 200
        assert not told_zero(server)  # what could not be told later is not done
        until(lambda: metric(proxy, "upshim_recording_lost_total") > 0)
        with pytest.raises(StoreError):
            recorded(record)
        shutil.move(tmp_path / "aside", record)
        until(lambda: body_of(exchange(proxy.port, CHECK)) == answer_body() and told_zero(server))
        shutil.move(record, tmp_path / "aside")
    assert recorded(tmp_path / "aside")[0].complete  # what had been acknowledged is still there


def test_rules_that_are_broken_while_it_runs(server: Server, rules: Path, tmp_path: Path) -> None:
    with running("upshim", server.url, tmp_path / "s", rules=rules, admin="127.0.0.1:0") as proxy:
        assert body_of(exchange(proxy.port, CHECK)) == answer_body()
        for number, broken in enumerate((REPORT_ZERO.replace("< 1", "below 1"), ""), 1):
            if broken:
                rules.write_text(broken)
            else:
                rules.unlink()
            until(partial(told_often, proxy, number))
            assert metric(proxy, "upshim_rules_reload_successful") == 0
            assert body_of(exchange(proxy.port, CHECK)) == answer_body()
            assert told_zero(server)  # the old rules stay in force
        rules.write_text(REPORT_ZERO.replace('"0.0.0.0"', '"0.0.0.1"'))  # mended
        until(lambda: body_of(exchange(proxy.port, CHECK)) == answer_body() and b"0.0.0.1" in server.received[-1].body)
    assert b"the old rules stay in force" in proxy.log


def test_a_log_that_nobody_reads(server: Server, rules: Path, tmp_path: Path) -> None:
    words = command("upshim", server.url, tmp_path / "s", rules=rules, verbose=True)
    silent, unread = os.pipe()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=unread, cwd=ROOT)
    os.close(unread)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(b":")[2])
        for _ in range(200):  # whose lines are more than a pipe holds
            assert body_of(exchange(port, CHECK)) == answer_body()
    finally:
        process.kill()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
        os.close(silent)
