from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest

from captures import packets, reading_ahead
from captures.bodies import BodyFiles
from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.items import CaptureSummary
from captures.open_exchange import PlainItem
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from tests.captures.wire import Packet, Talk, answer, block, interface, pcap, request, section, written

Plain = Generator[PlainItem, None, None]
MANY = 5  # items that the first process reads, here


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every capture is a long one, whatever machine this is."""
    monkeypatch.setattr(reading_ahead, "MANY", MANY)
    monkeypatch.setattr(packets, "worth_two_processes", lambda _path: True)


def many_checks() -> list[Packet]:
    """A part of a file, exchanges, some of them damaged, and the rest of the file."""
    parts = [b"first half ", b"and the second one"]
    size = sum(map(len, parts))
    talk = Talk().open()
    talk.client(request("/image.nbt"))
    talk.server(answer(parts[0], 206, extra=f"Content-Range: bytes 0-{len(parts[0]) - 1}/{size}\r\n"))
    for number in range(200):
        talk.client(request(f"/{number}", "POST", b"asked" * 9)).server(answer(b"told" * number))
    talk.client(request("/image.nbt"))
    talk.server(answer(parts[1], 206, extra=f"Content-Range: bytes {len(parts[0])}-{size - 1}/{size}\r\n"))
    talk.close()
    del talk.packets[100::50]
    return talk.packets


def test_two_processes_find_what_one_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: None) -> None:
    path = written(tmp_path, pcap(many_checks()))
    folders = tmp_path / "together", tmp_path / "alone"
    for folder in folders:
        folder.mkdir()
    steps: list[int] = []
    together = list(read_exchanges(path, ReadOptions(bodies=BodyFiles(folders[0]), progress=steps.append)))
    monkeypatch.setattr(packets, "worth_two_processes", lambda _path: False)
    alone = list(read_exchanges(path, ReadOptions(bodies=BodyFiles(folders[1]))))
    assert together == alone
    assert len(together) > 200
    assert [item.to_json() for item in together] == [item.to_json() for item in alone]
    bodies = [one.response.body.data for one in together if isinstance(one, Exchange) and one.response]
    assert b"told" * 150 in bodies
    files = [sorted((path.name, path.read_bytes()) for path in folder.iterdir()) for folder in folders]
    assert files[0] == files[1]
    assert sum(steps) == path.stat().st_size


def test_a_short_capture_needs_no_second_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: None) -> None:
    def forbidden(*_: object) -> Plain:
        raise AssertionError

    monkeypatch.setattr(reading_ahead, "_elsewhere", forbidden)
    talk = Talk().open().client(request()).server(answer(b"x")).close()
    items = list(read_exchanges(written(tmp_path, pcap(talk.packets))))
    assert isinstance(items[-1], CaptureSummary)
    assert len(items) == 2 < MANY


def test_only_large_files_are_worth_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, bytes(100))
    assert not reading_ahead.worth_two_processes(path)
    monkeypatch.setattr(reading_ahead, "LARGE", 100)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1})
    assert reading_ahead.worth_two_processes(path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})
    assert not reading_ahead.worth_two_processes(path)
    assert not reading_ahead.worth_two_processes(tmp_path / "absent")


def test_with_tls_secrets_tshark_is_run_by_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: None
) -> None:
    def forbidden(*_: object) -> Plain:
        raise AssertionError

    monkeypatch.setattr(packets, "read_ahead", forbidden)
    keys = b"CLIENT_RANDOM aa bb\n"
    data = section() + block(10, struct.pack("<II", 0x544C534B, len(keys)) + keys) + interface()
    assert len(list(read_exchanges(written(tmp_path, data)))) == 1


# What follows is read by functions that the second process imports from here. `path` holds the number of the first one.


def _summaries(path: Path, _options: ReadOptions, then: Callable[[], None]) -> Plain:
    elsewhere = int(path.read_text()) != os.getpid()
    for number in range(1000):
        if elsewhere and number == 500:
            then()
        yield CaptureSummary(str(os.getpid()), str(number))


def killed(path: Path, options: ReadOptions) -> Plain:
    return _summaries(path, options, lambda: os.kill(os.getpid(), 9))


def refused(path: Path, options: ReadOptions) -> Plain:
    def then() -> None:
        raise CaptureError(path, "at offset 7: expected more, found less")

    return _summaries(path, options, then)


def out_of_space(path: Path, options: ReadOptions) -> Plain:
    def then() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "bodies/1234")

    return _summaries(path, options, then)


def whole(path: Path, options: ReadOptions) -> Plain:
    return _summaries(path, options, lambda: None)


@pytest.fixture
def own_number(tmp_path: Path, shared: None) -> Path:
    path = tmp_path / "number"
    path.write_text(str(os.getpid()))
    return path


@pytest.mark.parametrize(
    ("read", "error", "text"),
    [
        (killed, CaptureError, "number: the process that read it was ended"),
        (refused, CaptureError, "number: at offset 7: expected more, found less"),
        (out_of_space, OSError, "No space left on device: 'bodies/1234'"),
    ],
)
def test_what_ends_the_second_process_is_told(
    own_number: Path, read: reading_ahead.Read, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        list(reading_ahead.read_ahead(read, own_number, ReadOptions()))
    assert str(raised.value).endswith(text)


def test_what_came_before_an_error_is_shown(own_number: Path) -> None:
    items: list[PlainItem] = []
    with pytest.raises(CaptureError):
        items.extend(reading_ahead.read_ahead(refused, own_number, ReadOptions()))
    assert [item.format for item in items if isinstance(item, CaptureSummary)] == list(map(str, range(500)))


def test_who_stops_reading_ends_the_second_process(own_number: Path) -> None:
    with closing(reading_ahead.read_ahead(whole, own_number, ReadOptions())) as items:
        readers = [next(items).capture for _ in range(MANY + 1)]
    assert len(set(readers)) == 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(readers[-1]), 0)
