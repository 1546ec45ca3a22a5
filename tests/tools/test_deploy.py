"""`upshim deploy`: the very text it prints, run by real programs."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from captures.store import Store
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.conftest import cannot_run, require_tool
from tests.ntlm import PASSWORD, USER, NtlmServer, accounts
from tests.phone_certificates import ROOT, pem, server_context
from tests.proxies import Proxy, running
from tests.proxy_addons.test_ntlm import curl, sent
from tests.servers import Received, Server, chunked, message, serving
from tools.bench.proxy_targets import for_this_user
from tools.cli import main
from tools.deploy import KINDS, Address, Operator, address, render
from tools.errors import UnusableInput
from tools.ports import free_port

FRONTS = ("haproxy", "nginx")
EXT = "/RequestHandlerExt/ucdevice.upx"
FIRMWARE = bytes(range(256)) * 1024
CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
WORKERS = 4
HASTE = 40


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml") if request.method == "POST" else message(FIRMWARE)


class ScriptedLogin:
    """Authenticates connections in three steps, as NTLM does."""

    def __init__(self) -> None:
        self.known: set[int] = set()

    def __call__(self, request: Received) -> Iterator[bytes]:
        if b"NTLM AUTHENTICATE" in request.head:
            self.known.add(request.connection)
        if request.connection in self.known:
            yield message(b"secret")
        else:
            token = " CHALLENGE" if b"NTLM NEGOTIATE" in request.head else ""
            yield message(b"", f"WWW-Authenticate: NTLM{token}", status="401 Unauthorized")


@dataclass(frozen=True, slots=True)
class Front:
    """A running front."""

    port: int
    file: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def front(kind: str, upstream: str, shims: list[int], folder: Path) -> Iterator[int]:
    """A real HAProxy or nginx with the printed text; gives the port phones connect to."""
    with front_process(kind, upstream, shims, folder) as started:
        yield started.port


@contextlib.contextmanager
def front_process(
    kind: str,
    upstream: str,
    shims: list[int],
    folder: Path,
    change: Callable[[str], str] = str,
    server_ca: Path | None = None,
    server_oldest: str = "1.2",
) -> Iterator[Front]:
    """The same, with its process; `change` makes of the configuration what is run."""
    program = require_tool(kind)
    port = free_port()
    places = [Address("127.0.0.1", shim) for shim in shims], [Address("127.0.0.1", port)]
    text = render(kind, upstream, *places, server_ca=server_ca, server_oldest=server_oldest)
    if kind == "haproxy":
        text = for_this_user(text)
    file = folder / KINDS[kind]
    file.write_text(change(text))
    words = [program, "-W", "-db", "-f", str(file)]  # a master, as the distributions' units start it
    if kind == "nginx":
        user = "" if os.geteuid() else " user root;"
        words = [program, "-c", str(file), "-e", str(folder / "error.log")]
        words += ["-g", f"daemon off; pid {folder}/pid;{user}"]
    with listening(words, port, folder / "front.log") as process:
        yield Front(port, file, process)


def replacing(old: str, new: str) -> Callable[[str], str]:
    """A configuration with another word in one place."""

    def change(text: str) -> str:
        assert text.count(old) == 1
        return text.replace(old, new)

    return change


def in_haste(text: str) -> str:
    """A configuration that waits as for HASTE seconds when one is over: for servers and phones, not for health."""
    changed, count = re.subn(r"\b(\d{2,3})s\b", lambda found: f"{int(found[1]) * 1000 // HASTE}ms", text)
    assert count
    return changed


@contextlib.contextmanager
def listening(words: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program, once the port is open; it is ended after the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(words, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def pool(server: Server, count: int, folder: Path) -> Iterator[list[Proxy]]:
    """Shims with rules, each with a recording of its own."""
    rules = folder / "rules.toml"
    rules.write_text(REPORT_ZERO)
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                running("upshim", server.url, folder / f"s{number}", rules=rules, record=folder / f"rec{number}")
            )
            for number in range(count)
        ]


def recorded(folder: Path) -> int:
    """How many whole exchanges the recordings of a pool hold together."""
    total = 0
    for recording in folder.glob("rec?"):
        with closing(Store.open(recording)) as store:
            total += sum(exchange.complete for exchange in store.exchanges())
    return total


def phone(port: int, source: str = "127.0.0.1") -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(source, 0)))


def check(port: int, source: str = "127.0.0.1") -> bytes:
    with phone(port, source) as connection:
        connection.request("POST", CHECK_TARGET, check_body(), {"X-Forwarded-For": "6.6.6.6"})
        response = connection.getresponse()
        assert response.status == 200
        return response.read()


@pytest.mark.parametrize("kind", FRONTS)
def test_checks_through_a_shim_and_firmware_past_it(kind: str, tmp_path: Path) -> None:
    with (
        serving(update_server) as server,
        pool(server, 1, tmp_path) as (shim,),
        front(kind, server.url, [shim.port], tmp_path) as port,
    ):
        assert check(port) == answer_body()
        for folder in ("/DeviceUpdateFiles_Int", "/RequestHandler/Files"):
            with phone(port) as connection:
                connection.request("GET", f"{folder}/CPE.nbt")
                assert connection.getresponse().read() == FIRMWARE
        asked, fetched, lync = server.received
        assert b'Version="0.0.0.0"' in asked.body
        assert [line for line in asked.head.lower().split(b"\r\n") if line.startswith(b"x-forwarded-for")] == [
            b"x-forwarded-for: 127.0.0.1"
        ]
        assert b"x-forwarded-for" not in fetched.head.lower() + lync.head.lower()


@pytest.mark.parametrize(
    ("kind", "change"), [("haproxy", str), ("haproxy", replacing("maxpipes 100", "maxpipes 2")), ("nginx", str)]
)
def test_firmware_arrives_whole_however_many_fetch_it(kind: str, change: Callable[[str], str], tmp_path: Path) -> None:
    image = random.Random(1).randbytes(5_000_000)

    def files(request: Received) -> Iterator[bytes]:
        yield message(image) if b"whole" in request.head else CHUNKED_HEAD + chunked(image)

    def fetch(number: int) -> bytes:
        with phone(started.port) as connection:
            connection.request("GET", f"/RequestHandler/Files/{('whole', 'chunked')[number % 2]}.nbt")
            response = connection.getresponse()
            begun = response.read(1000)
            everybody.wait(20)  # what is not taken piles up on the way
            return begun + response.read()

    everybody = threading.Barrier(8)
    with (
        serving(files) as server,
        front_process(kind, server.url, [free_port()], tmp_path, change) as started,
        ThreadPoolExecutor(8) as phones,
    ):
        assert all(got == image for got in phones.map(fetch, range(8)))


@pytest.mark.parametrize("kind", FRONTS)
def test_all_shims_killed_under_load(kind: str, tmp_path: Path) -> None:
    with (
        serving(update_server) as server,
        pool(server, 2, tmp_path) as shims,
        front(kind, server.url, [shim.port for shim in shims], tmp_path) as port,
    ):
        with under_load(port) as load:
            load.wait_for_more()
            assert sum(load.failed) == 0
            for shim in shims:
                shim.process.send_signal(signal.SIGKILL)
            load.wait_for_more()
        assert sum(load.failed) <= WORKERS  # those in flight
        through_shims = sum(b'Version="0.0.0.0"' in request.body for request in server.received)
        assert through_shims - WORKERS <= recorded(tmp_path) <= through_shims
        assert b'Version="0.0.0.0"' not in server.received[-1].body
        assert [check(port) for _ in range(20)] == [answer_body()] * 20


class Load:
    """What workers who check all the time saw."""

    def __init__(self) -> None:
        self.ending = threading.Event()
        self.answered, self.failed = [0] * WORKERS, [0] * WORKERS
        self._threads: list[threading.Thread] = []

    def begin(self, port: int) -> None:
        """Start the workers."""
        self._threads += [threading.Thread(target=self.work, args=(number, port)) for number in range(WORKERS)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """End them."""
        self.ending.set()
        for thread in self._threads:
            thread.join(30)

    def work(self, worker: int, port: int) -> None:
        """Check until told to end."""
        while not self.ending.is_set():
            try:
                assert check(port) == answer_body()
                self.answered[worker] += 1
            except (OSError, AssertionError, http.client.HTTPException):
                self.failed[worker] += 1

    def wait_for_more(self, count: int = 10) -> None:
        """Until every worker has had that many more answers."""
        before = list(self.answered)
        wait_for(lambda: all(now >= then + count for now, then in zip(self.answered, before, strict=True)))


def check_in_pieces(connection: http.client.HTTPConnection, pause: float) -> bytes:
    """The body that many seconds after the head, as a slow line brings it."""
    body = check_body()
    connection.putrequest("POST", CHECK_TARGET)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders()
    time.sleep(pause)
    connection.send(body)
    response = connection.getresponse()
    assert response.status == 200
    return response.read()


@contextlib.contextmanager
def under_load(port: int) -> Iterator[Load]:
    load = Load()
    load.begin(port)
    try:
        yield load
    finally:
        load.end()


SOURCES = [f"127.0.0.{number}" for number in range(1, 9)]


def test_a_shim_that_hangs_is_found_by_its_health_check(tmp_path: Path) -> None:
    with (
        serving(update_server) as server,
        pool(server, 2, tmp_path) as shims,
        front("haproxy", server.url, [shim.port for shim in shims], tmp_path) as port,
    ):
        assert [check(port, source) for source in SOURCES] == [answer_body()] * len(SOURCES)
        shims[0].process.send_signal(signal.SIGSTOP)  # it goes on accepting connections
        try:
            wait_for(lambda: b"shim1 is DOWN" in (tmp_path / "front.log").read_bytes())
            assert [check(port, source) for source in SOURCES] == [answer_body()] * len(SOURCES)
            assert all(b'Version="0.0.0.0"' in request.body for request in server.received[-len(SOURCES) :])
        finally:
            shims[0].process.send_signal(signal.SIGCONT)
        wait_for(lambda: b"shim1 is UP" in (tmp_path / "front.log").read_bytes())


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", FRONTS)
def test_a_phone_whose_shim_hangs_is_answered_all_the_same(kind: str, count: int, tmp_path: Path) -> None:
    with (
        serving(update_server) as server,
        pool(server, count, tmp_path) as shims,
        front(kind, server.url, [shim.port for shim in shims], tmp_path) as port,
    ):
        for shim in shims:
            shim.process.send_signal(signal.SIGSTOP)
        try:
            with phone(port) as connection:
                assert check_in_pieces(connection, 0.3) == answer_body()
            assert b'Version="0.0.0.0"' not in server.received[-1].body
        finally:
            for shim in shims:
                shim.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [("haproxy", str, signal.SIGSTOP), ("haproxy", str, signal.SIGTERM), ("nginx", in_haste, signal.SIGSTOP)],
)
def test_shims_that_fail_while_one_has_a_check(
    kind: str, change: Callable[[str], str], told: signal.Signals, tmp_path: Path
) -> None:
    """HAProxy takes the check back as soon as it knows; nginx when no server would take as long."""
    arrived, over = threading.Event(), threading.Event()

    def slow_at_first(_: Received) -> Iterator[bytes]:
        if not arrived.is_set():
            arrived.set()
            over.wait(20)
        yield message(answer_body())

    with (
        serving(slow_at_first) as server,
        pool(server, 2, tmp_path) as shims,
        front_process(kind, server.url, [shim.port for shim in shims], tmp_path, change) as started,
        ThreadPoolExecutor(1) as phones,
    ):
        answer = phones.submit(check, started.port)
        assert arrived.wait(20)
        for shim in shims:
            shim.process.send_signal(told)
        try:
            assert answer.result(12) == answer_body()
            assert len(server.received) == 2
        finally:
            over.set()
            for shim in shims:
                shim.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("kind", FRONTS)
def test_a_shim_that_is_gone_without_a_word(kind: str, tmp_path: Path) -> None:
    """As a machine that was switched off: phones whose connection to it is being made are answered, too."""
    with (
        serving(update_server) as server,
        socket.create_server(("127.0.0.1", 0), backlog=0) as silent,
        ExitStack() as held,
        ThreadPoolExecutor(8) as phones,
    ):
        port: int = silent.getsockname()[1]
        for _ in range(3):  # its queue is full from now on
            one = held.enter_context(socket.socket())
            one.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                one.connect(("127.0.0.1", port))
        with front(kind, server.url, [port], tmp_path) as front_port:
            assert list(phones.map(check, [front_port] * 40)) == [answer_body()] * 40


@pytest.mark.parametrize("kind", FRONTS)
def test_a_server_that_takes_its_time_is_asked_once(kind: str, tmp_path: Path) -> None:
    """As ASP.NET lets it: 110 s. The phone hears what it says, not what the front thinks of it."""

    def slow(request: Received) -> Iterator[bytes]:
        time.sleep(110 / HASTE)
        yield from update_server(request)

    with (
        serving(slow) as server,
        pool(server, 2, tmp_path) as shims,
        front_process(kind, server.url, [shim.port for shim in shims], tmp_path, in_haste) as started,
    ):
        assert check(started.port) == answer_body()
        with phone(started.port) as connection:
            connection.request("GET", "/DeviceUpdateFiles_Int/CPE.nbt")
            assert connection.getresponse().read() == FIRMWARE
        assert [request.method for request in server.received] == ["POST", "GET"]


@pytest.mark.parametrize("kind", FRONTS)
def test_a_phone_that_takes_its_time_is_waited_for(kind: str, tmp_path: Path) -> None:
    """For a request and for the next one, as IIS does for 120 s."""
    with (
        serving(update_server) as server,
        pool(server, 1, tmp_path) as (shim,),
        front_process(kind, server.url, [shim.port], tmp_path, in_haste) as started,
        phone(started.port) as kept,
    ):
        assert check_in_pieces(kept, 100 / HASTE) == answer_body()
        local = kept.sock.getsockname()
        time.sleep(130 / HASTE)
        assert check_in_pieces(kept, 0) == answer_body()
        assert kept.sock.getsockname() == local


def test_one_address_has_half_of_the_connections(tmp_path: Path) -> None:
    with (
        serving(update_server) as server,
        front_process("haproxy", server.url, [free_port()], tmp_path, replacing("gt 2048", "gt 3")) as started,
        ExitStack() as held,
    ):
        slow = [held.enter_context(closing(socket.create_connection(("127.0.0.1", started.port)))) for _ in range(4)]
        ((closed,), _, _) = select.select(slow, [], [], 20)
        with contextlib.suppress(ConnectionResetError):
            assert closed.recv(1) == b""
        assert check(started.port, "127.0.0.2") == answer_body()
        for one in slow:
            if one is not closed:
                one.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                assert one.recv(12) == b"HTTP/1.1 200"


def shim_of_each(sources: list[str], port: int, logs: list[Path]) -> dict[str, int]:
    """Which shim each phone's check came by, as the recordings tell it."""
    before = [seen(log) for log in logs]
    assert [check(port, source) for source in sources] == [answer_body()] * len(sources)
    new = [seen(log)[len(then) :] for log, then in zip(logs, before, strict=True)]
    return {client: number for number, clients in enumerate(new) for client in clients}


