"""The verb on packet captures."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.captures.wire import Talk, answer, pcap, request, written
from tools.cli import main

LOGIN = "Authorization: NTLM TlRMTVNTUAABAAAAB4IIAAAAAAAAAAAAAAAAAAAAAAA=\r\n"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    talk = Talk().open().client(request("/a.cab", extra=LOGIN)).server(answer(b"hello")).close()
    return written(tmp_path, pcap(talk.packets))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_json_lines(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchanges", "--json", str(capture)]) == 0
    exchange, summary = lines(capsys)
    assert exchange["response"]["body"] == {
        "size": 5,
        "sha256": hashlib.sha256(b"hello").hexdigest(),
        "encoded_size": 5,
    }
    assert "TlRM" not in json.dumps(exchange)
    assert (summary["kind"], summary["counts"]["exchanges"], summary["damaged"]) == ("capture", 1, False)


def test_secrets_are_shown_when_asked_for(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchanges", "--json", "--secrets", str(capture)]) == 0
    assert "NTLM TlRM" in capsys.readouterr().out


def test_text_shows_no_secrets_and_no_colour_when_piped(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchanges", str(capture)]) == 0
    out = capsys.readouterr().out
    (row,) = (line.split() for line in out.splitlines() if "/a.cab" in line)
    assert (row[0], row[4:]) == ("0", ["GET", "200", "5", "ucupdates-r2/a.cab"])
    assert "TlRM" not in out
    assert "\x1b" not in out


def test_bodies_are_extracted_privately(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bodies"
    assert main(["exchanges", "--json", str(capture), "--extract", str(folder)]) == 0
    (file,) = folder.iterdir()
    assert (file.name, file.read_bytes()) == (hashlib.sha256(b"hello").hexdigest(), b"hello")
    assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)


def test_a_cut_off_capture_shows_what_it_has_and_says_so(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture.write_bytes(capture.read_bytes()[:-9])
    assert main(["exchanges", "--json", str(capture)]) == 1
    exchange, summary = lines(capsys)
    assert exchange["complete"]
    assert summary["damaged"]
    assert "expected a whole packet" in summary["problems"][0]


def test_what_is_no_capture_is_one_line_and_the_others_are_still_listed(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = written(tmp_path, b"no capture at all", "other")
    assert main(["exchanges", "--json", str(other), str(capture)]) == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert f"{other}: at offset 0: expected packet capture" in err
    assert len(out.splitlines()) == 2


@pytest.mark.parametrize("words", [[], ["x", "--interface", "lo"], ["--interface", "lo", "--seconds", "-1"]])
def test_options_that_make_no_sense(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchanges", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
