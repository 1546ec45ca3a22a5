from __future__ import annotations

import json

import pytest

from tools.bench import fleet
from tools.cli import main
from tools.fleet.story import Plan


def test_a_fleet_that_is_too_small_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "fleet", "--phones", str(fleet.FEWEST - 1)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert main(["bench", "fleet", "--shims", "0"]) == 2
    assert "--shims: expected 1 or more" in capsys.readouterr().err


def test_the_verdict_is_printed_and_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Plan(20, killed=(0.1, 0.2), everybody=0.3, days=0.5)
    monkeypatch.setattr(fleet, "FEWEST", 1)
    monkeypatch.setattr(Plan, "of", lambda _phones, _seed, least: short)
    assert main(["bench", "fleet", "--phones", "20", "--json"]) == 1  # in half a day nobody gets there
    found = json.loads(capsys.readouterr().out)
    assert found["phones"] == 20
    assert any(what.startswith("ends") for what in found["wrong"])
    assert found["audit_rows"] > 0