def seen(recording: Path) -> list[str]:
    """The addresses of the phones in a recording."""
    with closing(Store.open(recording)) as store:
        return [exchange.client.rpartition(":")[0] for exchange in store.exchanges()]


@pytest.mark.parametrize("kind", FRONTS)
def test_a_phone_meets_the_same_shim_again(kind: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(update_server))
        recordings = [tmp_path / f"rec{number}" for number in range(3)]
        shims = [
            stack.enter_context(
                running("upshim", server.url, tmp_path / f"s{number}", record=recording, trust_forwarded="127.0.0.1")
            )
            for number, recording in enumerate(recordings)
        ]
        port = stack.enter_context(front(kind, server.url, [shim.port for shim in shims], tmp_path))
        sources = [f"127.0.{number}.7" for number in range(1, 25)]
        first = shim_of_each(sources, port, recordings)
        assert sorted(first) == sorted(sources)  # the shims know the phones' own addresses
        assert set(first.values()) == {0, 1, 2}
        assert shim_of_each(sources, port, recordings) == first
        # When one shim dies, only its phones move.
        shims[2].process.send_signal(signal.SIGKILL)
        shims[2].process.wait(20)
        moved = shim_of_each(sources, port, recordings)
        assert {source: shim for source, shim in moved.items() if first[source] != 2} == {
            source: shim for source, shim in first.items() if shim != 2
        }
        assert set(moved.values()) == {0, 1}


