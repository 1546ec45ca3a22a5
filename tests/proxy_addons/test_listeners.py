"""An upshim takes another one's place under load, and no exchange fails."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from mitmproxy.addons.proxyserver import Proxyserver

from captures.store import Store
from proxy_addons.drain import Drain
from proxy_addons.launcher import wind_down
from proxy_addons.listeners import NAME, Offer, address_of, ask, from_manager
from tests.bodies import CHECK_TARGET, answer_body, check_body
from tests.conftest import ROOT
from tests.proxies import Proxy, command
from tests.servers import Received, message, serving
from tools.deploy import Address, render
from tools.ports import free_port

HANDS_OVER_WITHIN = 60
MANAGER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml")


class Load:
    """Phones that ask one check after the other: some over a connection they keep, some over new ones."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.failures: list[str] = []
        self.answered = 0
        self._ends = threading.Event()
        self._changed = threading.Condition()
        self._threads = [threading.Thread(target=self._ask, args=(keeps,)) for keeps in (True, True, False, False)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join(HANDS_OVER_WITHIN)

    def _ask(self, keeps: bool) -> None:
        phone = http.client.HTTPConnection("127.0.0.1", self.port, timeout=HANDS_OVER_WITHIN)
        while not self._ends.is_set():
            try:
                phone.request("POST", CHECK_TARGET, check_body(), {} if keeps else {"Connection": "close"})
                answer = phone.getresponse()
                body = answer.read()
                told = "" if (answer.status, body) == (200, answer_body()) else f"{answer.status} {body[:400]!r}"
            except (OSError, http.client.HTTPException) as error:
                told = repr(error)
                phone.close()
            if not keeps:
                phone.close()
            with self._changed:
                self.answered += 1
                self._changed.notify_all()
                if told:
                    self.failures.append(told)
        phone.close()

    def wait_for(self, more: int) -> None:
        """Until so many more exchanges are over."""
        with self._changed:
            goal = self.answered + more
            assert self._changed.wait_for(lambda: self.answered >= goal, HANDS_OVER_WITHIN)


@contextlib.contextmanager
def started(words: Sequence[str], *descriptors: int) -> Iterator[Proxy]:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, pass_fds=descriptors)
    proxy = Proxy(process)
    try:
        yield proxy
    finally:
        if process.poll() is None:
            proxy.kill()
        assert process.stdout is not None
        proxy._reader.join(HANDS_OVER_WITHIN)
        process.stdout.close()


def recorded(folder: Path) -> int:
    store = Store.open(folder)
    try:
        return sum(1 for _ in store.exchanges())
    finally:
        store.close()


def proxy_at(port: int, upstream: str, folder: Path) -> list[str]:
    words = command("upshim", upstream, folder / "state", record=folder / "rec")
    return [word.replace("127.0.0.1:0", f"127.0.0.1:{port}") for word in words]


def test_a_new_upshim_takes_over_and_no_exchange_fails(tmp_path: Path) -> None:
    port = free_port()
    with ExitStack() as stack:
        server = stack.enter_context(serving(update_server))
        words = [*proxy_at(port, server.url, tmp_path), "--admin", f"127.0.0.1:{free_port()}"]
        old = stack.enter_context(started(words))
        old.wait_until_listening()
        with Load(port) as load:
            load.wait_for(10)
            for _ in range(2):
                new = stack.enter_context(started([*words, "--hand-over"]))
                assert old.process.wait(HANDS_OVER_WITHIN) == 0, old.log.decode()
                new.wait_until_listening()
                load.wait_for(20)
                old = new
        assert load.failures == []
        assert old.stop() == 0
        assert not (tmp_path / "state" / NAME).exists()
        assert recorded(tmp_path / "rec") == load.answered == len(server.received)


