from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from captures.database_url import DatabaseUrl, Place
from captures.exchange import Exchange, Fact
from captures.recording import Recording
from captures.store import Store
from dissectors.version import Version
from proxy_addons.history import STATES, Failure, PhoneHistory
from proxy_addons.stored_history import PhoneProjection
from tests.captures.test_store import an_exchange
from tools.cli import main
from tools.phones import show

NOW = datetime.now(UTC) - timedelta(hours=1)
MAC = "00:04:f2:00:01:76"
OTHER = "00:04:f2:00:01:77"


def check(mac: str, version: str, minute: int, action: str = "leave") -> Exchange:
    at = NOW + timedelta(minutes=minute)
    facts: list[Fact] = [
        {
            "fact": "update-check", "mac_address": mac, "serial": None, "update_status": None,
            "modules": [{"version": version}],
        },
        {
            "fact": "decision", "action": action, "rule": "r", "path": "p", "reason": "", "version": None,
            "dry_run": False,
        },
    ]  # fmt: skip
    return replace(an_exchange(), client="10.0.0.9:1000", started=at, ended=at, facts=tuple(facts))


def record(place: Place, exchanges: list[Exchange], *, folded: bool) -> None:
    recording = Recording(place, projection=PhoneProjection() if folded else None)
    for one in exchanges:
        recording.add(one)
    recording.close()


CHECKS = [check(MAC, "1.0.522.73", 0, "hold"), check(OTHER, "3.5.6907.222", 1), check(MAC, "1.0.522.73", 2, "hold")]


def test_users_are_shown_when_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = check(MAC, "1.0.522.73", 0)
    record(tmp_path, [one.with_facts(({**one.facts[0], "user": "sip:amy@contoso.com"}, *one.facts[1:]))], folded=True)
    assert main(["phones", str(tmp_path), "--json"]) == 0
    assert "amy" not in capsys.readouterr().out
    assert main(["phones", str(tmp_path), "--json", "--secrets"]) == 0
    assert json.loads(capsys.readouterr().out)["users"][0][1] == "sip:amy@contoso.com"


def test_phones_and_their_states(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    record(place, CHECKS, folded=True)
    name = place.secret if isinstance(place, DatabaseUrl) else str(place)
    assert main(["phones", name]) == 0
    said = capsys.readouterr().out
    assert [line.split()[:4] for line in said.splitlines()[1:3]] == [
        [OTHER, "current", "3.5.6907.222", "1"],
        [MAC, "held", "1.0.522.73", "2"],
    ]
    assert "2 phones: 1 current, 1 held" in said
    assert main(["phones", name, "--json", "--state", "held"]) == 0
    (line,) = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert (line["kind"], line["identity"], line["state"], line["checks"]) == ("phone", f"mac:{MAC}", "held", 2)
    assert main(["phones", name, "--mac", "00-04-F2-00-01-77", "--state", "held"]) == 1
    assert "0 phones" in capsys.readouterr().out


def test_a_recording_made_without_histories(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(tmp_path / "rec", CHECKS, folded=False)
    with closing(Store.open(tmp_path / "rec")) as store:
        assert not store.folded
    assert main(["phones", str(tmp_path / "rec"), "--json"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(
    ("columns", "left_out"),
    [(30, 5), (70, 4), (90, 3), (140, 0)],
)
def test_a_narrow_terminal_cuts_nothing(
    columns: int, left_out: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # takes the output for a terminal
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    why = "fetched a file again that it had in full, and again"
    failed = PhoneHistory(f"mac:{MAC}", last_seen=NOW, failures=(Failure(NOW, Version.parse("1.0.522.103"), why),))
    show([failed, PhoneHistory(f"mac:{OTHER}", checks=3)])
    out = capsys.readouterr().out
    assert "…" not in out
    assert MAC in out
    assert OTHER in out
    told = out.partition("Not shown, for want of room: ")[2]
    assert len(told.split(", ") if told else []) == left_out
    assert ("again" in out) is (left_out < 5)


def test_every_state_has_its_name() -> None:
    assert PhoneHistory().state == STATES[0]


@pytest.mark.parametrize("words", [("/dev/null",), ("rec", "--mac", "00:04"), ("none",)])
def test_what_cannot_be_used_is_one_line(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["phones", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