def test_a_reload_under_load_costs_nobody_an_answer(tmp_path: Path) -> None:
    with (
        serving(update_server) as server,
        pool(server, 2, tmp_path) as shims,
        front_process("haproxy", server.url, [shim.port for shim in shims], tmp_path) as haproxy,
        under_load(haproxy.port) as load,
    ):
        load.wait_for_more()
        text = haproxy.file.read_text()
        for timeout in ("119s", "118s"):
            haproxy.file.write_text(replacing("timeout server 120s", f"timeout server {timeout}")(text))
            haproxy.process.send_signal(signal.SIGUSR2)
            load.wait_for_more()
        load.end()
        assert sum(load.failed) == 0
        assert recorded(tmp_path) == sum(load.answered)


@pytest.mark.parametrize("kind", FRONTS)
def test_a_real_login_through_a_front(kind: str, tmp_path: Path) -> None:
    demanding = NtlmServer(answer_body())
    with (
        accounts(tmp_path),
        serving(demanding) as server,
        pool(server, 2, tmp_path) as shims,
        front(kind, server.url, [shim.port for shim in shims], tmp_path) as port,
    ):
        answers = curl(port, tmp_path, "--ntlm", "-u", f"{USER}:{PASSWORD}", times=2)
        if kind == "haproxy":
            assert answers == ["200 1", "200 0"]
            assert sent(server)[1:] == [(1, b"0.0.0.0")] * 2
        else:
            assert {answer.split()[0] for answer in answers} == {"401"}  # nginx cannot: its text says so
        assert curl(port, tmp_path) == ["401 1"]


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + 60
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def statuses(port: int, *tokens: str) -> list[int]:
    """The answers to checks with these tokens, all on one connection."""
    found = []
    with phone(port) as connection:
        for token in tokens:
            headers = {"Authorization": f"NTLM {token}"} if token else {}
            connection.request("POST", EXT, check_body(), headers)
            response = connection.getresponse()
            response.read()
            found.append(response.status)
    return found


