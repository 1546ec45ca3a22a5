from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from captures.exchange import Exchange
from captures.forgetting import forget, of_phone
from captures.journal import Fault, Head, encode, replay_body, replay_headers, verify
from captures.journal_file import JOURNAL
from captures.recording import Recording
from captures.recording_folder import DATABASE
from captures.retention import Keep
from captures.store import Store
from captures.store_reader import with_bodies
from tests.captures.test_journal import CHECK, DECISION, a_decision
from tests.captures.test_journal_file import add
from tests.captures.test_store import an_exchange
from tools.cli import main

OURS, OTHERS = "00:04:f2:00:01:76", "00:04:f2:00:02:01"


def of(mac: str, **changes: Any) -> Exchange:
    return replace(a_decision(), facts=({**CHECK, "mac_address": mac}, DECISION), **changes)


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    writer = Recording(tmp_path / "rec")
    fetched = replace(an_exchange(), client="10.0.0.1:9", connection="c1")
    old = replace(of(OURS, client="10.0.0.1:1", connection="c1"), ended=datetime(2001, 1, 1, tzinfo=UTC))
    add(writer, old, fetched, of(OTHERS, client="10.0.0.2:1", connection="c2"), of(OURS, client="10.0.0.1:2"))
    writer.close()
    return tmp_path / "rec"


def lines_of(recording: Path) -> list[bytes]:
    return (recording / JOURNAL).read_bytes().splitlines(keepends=True)