def test_a_manager_keeps_the_socket_while_upshim_is_replaced(tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(serving(update_server))
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        port = int(listener.getsockname()[1])
        words = [sys.executable, "-c", MANAGER, str(listener.fileno()), *proxy_at(port, server.url, tmp_path)]
        with Load(port) as load:
            with started(words, listener.fileno()) as proxy:
                load.wait_for(20)
                assert proxy.stop() == 0, proxy.log.decode()
            with started(words, listener.fileno()) as proxy:
                load.wait_for(20)
                load.__exit__()
                assert proxy.stop() == 0
        assert load.failures == []
        assert recorded(tmp_path / "rec") == load.answered


def test_without_one_to_replace_it_just_starts(tmp_path: Path) -> None:
    with serving(update_server) as server:
        with started([*command("upshim", server.url, tmp_path), "--hand-over"]) as proxy:
            proxy.wait_until_listening()
            proxy.kill()
        assert (tmp_path / NAME).exists()  # what a killed process leaves stops nobody
        with started([*command("upshim", server.url, tmp_path), "--hand-over"]) as proxy:
            proxy.wait_until_listening()
            assert proxy.stop() == 0


def test_one_that_cannot_start_leaves_the_old_one_alone(tmp_path: Path) -> None:
    with serving(update_server) as server, ExitStack() as stack:
        port = free_port()
        words = proxy_at(port, server.url, tmp_path)
        old = stack.enter_context(started(words))
        old.wait_until_listening()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            busy = f"127.0.0.1:{taken.getsockname()[1]}"
            new = stack.enter_context(started([*words, "--listen", busy, "--hand-over"]))
            assert new.process.wait(HANDS_OVER_WITHIN) == 2
        with Load(port) as load:
            load.wait_for(4)
        assert load.failures == []
        assert old.stop() == 0


def test_one_that_would_desert_a_port_of_phones_does_not_take_over(tmp_path: Path) -> None:
    with serving(update_server) as server, ExitStack() as stack:
        port = free_port()
        words = [*proxy_at(port, server.url, tmp_path), "--admin", f"127.0.0.1:{free_port()}"]
        old = stack.enter_context(started(words))
        old.wait_until_listening()
        other = [*proxy_at(free_port(), server.url, tmp_path), "--hand-over"]
        new = stack.enter_context(started(other))
        assert new.process.wait(HANDS_OVER_WITHIN) == 2
        new._reader.join(HANDS_OVER_WITHIN)
        assert f"listens for phones on 127.0.0.1:{port}, which no --listen names".encode() in new.log
        with Load(port) as load:
            load.wait_for(4)
        assert load.failures == []
        without_admin = stack.enter_context(started([*proxy_at(port, server.url, tmp_path), "--hand-over"]))
        without_admin.wait_until_listening()
        assert old.process.wait(HANDS_OVER_WITHIN) == 0


def test_the_port_of_a_running_upshim_is_not_shared_by_accident(tmp_path: Path) -> None:
    with serving(update_server) as server, ExitStack() as stack:
        words = proxy_at(free_port(), server.url, tmp_path)
        stack.enter_context(started(words)).wait_until_listening()
        second = stack.enter_context(started(words))
        assert second.process.wait(HANDS_OVER_WITHIN) == 2
        second._reader.join(HANDS_OVER_WITHIN)
        assert re.search(rb"in use", second.log)


def test_what_a_manager_passes_to_somebody_else_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDNAMES": "x"}
    assert from_manager(environment) == []
    assert environment == {}
    assert from_manager({"LISTEN_FDS": "no", "LISTEN_PID": str(os.getpid())}) == []


def offering(state: Path, use: Callable[[], object], replaced: Callable[[], None]) -> list[str]:
    said: list[str] = []

    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            offer = Offer(state, lambda: ([], [listener.fileno()]), replaced)
            said.append(str(address_of(listener)))
            await asyncio.to_thread(use)
            for _ in range(100):
                await asyncio.sleep(0)
            offer.close()
            offer.close()  # as a proxy does that has drained

    asyncio.run(run())
    return said


def test_one_that_asks_and_goes_replaces_nobody(tmp_path: Path) -> None:
    happened: list[str] = []

    def use() -> None:
        for drops in (True, False):
            asked = ask(tmp_path)
            assert asked is not None
            happened.append(str(address_of(asked.listeners[0])))
            if drops:
                asked.drop()
            else:
                asked.done()
                asked.listeners[0].close()

    said = offering(tmp_path, use, lambda: happened.append("replaced"))
    assert happened == [*said, *said, "replaced"]
    assert not list(tmp_path.iterdir())
    assert ask(tmp_path) is None


def test_what_gets_the_number_of_a_closed_offer_is_not_taken_for_it(tmp_path: Path) -> None:
    heard: list[bytes] = []

    async def run() -> None:
        loop = asyncio.get_running_loop()
        offer = Offer(tmp_path, lambda: ([], []), lambda: None)
        await asyncio.sleep(0)  # it waits for somebody to ask
        number = offer._listener.fileno()
        offer.close()
        near, far = socket.socketpair()
        with near, far:
            assert number in {near.fileno(), far.fileno()}
            if far.fileno() == number:
                near, far = far, near
            loop.add_reader(near, lambda: heard.append(near.recv(10)))
            for _ in range(10):
                await asyncio.sleep(0)
            far.sendall(b"answer")
            for _ in range(10):
                await asyncio.sleep(0)
            loop.remove_reader(near)

    asyncio.run(run())
    assert heard == [b"answer"]


def test_a_connection_that_is_being_accepted_as_the_end_begins_is_served() -> None:
    """asyncio accepts it in one turn and takes it up in the next; closing its listener between them drops it."""

    async def run() -> bytes:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.readexactly(5))
            writer.close()

        async def close(_modes: object) -> None:
            listener.close()

        listener = await asyncio.start_server(echo, "127.0.0.1", 0)
        instances = Instances([SimpleNamespace(_servers=[listener])])
        instances.update = close
        server = cast(Proxyserver, SimpleNamespace(servers=instances, connections={}))
        with socket.create_connection(listener.sockets[0].getsockname()) as phone:
            phone.sendall(b"check")
            phone.settimeout(HANDS_OVER_WITHIN)
            await asyncio.sleep(0)  # the listener has been found ready: it accepts after this turn of ours
            await wind_down(server, Drain(), HANDS_OVER_WITHIN)
            return await asyncio.to_thread(phone.recv, 5)

    assert asyncio.run(run()) == b"check"


class Instances(list[Any]):
    """What mitmproxy keeps its listeners in."""

    update: Callable[[object], Awaitable[None]]


def test_the_socket_unit_names_what_upshim_listens_on() -> None:
    text = render("socket", "http://10.0.0.5", [], [Address("*", 80), Address("::", 80)])
    assert "\nListenStream=0.0.0.0:80\nListenStream=[::]:80\nBindIPv6Only=ipv6-only\n" in text
