from __future__ import annotations

import json

import pytest

from tools.bench import rule_load, rules
from tools.cli import main


@pytest.mark.parametrize("shape", rule_load.SHAPES)
def test_the_phones_of_each_shape_meet_their_rules(shape: str) -> None:
    found = rule_load.measure(shape, 5, 50, 40)
    assert sum(found["actions"].values()) == 40
    assert found["actions"].get("report", 0) > (0 if shape == "phones" else 20)
    assert found["peak"] > found["start"] - (1 << 20) > 0  # the kernel does not count to the page


def test_everything_is_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(rules, "COUNTS", (1,))
    monkeypatch.setattr(rules, "SHAPES", ("models", "phones"))
    assert main(["bench", "rules", "--phones", "20", "--checks", "10", "--rounds", "1", "--json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(result["shape"], result["times_few"]) for result in results] == [("models", 1), ("phones", 1)]
    rules.show(results)
    assert "20 known phones" in capsys.readouterr().out
    assert main(["bench", "rules", "--checks", "1"]) == 2
