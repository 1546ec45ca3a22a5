"""The fleet's days on a clock of their own. UPSHIM_FLEET gives another number of phones than the quick few."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from proxy_addons import interlocks, policy
from tests.postgres import postgres_server
from tools.fleet.population import Behaviour, populate
from tools.fleet.story import Plan, Site, tell
from tools.fleet.verdict import Verdict

PHONES = int(os.environ.get("UPSHIM_FLEET", "0"))


def test_the_rules_hold_and_everyone_eligible_arrives(tmp_path: Path) -> None:
    verdict = Verdict(asyncio.run(tell(Plan.of(PHONES or 100), tmp_path)))
    assert verdict.wrong == []
    counts = verdict.summary()
    assert counts["arrived"] == counts["eligible"]
    assert counts["rewritten_rows"] != 0


def test_the_same_over_kill_9_with_what_is_recorded(tmp_path: Path) -> None:
    plan = replace(Plan.of(PHONES or 50, seed=2, least=5), minimum=2, days=9.0 if PHONES else 6.0)
    told = asyncio.run(tell(plan, tmp_path, Site(record=str(tmp_path / "recording"))))
    verdict = Verdict(told)
    assert verdict.wrong == []
    assert verdict.summary()["arrived"] == verdict.summary()["eligible"]
    assert told.unanswered, "it was killed amid traffic"


def test_two_shims_on_one_database(tmp_path: Path) -> None:
    """One is killed amid traffic and started again; the database crashes, and meanwhile it is killed once more."""
    plan = Plan.of(PHONES or 50, seed=3, least=5)
    if not PHONES:
        short = replace(plan, minimum=2, killed=(0.4, 0.8), everybody=1.2, kills=(1.6, 2.7), dead=0.3)
        plan = replace(short, away=(2.6, 3.2), days=5.0)
    with postgres_server() as server:
        site = Site(2, server.new_database().secret, server)
        told = asyncio.run(tell(plan, tmp_path, site))
    verdict = Verdict(told)
    assert verdict.wrong == []
    assert verdict.summary()["arrived"] == verdict.summary()["eligible"]
    assert len(told.down) == 2
    assert told.unanswered, "it was killed amid traffic"
    assert len(told.away) == 2


def test_the_verdict_sees_what_the_interlocks_prevent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interlocks, "INTERLOCKS", ())
    monkeypatch.setattr(policy, "mismatch", lambda _rule, _phone: None)
    monkeypatch.setattr("proxy_addons.rule_index.identity_of_phone", lambda _phone: CX700)
    verdict = Verdict(asyncio.run(tell(replace(Plan.of(100), killed=(0.3, 0.5), everybody=0.6, days=0.8), tmp_path)))
    seen = {what.partition(":")[0] for what in verdict.wrong}
    assert seen >= {"strangers", "percentage", "concurrent", "kill_switch", "failed", "ends"}


CX700 = ("ucphone", "polycom", "cx700", "a", "enu")


def test_the_fleet_has_everything_in_it() -> None:
    members = list(populate(1000, 1))
    assert len({member.address for member in members}) == len({repr(member.identity) for member in members}) + 29
    assert {member.behaviour for member in members} == set(Behaviour)
    assert sum(member.family == "cx700" for member in members) == 400
    assert any(member.crash_loop for member in members)
    assert members == list(populate(1000, 1))