@pytest.mark.parametrize("kind", FRONTS)
def test_authentication_belongs_to_the_phone_that_gave_it(kind: str, tmp_path: Path) -> None:
    with (
        serving(ScriptedLogin()) as server,
        pool(server, 1, tmp_path) as (shim,),
        front(kind, server.url, [shim.port], tmp_path) as port,
    ):
        with phone(port) as first:
            for token, status in (("NEGOTIATE", 401), ("AUTHENTICATE", 200)):
                first.request("POST", EXT, check_body(), {"Authorization": f"NTLM {token}"})
                response = first.getresponse()
                response.read()
                assert response.status == status
            # The first phone's connection is still open, and its authentication is of no use to others.
            assert [statuses(port, "") for _ in range(5)] == [[401]] * 5
            first.request("POST", EXT, check_body())
            response = first.getresponse()
            assert response.status == (200 if kind == "haproxy" else 401)  # nginx cannot: its text says so
            response.read()
        assert [statuses(port, "") for _ in range(5)] == [[401]] * 5
        if kind == "haproxy":
            assert statuses(port, "NEGOTIATE", "AUTHENTICATE", "") == [401, 200, 200]


@pytest.mark.parametrize("mode", ["reverse", "transparent"])
def test_the_unit_is_what_systemd_expects(mode: str, tmp_path: Path) -> None:
    program = require_tool("systemd-analyze")
    unit = tmp_path / "upshim.service"
    listen = [Address("*", 80), Address("::", 80)]
    certs = Path("/etc/phones.pem") if mode == "transparent" else None
    places = [Address("127.0.0.1", 8080)], listen
    rules = Path("/etc/upshim/rules.toml")
    operator = Operator(token=Path("/etc/upshim/token")) if certs else None
    options = {"program": Path("/bin/true"), "certs": certs, "rules": rules, "mode": mode, "operator": operator}
    text = render("systemd", "http://10.0.0.5", *places, **options)  # type: ignore[arg-type]
    assert "ExecStart=/bin/true proxy --upstream http://10.0.0.5:80 --listen 0.0.0.0:80 --listen [::]:80 " in text
    assert " --rules /etc/upshim/rules.toml " in text
    # The file itself, not systemd's copy of it: a new one is to be seen.
    assert ("--mode transparent --certs /etc/phones.pem" in text) is (mode == "transparent")
    assert ("\nSupplementaryGroups=upshim-certs\n" in text) is (mode == "transparent")
    assert (" --admin 127.0.0.1:9180 --admin-token %d/admin-token " in text) is (mode == "transparent")
    assert ("\nLoadCredential=admin-token:/etc/upshim/token\n" in text) is (mode == "transparent")
    unit.write_text(text)
    ended = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    if "Failed to" in ended.stderr and "upshim.service" not in ended.stderr:
        cannot_run(f"systemd-analyze does not run here: {ended.stderr.splitlines()[0]}")
    assert [line for line in ended.stderr.splitlines() if "upshim.service" in line] == []
    # At most 2.5 of 10 on systemd's scale of what a service could do to its machine.
    words = [program, "security", "--offline=true", "--threshold=25", str(unit)]
    judged = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert judged.returncode == 0, judged.stdout


