from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from captures.exchange import Exchange
from captures.facts import facts_of
from captures.sources import read_exchanges
from proxy_addons.pytest_plugin import ReplayFixture
from tests.bodies import REPORT_ZERO
from tests.conftest import ROOT
from tools import samples

SAMPLES = ROOT / "captures" / "samples"


def test_the_command_makes_the_same_bytes_again(tmp_path: Path) -> None:
    made = samples.make(tmp_path)
    assert {path.name for path in made} == {path.name for path in SAMPLES.glob("*.pcapng")}
    for path in made:
        assert path.read_bytes() == (SAMPLES / path.name).read_bytes(), path.name


def told(scene: str) -> list[list[dict[str, Any]]]:
    items = read_exchanges(SAMPLES / f"{scene}.pcapng", facts_of=facts_of)
    return [[dict(fact) for fact in item.facts] for item in items if isinstance(item, Exchange)]


def test_each_scene_tells_its_story() -> None:
    for asked, answered in told("stuck"):
        assert asked["modules"][0]["version"] == "1.0.522.73"
        assert answered["offers"] == []
    ((_, answered),) = told("blank-addresses")
    assert answered["is_offer"] is False
    assert answered["offers"][0]["empty"] is True
    interim = told("interim")
    assert [facts[0]["fact"] for facts in interim].count("firmware-fetch") == 4
    offers = [facts[1]["offers"] for facts in interim if len(facts) == 2]
    assert [[offer["offered_version"] for offer in each] for each in offers] == [["1.0.522.103"], ["3.5.6907.222"], []]
    ((asked,),) = told("external-denied")
    assert asked["fact"] == "update-check"


@pytest.mark.parametrize(("scene", "changed"), [("stuck", 3), ("interim", 0), ("external-denied", 0)])
def test_rules_over_the_scenes(scene: str, changed: int, upshim_replay: ReplayFixture, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(REPORT_ZERO.replace("< 1.0.522.101", "> 0.0.0.0, < 1.0.522.101"))
    exchanges = upshim_replay(SAMPLES / f"{scene}.pcapng", rules)
    assert sum(exchange.rewritten_request is not None for exchange in exchanges) == changed
