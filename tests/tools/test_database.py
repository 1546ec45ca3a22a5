"""A recording in PostgreSQL behind every verb that takes one."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from captures.database_url import DatabaseUrl
from captures.exchange import Body, Request, Response
from captures.facts import facts_of
from captures.recording import Recording
from captures.rows import microseconds
from proxy_addons.stored_history import PhoneProjection
from tests.bodies import CHECK_TARGET, OFFER_NEXT, STUCK, answer_body, check_body
from tests.captures.test_journal import DECISION
from tests.captures.test_recording import Acknowledged
from tests.captures.test_store import an_exchange
from tests.postgres import PostgresServer
from tools.cli import main

OURS, OTHERS = "00:04:f2:00:01:76", "00:04:f2:00:02:01"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[Any]]:
    """The exit code and the JSON lines of a command."""
    code = main([str(word) for word in words])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def url(database: DatabaseUrl) -> str:
    """A recording of two phones' checks, a decision each."""
    recording = Recording(database, projection=PhoneProjection())
    for number, mac in enumerate((OURS, OTHERS)):
        exchange = replace(
            an_exchange(),
            client=f"10.0.0.{number}:1037",
            connection=f"c{number}",
            request=Request("POST", CHECK_TARGET, body=Body.of(check_body(mac=mac.replace(":", "").upper()))),
            response=Response(200, body=Body.of(answer_body())),
        )
        done = Acknowledged()
        recording.add(exchange.with_facts((*facts_of(exchange), {**DECISION, "path": None})), done)
        assert done.wait()
    recording.close()
    return database.secret


def test_it_is_read_converted_and_replayed_like_any_other(
    url: str, postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, shown = run(capsys, "exchanges", "--json", url)
    assert (code, [line["kind"] for line in shown]) == (0, ["exchange", "exchange", "capture"])
    for target in (tmp_path / "rec", tmp_path / "flows.har", postgres.new_database().secret):
        assert run(capsys, "convert", "--json", url, target)[0] == 0
        code, again = run(capsys, "exchanges", "--json", target)
        assert (code, len(again)) == (0, 3)
        assert again[0]["request"]["body"] == shown[0]["request"]["body"]
    # And back: only where nothing is.
    other = postgres.new_database().secret
    assert run(capsys, "convert", "--json", tmp_path / "rec", other)[0] == 0
    assert main(["convert", str(tmp_path / "rec"), other]) == 2
    assert "expected an empty database" in capsys.readouterr().err
    (tmp_path / "rules.toml").write_text(OFFER_NEXT)
    code, replayed = run(capsys, "replay", "--json", url, "--rules", tmp_path / "rules.toml")
    assert (code, [line["decision"]["action"] for line in replayed]) == (0, ["offer", "offer"])


def test_its_journal_and_forgetting(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, (found,) = run(capsys, "journal", "verify", "--json", url)
    assert (code, found["good"], found["decisions"]) == (0, True, 2)
    code, (entry,) = run(capsys, "journal", "show", "--json", "--phone", OURS, url)
    assert (code, entry["identity"]) == (0, f"mac {OURS}")
    assert run(capsys, "forget", "--json", "--mac", OURS, url) == (
        0,
        [{"kind": "forgotten", "exchanges": 1, "bodies": 0, "waiting": 1}],
    )
    code, shown = run(capsys, "exchanges", "--json", url)
    assert [line["facts"][0]["mac_address"] for line in shown[:-1]] == [OTHERS]
    code, (found,) = run(capsys, "journal", "verify", "--json", url)
    assert (code, found["good"], found["decisions"]) == (0, True, 2)
    with psycopg.connect(url) as connection:
        for table in ("phones", "identities"):
            (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
            assert count == 1, table


def test_rules_are_explained_by_its_history(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text(OFFER_NEXT)
    words = ["rules", "explain", tmp_path / "rules.toml", "--model", "CX700", "--version", STUCK, "--mac", OURS]
    code, told = run(capsys, *words, "--record", url, "--json")
    assert code == 0
    assert told[0]["text"].endswith("history: eligible")
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO reservations VALUES ('uid', %s, 'stuck', 'cx700', %s)",
            [f"mac:{OURS}", microseconds(datetime.now(UTC))],
        )
    (tmp_path / "rules.toml").write_text(OFFER_NEXT + "limits.per_phone_per_day = 1\n")
    code, told = run(capsys, *words, "--record", url, "--json")
    holding = [line["name"] for line in told if line["kind"] == "interlock" and line["verdict"]]
    assert (code, holding) == (1, ["daily_limit"])


@pytest.mark.parametrize(
    "words",
    [
        ["exchanges", "URL"],
        ["journal", "verify", "URL"],
        ["forget", "--mac", OURS, "URL"],
        ["convert", "URL", "out.har"],
        ["convert", "URL", "URL"],
        ["replay", "URL", "--to", "http://127.0.0.1:1"],
    ],
)
@pytest.mark.parametrize("nowhere", ["postgresql://me:secret@127.0.0.1:1/upshim", "mysql://me:secret@db/upshim"])
def test_one_that_cannot_be_reached_is_one_line_without_its_password(
    words: list[str], nowhere: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main([nowhere if word == "URL" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "secret" not in error
    assert "upshim" in error
