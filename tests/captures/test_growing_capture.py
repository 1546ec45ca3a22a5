"""A capture that goes on over restarts, kills and hand-overs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.bodies import BodyFiles
from captures.exchange import Body, Exchange, Request, Response
from captures.growing_capture import growing_capture
from captures.pcap_mirror import PcapMirror
from captures.sources import read_exchanges
from proxy_addons.open_recording import mirror_at

NOW = datetime(2026, 1, 5, tzinfo=UTC)


def exchange(number: int) -> Exchange:
    response = Response(200, "OK", headers=(("Content-Length", "2"),), body=Body.of(b"ok"))
    return Exchange("live", number, f"10.0.0.1:{2000 + number}", "10.0.0.2:80", NOW, NOW,
                    Request("GET", f"/{number}"), response)  # fmt: skip


def mirror(path: Path, numbers: Sequence[int]) -> PcapMirror:
    made = PcapMirror(path)
    for number in numbers:
        made.recorded(BodyFiles(path.parent), exchange(number))
    return made


def targets(path: Path) -> list[str]:
    return [one.request.target for one in read_exchanges(path) if isinstance(one, Exchange)]


def test_a_restart_goes_on_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "phones.pcapng"
    for numbers in ((1, 2), (3,), ()):
        mirror(path, numbers).close()
    assert targets(path) == ["/1", "/2", "/3"]
    assert path.stat().st_mode & 0o777 == 0o600


@given(st.integers(0, 400))
def test_what_a_killed_process_left_half_written_is_cut_off(missing: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "phones.pcapng"
        mirror(path, (1, 2)).close()
        os.truncate(path, path.stat().st_size - missing)
        mirror(path, (3,)).close()
        found = targets(path)
        assert found[-1] == "/3"
        assert found[0] == "/1"


def sizes(folder: Path) -> dict[str, int]:
    return {one.name: one.stat().st_size for one in folder.iterdir()}


def test_the_oldest_goes_when_there_is_no_room_for_more(tmp_path: Path) -> None:
    path = tmp_path / "p.pcapng"
    (tmp_path / "p.3.pcapng").write_text("not ours")
    made = mirror(path, (1,))
    made.close()
    one = path.stat().st_size
    most = 8 * one
    made = PcapMirror(path, most)
    for number in range(2, 60):
        made.recorded(BodyFiles(path.parent), exchange(number))
        assert sum(sizes(tmp_path).values()) <= most + one
    made.close()
    assert (tmp_path / "p.3.pcapng").read_text() == "not ours"
    (tmp_path / "p.3.pcapng").unlink()
    assert {"p.2.pcapng", "p.4.pcapng"} < set(sizes(tmp_path)) <= {"p.pcapng"} | {f"p.{n}.pcapng" for n in (2, 4, 5)}
    # Each file is whole by itself, and what is left are the newest, none missing.
    kept = sorted(int(target[1:]) for place in tmp_path.iterdir() for target in targets(place))
    assert kept == list(range(kept[0], 60))
    assert len(kept) >= 6


def test_what_an_earlier_process_has_left_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "p.pcapng"
    mirror(path, range(20)).close()
    left = path.read_bytes()
    most = len(left)
    for number in range(3):  # processes
        made = mirror_at(path, most)
        assert f" of {most} bytes, and stay" in caplog.text
        caplog.clear()
        for _ in range(40):
            made.recorded(BodyFiles(path.parent), exchange(100 + number))
        made.close()
        assert path.read_bytes() == left
        assert sum(sizes(tmp_path).values()) <= 2 * most  # 120 exchanges take six times as much


def test_what_took_the_place_of_ours_stays(tmp_path: Path) -> None:
    path = tmp_path / "p.pcapng"
    made = PcapMirror(path, 4)  # every exchange fills one
    made.recorded(BodyFiles(path.parent), exchange(1))
    path.rename(tmp_path / "aside")
    path.write_text("somebody else's")
    with pytest.raises(FileExistsError):
        made.recorded(BodyFiles(path.parent), exchange(2))
    assert path.read_text() == "somebody else's"
    path.unlink()
    made.recorded(BodyFiles(path.parent), exchange(3))  # and it goes on
    made.close()
    assert targets(path) == ["/3"]
    assert targets(tmp_path / "aside") == ["/1"]


def test_a_file_that_is_being_written_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "phones.pcapng"
    before = mirror(path, (1,))
    after = mirror(path, (2,))
    assert (before.path.name, after.path.name) == ("phones.pcapng", "phones.2.pcapng")
    before.recorded(BodyFiles(tmp_path), exchange(3))
    before.close()
    after.close()
    assert targets(path) == ["/1", "/3"]
    assert targets(after.path) == ["/2"]


@pytest.mark.parametrize("content", [b"[[path]]\n", b"\n\r\r\n" + bytes(60), b"\xd4\xc3\xb2\xa1" + bytes(20)])
def test_what_is_not_ours_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_bytes(content)
    with pytest.raises(FileExistsError, match="expected no file, or a packet capture made by upshim"):
        growing_capture(path)
    assert path.read_bytes() == content


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        made = PcapMirror(path, 4)  # has no size to be bounded
        for number in (1, 2):
            made.recorded(BodyFiles(tmp_path), exchange(number))
        made.close()
        assert sizes(tmp_path) == {"pipe": 0}
        assert os.read(reading, 4) == b"\n\r\r\n"
    finally:
        os.close(reading)