def verified(recording: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["journal", "verify", str(recording), "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_a_good_journal(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verified(recording, capsys)
    assert (code, found["good"], found["decisions"]) == (0, True, 3)
    assert main(["journal", "verify", str(recording), "--head", found["head"]]) == 0
    assert found["head"] in capsys.readouterr().out


def test_tampering_is_found_with_its_first_line(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, three = lines_of(recording)
    for lines, at in (([one, two.replace(b"CX700", b"CX500"), three], 2), ([one, three], 2), ([two, one, three], 1)):
        (recording / JOURNAL).write_bytes(b"".join(lines))
        code, found = verified(recording, capsys)
        assert code == 1
        assert [fault["line"] for fault in found["faults"]] == [at]
        assert main(["journal", "verify", str(recording)]) == 1
        assert f"line {at}: " in capsys.readouterr().out


def test_a_cut_end_is_found_by_the_store(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recording / JOURNAL).write_bytes(b"".join(lines_of(recording)[:-1]))
    assert verified(recording, capsys)[1]["problems"] == ["exchange 4: its entry is missing"]
    (recording / JOURNAL).write_bytes(b"")
    assert len(verified(recording, capsys)[1]["problems"]) == 3


def test_a_journal_that_is_gone_is_not_good(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (recording / JOURNAL).unlink()
    code, found = verified(recording, capsys)
    assert (code, found["good"], found["entries"]) == (1, False, 0)
    assert found["problems"] == [f"there is no {JOURNAL}", *(f"exchange {n}: its entry is missing" for n in (1, 3, 4))]
    assert main(["journal", "show", str(recording)]) == 2
    Store.create(tmp_path / "bare").close()  # as `convert` makes one: there never was a journal
    assert main(["journal", "verify", str(tmp_path / "bare")]) == 2
    assert main(["journal", "verify", str(tmp_path / "bare"), "--head", "1f0c"]) == 1


def test_a_journal_and_a_store_that_disagree(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sqlite3.connect(recording / DATABASE) as database:
        database.execute("""UPDATE facts SET content = replace(content, '"r"', '"another"') WHERE exchange = 1""")
        database.execute("DELETE FROM exchanges WHERE id = 3")
        database.execute("DELETE FROM facts WHERE exchange = 3")
    database.close()
    problems = verified(recording, capsys)[1]["problems"]
    assert [problem.partition(":")[0] for problem in problems] == ["exchange 1", "exchange 3"]
    assert "the store says rule 'another'" in problems[0]
    assert "neither in the store" in problems[1]


def test_only_a_noted_head_finds_what_was_cut_on_both_sides(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noted = verified(recording, capsys)[1]["head"]
    (recording / JOURNAL).write_bytes(b"".join(lines_of(recording)[:-1]))
    with sqlite3.connect(recording / DATABASE) as database:
        database.execute("DELETE FROM exchanges WHERE id = 4")
        database.execute("DELETE FROM facts WHERE exchange = 4")
    database.close()
    assert verified(recording, capsys)[0] == 0
    code, found = verified(recording, capsys, "--head", noted)
    assert code == 1
    assert "was cut" in found["problems"][0]


def test_what_expired_is_no_problem(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = Recording(recording, keep=Keep(days=36_500 / 4))
    add(writer, a_decision())
    writer.close()
    code, found = verified(recording, capsys)
    assert (code, found["good"], found["entries"]) == (0, True, 5)


def test_show_by_phone_and_time(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "show", str(recording), "--phone", "00-04-F2-00-01-76", "--json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["n"], line["identity"]) for line in shown] == [(1, f"mac {OURS}"), (3, f"mac {OURS}")]
    assert main(["journal", "show", str(recording), "--until", "2020-01-01"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["journal", "show", str(recording), "--since", "2020-01-01"]) == 0
    assert capsys.readouterr().out.count("report by r") == 3


def test_undo_report_tells_what_would_have_passed(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["journal", "undo-report", str(recording)]) == 0
    told = capsys.readouterr().out
    assert told.count("body at 3: '1.0.522.73' became '0.0.0.0'") == 3
    assert "without upshim the server would have been sent" in told


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["show", "REC", "--phone", "00:11:22:33:44:55"], "--phone: the journal knows no 00:11:22:33:44:55"),
        (["show", "REC", "--since", "soon"], "--since: expected a time"),
        (["verify", "nowhere"], "not a recording"),
    ],
)
def test_unusable_input(recording: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str) -> None:
    assert main(["journal", *(str(recording) if word == "REC" else word for word in words)]) == 2
    assert complaint in capsys.readouterr().err


def test_an_entry_that_lacks_a_part_is_one_line(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recording / JOURNAL).write_bytes(encode({"entry": "decision"}, Head(), "2026-11-23T09:00:00.000000Z")[0])
    assert main(["journal", "verify", str(recording)]) == 2
    assert "lacks a part" in capsys.readouterr().err


def test_replayed_over_the_recorded_originals_the_journal_gives_what_was_sent(recording: Path) -> None:
    store = Store.open(recording)
    exchanges = {exchange.index: with_bodies(exchange, store.bodies, 1 << 20) for exchange in store.exchanges()}
    store.close()
    replayed = 0
    for entry in verify(lines_of(recording)):
        assert not isinstance(entry, Fault)
        for change in entry["changes"]:
            exchange = exchanges[entry["exchange"]]
            assert exchange.rewritten_request is not None
            assert replay_body(change, exchange.request.body.data or b"") == exchange.rewritten_request.body.data
            assert replay_headers(change, exchange.request.headers) == exchange.rewritten_request.headers
            replayed += 1
    assert replayed == 3


def test_forget_leaves_no_trace_and_a_good_journal(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store.create(recording)
    for path in store.bodies.folder.iterdir():
        os.utime(path, (0, 0))
    store.close()
    assert main(["forget", "--mac", "0004F2000176", str(recording)]) == 0
    assert capsys.readouterr().out.startswith("removed 3 exchanges and 0 bodies")  # the other phone has the same
    assert verified(recording, capsys)[0] == 0
    for path in recording.rglob("*"):
        assert path.is_dir() or OURS.encode() not in path.read_bytes()
    assert main(["forget", "--mac", OURS, str(recording), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["exchanges"] == 0
    assert forget(recording, OTHERS, datetime.now(UTC) + timedelta(hours=1)) == (1, 2, 0)
    assert verified(recording, capsys)[0] == 0


def test_a_phone_that_comes_back_has_a_new_name(recording: Path) -> None:
    before = [json.loads(line)["phone"] for line in lines_of(recording)]
    forget(recording, OURS)
    writer = Recording(recording)
    add(writer, of(OURS))
    writer.close()
    assert json.loads(lines_of(recording)[-1])["phone"] not in before


def test_forget_while_recording(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = Recording(recording)
    add(writer, of(OURS))
    forget(recording, OURS)
    add(writer, of(OTHERS))
    writer.close()
    code, found = verified(recording, capsys)
    assert (code, found["torn"], found["late"]) == (0, 0, 0)


def test_whose_exchange_it_is() -> None:
    def seen(index: int, address: str, connection: str, mac: str | None = None) -> Exchange:
        facts = ({**CHECK, "mac_address": mac},) if mac else ()
        return replace(an_exchange(), index=index, client=f"{address}:1", connection=connection, facts=facts)

    exchanges = [
        seen(1, "a", "c1"),  # before the first check from its address
        seen(2, "a", "c2", OURS),
        seen(3, "a", "c3"),
        seen(4, "a", "c4", OTHERS),  # the address has gone to another phone
        seen(5, "a", "c5"),
        seen(6, "b", "c2"),  # the same connection
        seen(7, "c", "c7"),
    ]
    assert of_phone(exchanges, OURS)[0] == [1, 2, 3, 6]


@pytest.mark.parametrize("words", [["--mac", "x", "."], ["--mac", OURS, "/nowhere"]])
def test_forget_refuses_what_it_cannot_use(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forget", *words]) == 2
    assert capsys.readouterr().err.startswith("upshim forget: ")


def test_a_recording_whose_database_is_damaged_loses_no_body(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (recording / "bodies").iterdir():
        os.utime(path, (0, 0))
    bodies = sorted((recording / "bodies").iterdir())
    os.truncate(recording / DATABASE, 0)
    assert main(["forget", "--mac", OURS, str(recording)]) == 2
    assert "expected schema version" in capsys.readouterr().err
    assert sorted((recording / "bodies").iterdir()) == bodies
