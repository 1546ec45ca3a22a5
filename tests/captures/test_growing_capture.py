"""A capture that goes on over restarts, kills and hand-overs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import growing_capture as module
from captures.bodies import BodyFiles
from captures.exchange import Body, Exchange, Request, Response
from captures.growing_capture import growing_capture
from captures.pcap_mirror import PcapMirror
from captures.sources import read_exchanges

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


@given(st.integers(0, 400), st.sampled_from([1, 16]))
def test_what_a_killed_process_left_half_written_is_cut_off(missing: int, last: int) -> None:
    import tempfile
    from unittest import mock

    with tempfile.TemporaryDirectory() as name, mock.patch.object(module, "LAST", last):
        path = Path(name) / "phones.pcapng"
        mirror(path, (1, 2)).close()
        os.truncate(path, path.stat().st_size - missing)
        mirror(path, (3,)).close()
        found = targets(path)
        assert found[-1] == "/3"
        assert found[0] == "/1"


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
        mirror(path, (1,)).close()
        assert os.read(reading, 4) == b"\n\r\r\n"
    finally:
        os.close(reading)
