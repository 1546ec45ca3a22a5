from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from proxy_addons.interlocks import INTERLOCKS
from proxy_addons.rules import Rules
from tests.bodies import OFFER_NEXT, REPORT_ZERO
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


@pytest.mark.parametrize(
    "words",
    [("--version", "1.0"), ("--mac", "00:04"), ("--at", "noon"), ("--record", "/dev/null/none")],
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
