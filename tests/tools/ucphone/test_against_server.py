"""The emulated phone against the emulated server, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dissectors.audit_log import read_rows
from dissectors.version import Version
from tools.ucphone.events import EventLog, Kind
from tools.ucphone.identity import Pace, PhoneOptions
from tools.ucphone.phone import Phone
from tools.ucphone.runner import RunningPhone
from tools.ucphone.transport import HttpTransport
from tools.update_server.audit import AuditLogWriter
from tools.update_server.field_story import CX700_STUCK, FieldStory
from tools.update_server.http import UpdateServer
from tools.update_server.packages import CX700, find_packages, make_synthetic
from tools.update_server.rules import Rule, RuleBook
from tools.update_server.service import UpdateService, UrlSettings

STUCK = Version.parse("1.0.522.73")
BRIDGE = Version.parse("1.0.522.103")
R2 = Version.parse("3.5.6907.222")
SIZE = 1_000_000
PATIENCE = 30.0
PACE = Pace(scale=86_400 * 100, least_reboot=0.01)


@pytest.fixture
def updates(tmp_path: Path) -> Path:
    for version in (BRIDGE, R2):
        make_synthetic(tmp_path / "updates", version, SIZE)
    return tmp_path / "updates"


@contextmanager
def server(updates: Path, stories: tuple[FieldStory, ...] = (), **options: object) -> Iterator[UpdateServer]:
    service = UpdateService(
        updates,
        RuleBook((Rule(CX700, approved_version=R2, restore_version=BRIDGE),)),
        stories,
        **options,  # type: ignore[arg-type]
    )
    with UpdateServer(service, audit=AuditLogWriter(updates, "POOL01")) as running:
        yield running


def live(url: str, version: Version, polls: int = 2) -> EventLog:
    log = EventLog()
    phone = Phone(url, version, pace=PACE, options=PhoneOptions(polls=polls), on_event=log)
    running = RunningPhone(phone, HttpTransport(timeout=PATIENCE)).start()
    assert running.join(PATIENCE)
    return log


def kinds(log: EventLog) -> list[str]:
    return [str(event.kind) for event in log.events]


def test_a_normal_upgrade(updates: Path) -> None:
    with server(updates) as running:
        log = live(running.url, BRIDGE)
    assert kinds(log)[-7:] == ["installed", "reboot", "boot", "lookup", "check", "no-update", "end"]
    assert [event.data["size"] for event in log.of(Kind.DOWNLOADED)][1] == SIZE
    (path,) = (updates / "Logs" / "Server" / "Audit" / "imageUpdates").iterdir()
    rows = list(read_rows([path.read_bytes()]))
    assert [[module.version for module in row.request_modules] for row in rows] == [[BRIDGE], [R2]]
    assert [[module.version for module in row.response_modules] for row in rows] == [[R2], []]


def test_a_phone_stuck_on_old_firmware_is_answered_with_nothing(updates: Path) -> None:
    with server(updates, CX700_STUCK) as running:
        log = live(running.url, STUCK, polls=3)
    assert [event.data["status"] for event in log.of(Kind.NO_UPDATE)] == ["0x0;200"] * 3
    assert len(log.of(Kind.CRASH)) == 3


def test_a_phone_with_nothing_installed_gets_the_interim_and_then_the_rest(updates: Path) -> None:
    with server(updates, CX700_STUCK) as running:
        log = live(running.url, Version(0, 0, 0, 0), polls=3)
    assert [event.data["version"] for event in log.of(Kind.INSTALLED)] == [str(BRIDGE), str(R2)]
    assert kinds(log)[-2:] == ["no-update", "end"]


def test_a_rollback_is_reinstalled_at_the_next_check(updates: Path) -> None:
    with server(updates) as running:
        running.service.restore(running.service.rules.rules[0])
        log = live(running.url, R2)
    assert [event.data["version"] for event in log.of(Kind.INSTALLED)] == [str(BRIDGE)]


def test_a_damaged_image_is_not_installed(updates: Path) -> None:
    image = next(package for package in find_packages(updates) if package.version == R2).folder / "CPE.nbt"
    with image.open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(b"\0\0\0\0")
    with server(updates) as running:
        log = live(running.url, BRIDGE, polls=1)
    assert kinds(log)[-2:] == ["refused", "end"]
    assert log.events[-1].data["version"] == str(BRIDGE)


def test_urls_never_set_up_leave_the_phone_where_it_is(updates: Path) -> None:
    with server(updates, urls=UrlSettings(internal="", external="")) as running:
        log = live(running.url, BRIDGE, polls=1)
    assert kinds(log)[-3:] == ["offer", "refused", "end"]


def test_a_download_cut_on_the_way_is_resumed(updates: Path) -> None:
    with server(updates) as running, cutting(running.port, SIZE // 3) as port:
        log = live(f"http://127.0.0.1:{port}", BRIDGE)
    assert log.of(Kind.INSTALLED)
    (resumed,) = log.of(Kind.RESUME)
    assert 0 < resumed.data["at"] < SIZE
    assert log.of(Kind.DOWNLOADED)[1].data["resumed"] == 1


@contextmanager
def cutting(server_port: int, size: int) -> Iterator[int]:
    """A relay that cuts its first connection after so many bytes of answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def pump(source: socket.socket, target: socket.socket, left: float) -> None:
        try:
            while left > 0 and (data := source.recv(4096)):
                target.sendall(data)
                left -= len(data)
        except OSError:
            pass
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        limit: float = size
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", server_port))
            sockets.extend((client, upstream))
            for source, target, left in ((client, upstream, float("inf")), (upstream, client, limit)):
                threads.append(threading.Thread(target=pump, args=(source, target, left)))
                threads[-1].start()
            limit = float("inf")

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        acceptor.join()
        for thread in threads:
            thread.join()
        for one in sockets:
            one.close()


def test_a_poll_wait_ends_when_the_phone_is_stopped(updates: Path) -> None:
    log = EventLog()
    with server(updates) as running:
        phone = Phone(running.url, R2, on_event=log)
        with RunningPhone(phone, HttpTransport()) as living:
            assert log.wait_for(lambda event: event.kind is Kind.WAIT, PATIENCE)
            assert not living.join(0)
    assert living.join(0)
    assert phone.checks == 1


def test_a_server_that_comes_back_is_found_at_the_next_poll(updates: Path) -> None:
    with server(updates) as running:
        port = running.port
    log = EventLog()
    with RunningPhone(Phone(f"http://127.0.0.1:{port}", BRIDGE, pace=PACE, on_event=log), HttpTransport()):
        failed = log.wait_for(lambda event: event.kind is Kind.FAILED, PATIENCE)
        assert failed is not None
        assert failed.data["status"] == "0x2efd;0"
        service = UpdateService(updates, RuleBook((Rule(CX700, approved_version=R2),)))
        with UpdateServer(service, port=port):
            assert log.wait_for(lambda event: event.kind is Kind.INSTALLED, PATIENCE)