def test_two_on_one_machine_have_nothing_in_common(capsys: pytest.CaptureFixture[str]) -> None:
    units = []
    for name, port in (("a", 1), ("b", 2)):
        own = ["--instance", name, "--listen", f"127.0.0.1:808{port}", "--admin", f"127.0.0.1:918{port}"]
        assert main(["deploy", "systemd", "--upstream", "http://10.0.0.5", "--program", "/opt/upshim", *own]) == 0
        text = capsys.readouterr().out
        settings = re.findall(
            r"^(?:EnvironmentFile|StateDirectory)=\S+|--(?:listen|admin|state|record) \S+", text, re.M
        )
        assert len(settings) == 6
        units.append(set(settings))
        assert main(["deploy", "socket", "--upstream", "http://10.0.0.5", *own]) == 0
        assert f"enable it beside upshim-{name}.service" in capsys.readouterr().out
    assert not units[0] & units[1]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--instance", "a"], "--instance needs an --admin of its own"),
        (["--instance", "A/b", "--admin", "127.0.0.1:1"], "--instance: expected a short name"),
        (["--admin", "10.0.0.1:9180"], "10.0.0.1 can be reached from outside: --admin-token FILE"),
        (["--admin", "9180"], "--admin: expected HOST:PORT"),
        (["--admin-token", "a b"], "--admin-token: expected a path without quotes"),
    ],
)
def test_a_unit_that_would_not_start_is_refused(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", "systemd", "--upstream", "http://10.0.0.5", "--program", "/opt/upshim", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert complaint in err


def test_a_certificate_that_the_unit_cannot_see(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", "systemd", "--upstream", "http://10.0.0.5", "--program", "/opt/upshim", "--certs"]
    assert main([*words, "/root/phones.pem"]) == 0
    assert "/root/phones.pem: ProtectHome=yes hides it" in capsys.readouterr().err
    assert main([*words, "/etc/phones.pem"]) == 0
    assert capsys.readouterr().err == ""


def test_the_redirect(tmp_path: Path) -> None:
    text = render("nftables", "http://10.0.0.5", [Address("127.0.0.1", 8080)], [], more=["https://[fd00::5]"])
    assert "        ip daddr 10.0.0.5 tcp dport 80 redirect to :8080\n" in text
    assert "        ip6 daddr fd00::5 tcp dport 443 redirect to :8080\n" in text
    program = require_tool("nft")
    if os.geteuid():
        cannot_run("nft checks a file as root only")
    file = tmp_path / "upshim.nft"
    file.write_text(text)
    ended = subprocess.run([program, "-c", "-f", str(file)], capture_output=True, text=True, timeout=60, check=False)
    if "Operation not permitted" in ended.stderr:
        cannot_run("no right to ask the kernel about nftables")
    assert ended.returncode == 0, ended.stderr


def test_tls_to_the_server_is_verified() -> None:
    text = render("haproxy", "https://dus.example", [Address("fd00::1", 1)], [Address("*", 80)])
    assert "server direct dus.example:443 ssl verify required ca-file @system-ca sni str(dus.example) " in text
    assert "server shim1 [fd00::1]:1 check" in text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["nginx", "--upstream", "https://10.0.0.5"], "nginx: its configuration is for HTTP"),
        (["nginx", "--upstream", "http://10.0.0.5", "--certs", "x.pem"], "nginx: its configuration is for HTTP"),
        (["nginx", "--upstream", "http://10.0.0.5", "--listen", "*:443"], "port 443 is for TLS"),
        (["haproxy", "--upstream", "https://pool.contoso.com", "--listen", "*:443"], "haproxy needs --certs"),
        (["haproxy", "--upstream", "https://10.0.0.5"], "expected that in the server's certificate, found 10.0.0.5"),
        (["haproxy", "--upstream", "http://10.0.0.5", "--server-ca", "x.pem"], "need --upstream https"),
        (["lighttpd", "--upstream", "https://a", "--server-tls-oldest", "1.0"], "lighttpd takes no --server-ca"),
        (["haproxy", "--upstream", "http://10.0.0.5", "--shim", "shim:80"], "--shim: expected an IP address"),
        (["haproxy", "--upstream", "http://u:secret@10.0.0.5"], "a login before the host is not supported"),
    ],
)
def test_what_would_lack_its_tls_is_refused(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deploy", *words]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert complaint in err


def status_of(method: str, target: str, port: int) -> int:
    with phone(port) as connection:
        connection.request(method, target, check_body() if method == "POST" else None)
        response = connection.getresponse()
        response.read()
        return response.status


def test_a_server_of_the_phones_age_with_a_private_ca(tmp_path: Path) -> None:
    context = server_context(tmp_path / "server.pem")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    private, another = tmp_path / "private.pem", tmp_path / "another.pem"
    private.write_text(pem(ROOT))
    another.write_text(pem(replace(ROOT, name="Another CA", issuer="Another CA")))
    with serving(update_server, context) as server:
        for name, ca, oldest, status in (
            ("localhost", private, "1.0", 200),
            ("localhost", private, "1.2", 503),
            ("localhost", another, "1.0", 503),
            ("other.example", private, "1.0", 503),  # not in the certificate
        ):

            def here(text: str, name: str = name) -> str:
                return text.replace(f" {name}:{server.port}", f" 127.0.0.1:{server.port}")

            url = f"https://{name}:{server.port}"
            with front_process("haproxy", url, [free_port()], tmp_path, here, ca, oldest) as started:
                told = [status_of("POST", CHECK_TARGET, started.port), status_of("GET", "/a.nbt", started.port)]
                assert told == [status] * 2


class NameServer:
    """Knows at most one name, as the host of 127.0.0.1, or is away; `answered` counts how often it said so."""

    def __init__(self) -> None:
        self.known: bytes | None = None
        self.away = True
        self.answered = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                asked, client = self._socket.recvfrom(4096)
                if self.away:
                    continue
                end = asked.index(b"\0", 12) + 5
                question = asked[12:end]
                known = self.known is not None and self.known in question
                found = known and question.endswith(b"\0\1\0\1")  # an IPv4 address
                counts = struct.pack("!4H", 1, found, 0, 0)
                record = b"\xc0\x0c\0\1\0\1\0\0\0\5\0\4\x7f\0\0\1" * found
                head = asked[:2] + (b"\x81\x80" if known else b"\x81\x83") + counts
                self._socket.sendto(head + question + record, client)
                self.answered += found

    def close(self) -> None:
        """Answer no more."""
        self._socket.close()


def test_haproxy_starts_without_dns_and_finds_the_server_later(tmp_path: Path) -> None:
    with serving(update_server) as server, closing(NameServer()) as names:
        by_us = replacing("    parse-resolv-conf\n", f"    nameserver ours 127.0.0.1:{names.port}\n")
        with front_process("haproxy", f"http://a.invalid:{server.port}", [free_port()], tmp_path, by_us) as started:
            assert status_of("GET", "/a.nbt", started.port) == 503
            names.known, names.away = b"\1a\7invalid", False
            wait_for(lambda: status_of("GET", "/a.nbt", started.port) == 200)
            assert check(started.port) == answer_body()


def test_a_name_that_dns_no_longer_knows_stays_what_it_was_at_the_start(tmp_path: Path) -> None:
    with serving(update_server) as server, closing(NameServer()) as names:

        def by_us(text: str) -> str:
            text = replacing("    parse-resolv-conf\n", f"    nameserver ours 127.0.0.1:{names.port}\n")(text)
            return replacing("hold nx 1d", "hold nx 1s")(text)

        names.known, names.away = b"\x09localhost", False
        with front_process("haproxy", f"http://localhost:{server.port}", [free_port()], tmp_path, by_us) as started:
            wait_for(lambda: names.answered)
            names.known = None
            wait_for(lambda: b"server/direct is going DOWN" in (tmp_path / "front.log").read_bytes())
            assert status_of("GET", "/a.nbt", started.port) == 200
            wait_for(lambda: b"shims/direct is going DOWN" in (tmp_path / "front.log").read_bytes())
            assert check(started.port) == answer_body()


def test_a_configuration_that_is_checked_without_dns(tmp_path: Path) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text(render("haproxy", "http://known.invalid", [Address("127.0.0.1", 1)], [Address("*", 80)]))
    words = [require_tool("haproxy"), "-c", "-f", str(file)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr


def test_nginx_says_what_it_does_with_a_name() -> None:
    places = [Address("127.0.0.1", 1)], [Address("*", 80)]
    note = "does not start without an answer"
    assert note in render("nginx", "http://pool.contoso.com", *places)
    assert note not in render("nginx", "http://10.0.0.5", *places)


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        (["haproxy"], ["bind *:80"]),
        (["haproxy", "--certs", "x.pem"], ["bind *:80", "bind *:443 ssl crt "]),
        (["lighttpd", "--certs", "x.pem"], ["server.port = 443"]),
        (["systemd", "--certs", "x.pem"], ["--listen 0.0.0.0:80 --listen 0.0.0.0:443 "]),
        (["socket", "--certs", "x.pem"], ["ListenStream=0.0.0.0:80", "ListenStream=0.0.0.0:443"]),
        (["nginx"], ["listen *:80;"]),
    ],
)
def test_the_usual_ports(words: list[str], ports: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deploy", *words, "--upstream", "http://10.0.0.5"]) == 0
    out = capsys.readouterr().out
    assert [port for port in ports if port not in out] == []
    assert ("443" in out) is ("--certs" in words)


def test_what_a_unit_is_told_of_health_and_server(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--server-ca", "/etc/ca.pem", "--server-tls-oldest", "1.0", "--health", "/up"]
    assert main(["deploy", "systemd", "--upstream", "https://10.0.0.5", *words]) == 0
    out = capsys.readouterr().out
    assert " --server-ca /etc/ca.pem --server-tls-oldest 1.0 --health /up --admin" in out


def test_a_program_that_the_unit_cannot_see(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "upshim"
    for text, program, hidden in (
        ("#!/usr/bin/env python3\n", script, ""),
        ("#!/root/.pyenv/bin/python3\n", script, "/root/.pyenv/bin/python3"),
        ("", Path("/home/amy/.venv/bin/upshim"), "/home/amy/.venv/bin/upshim"),
        ("", Path("/homestead/upshim"), ""),
    ):
        script.write_text(text)
        assert main(["deploy", "systemd", "--upstream", "http://10.0.0.5", "--program", str(program)]) == 0
        out, err = capsys.readouterr()
        assert f"ExecStart={program} proxy" in out
        assert err.startswith(f"upshim deploy: {hidden}: ProtectHome=yes hides it") if hidden else err == ""


@pytest.mark.parametrize(
    "text", ["", "host", "host:0", "host:70000", "a b:80", "a;b:80", ":80", "*:80", "10.0.0.5%0a:80"]
)
def test_an_address_that_is_none(text: str) -> None:
    with pytest.raises(UnusableInput):
        address("--shim", text)


@pytest.mark.parametrize(
    "upstream",
    ["10.0.0.5", "ftp://x", "http://", "http://a b", "http://x/path", "http://x:99999", "http://10.0.0.5%0a"],
)
def test_an_upstream_that_is_none(upstream: str) -> None:
    with pytest.raises(UnusableInput):
        render("haproxy", upstream, [], [])


def test_a_redirect_needs_an_address() -> None:
    with pytest.raises(UnusableInput, match="IP address"):
        render("nftables", "http://dus.example", [Address("127.0.0.1", 8080)], [])
