from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from proxy_addons.interlocks import INTERLOCKS
from proxy_addons.rules import Rules
from tests.bodies import OFFER_NEXT, REPORT_ZERO
from tests.servers import Received, serving
from tools.cli import main

STUCK = ("--model", "CX700", "--version", "1.0.522.73", "--mac", "0004F2000176")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(REPORT_ZERO)
    return path


def explained(capsys: pytest.CaptureFixture[str], file: Path, *words: str) -> tuple[int, list[dict[str, Any]]]:
    code = main(["rules", "explain", str(file), "--json", *words])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_good_file_and_a_bad_one(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "check", str(file)]) == 0
    assert "1 paths, 1 rules" in capsys.readouterr().out
    assert main(["rules", "check", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["sha256"] == Rules.parse(file.read_bytes()).sha256
    file.write_text(REPORT_ZERO.replace("model", "modell"))
    assert main(["rules", "check", str(file)]) == 2
    assert main(["rules", "check", str(file.with_name("none"))]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert f"{file}: line 6: unknown key 'modell'" in first
    assert "No such file" in second


def test_what_would_be_sent_to_whom(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = explained(capsys, file, *STUCK)
    assert code == 0
    assert lines[-1]["name"] == "report"
    assert lines[0]["text"].endswith("history: unknown")
    (would,) = [line["text"] for line in lines if line["kind"] == "would"]
    assert "tell the server 0.0.0.0;01-01-1601 00:00:00" in would
    assert [line["name"] for line in lines if line["kind"] == "interlock"] == [lock.__name__ for lock in INTERLOCKS]
    file.write_text(OFFER_NEXT)
    code, lines = explained(capsys, file, *STUCK)
    (would,) = [line["text"] for line in lines if line["kind"] == "would"]
    assert "tell the phone" in would
    assert "DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.103/CPE" in would


def test_which_interlock_holds(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(REPORT_ZERO + 'when.window = "22:00-05:00"\nscope.mac = ["0004F2000177"]\n')
    code, lines = explained(capsys, file, *STUCK, "--at", "2026-01-05T12:00")
    assert code == 1
    assert lines[-1]["name"] == "hold"
    assert [line["name"] for line in lines if line["kind"] == "interlock" and line["verdict"]] == [
        "staged_rollout",
        "time_window",
    ]
    _, lines = explained(capsys, file, *STUCK, "--at", "2026-01-05T23:00")
    assert [line["name"] for line in lines if line["kind"] == "interlock" and line["verdict"]] == ["staged_rollout"]


def test_why_the_others_do_not_match(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, lines = explained(capsys, file, "--model", "CX600", "--version", "1.0.522.73")
    assert code == 1
    (rule,) = [line for line in lines if line["kind"] == "rule"]
    assert not rule["verdict"]
    assert "device_type is not told" in rule["text"]
    _, lines = explained(capsys, file, *STUCK, "--revision", "B")
    assert "revision is B, the path wants A" in str(lines)
    assert main(["rules", "explain", str(file), *STUCK, "--revision", "B"]) == 1
    assert "rule stuck: does not match: revision is B" in capsys.readouterr().out


def test_the_kill_switch_by_its_file(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stop = tmp_path / "stop"
    assert main(["rules", "stop", "--kill-switch", str(stop)]) == 0
    assert "stopped" in capsys.readouterr().out
    code, lines = explained(capsys, file, *STUCK, "--kill-switch", str(stop))
    assert code == 1
    assert lines[-1]["text"].endswith(f"kill_switch: {stop} exists")
    assert main(["rules", "start", "--json", "--kill-switch", str(stop)]) == 0
    assert json.loads(capsys.readouterr().out) == {"kind": "switch", "stopped": None}
    assert explained(capsys, file, *STUCK, "--kill-switch", str(stop))[0] == 0
    assert main(["rules", "stop", "--kill-switch", str(stop)]) == 0
    assert "a proxy with this --kill-switch" in capsys.readouterr().out, "whether there is one is not known"
    assert main(["rules", "start", "--kill-switch", str(stop)]) == 0
    assert not stop.exists()
    before = file.read_bytes()
    assert main(["rules", "start", "--kill-switch", str(file)]) == 2  # by mistake
    assert file.read_bytes() == before
    assert "expected the empty file" in capsys.readouterr().err
    assert main(["rules", "start", "--kill-switch", str(tmp_path)]) == 2  # a folder is not removed
    assert main(["rules", "stop", "--kill-switch", str(tmp_path)]) == 2
    assert "expected a file, found a folder" in capsys.readouterr().err.splitlines()[-1]
    assert main(["rules", "stop", "--kill-switch", str(tmp_path / "no" / "file")]) == 2
    assert main(["rules", "stop"]) == 2
    assert main(["rules", "stop", "--admin", "127.0.0.1"]) == 2
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert main(["rules", "stop", "--admin", f"127.0.0.1:{port}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 4


def test_files_that_are_not_there(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text(OFFER_NEXT.replace("check_files = false", ""))
    sizes = {"CPE.nbt": 300_000, "CPE.cat": 5000}

    def reply(request: Received) -> Iterable[bytes]:
        size = sizes.get(request.target.rpartition("/")[2])
        return [b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n" % (b"200 OK" if size else b"404 No", size or 0), b""]

    assert main(["rules", "explain", str(file), *STUCK]) == 0
    assert "files_upstream lets it through: not looked at, --upstream" in capsys.readouterr().out
    with serving(reply) as server:
        assert explained(capsys, file, *STUCK, "--upstream", server.url)[0] == 0
        del sizes["CPE.cat"]
        code, lines = explained(capsys, file, *STUCK, "--upstream", server.url)
        assert code == 1
        assert "CPE.cat: the server answers 404" in lines[-1]["text"]


@pytest.mark.parametrize(
    "words",
    [
        ("--version", "1.0"),
        ("--upstream", "x y"),
        ("--admin", "127.0.0.1:1"),
        ("--mac", "00:04"),
        ("--at", "noon"),
        ("--record", "/dev/null/none"),
    ],
)
def test_options_that_cannot_be_used(words: tuple[str, ...], file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "explain", str(file), *STUCK, *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_example_is_good_and_does_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "example"]) == 0
    file = tmp_path / "example.toml"
    file.write_text(capsys.readouterr().out)
    night = ("--at", "2026-01-05T23:00", "--version", "1.0.522.73")
    _, lines = explained(capsys, file, "--model", "CX700", "--mac", "0004F2000176", *night)
    assert lines[-1]["name"] == "report"
    _, lines = explained(capsys, file, "--model", "CX700", "--mac", "0004F2000177", *night)
    assert "staged_rollout" in lines[-1]["text"]
    _, lines = explained(capsys, file, "--model", "IP8540", "--mac", "0004F2000177", "--address", "10.20.1.1", *night)
    assert lines[-1]["name"] == "offer"
