from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures.byte_edits import EditMismatch
from captures.exchange import Body, Exchange, Request
from captures.journal import (
    Fault,
    Head,
    canonical,
    change,
    decision_entry,
    encode,
    identity_of,
    replay_body,
    replay_headers,
    verify,
)
from tests.captures.exchange_strategies import exchanges
from tests.captures.test_store import an_exchange

WHEN = "2026-11-23T09:00:00.000000Z"
CHECK = {
    "fact": "update-check",
    "mac_address": "00:04:f2:00:01:76",
    "model": "CX700",
    "vendor": "Polycom",
    "modules": [],
}
DECISION = {
    "fact": "decision",
    "action": "report",
    "rule": "r",
    "reason": "because",
    "version": "0.0.0.0",
    "dry_run": False,
}


def a_decision(old: bytes = b"<v>1.0.522.73</v>", new: bytes = b"<v>0.0.0.0</v>") -> Exchange:
    return replace(
        an_exchange(),
        request=Request("POST", "/RequestHandler/ucdevice.upx", body=Body.of(old)),
        rewritten_request=Request("POST", "/RequestHandler/ucdevice.upx", body=Body.of(new)),
        facts=(CHECK, DECISION),
    )


def a_chain(count: int = 4) -> list[bytes]:
    head, lines = Head(), []
    for index in range(1, count + 1):
        line, head = encode(decision_entry(replace(a_decision(), index=index), "p"), head, WHEN)
        lines.append(line)
    return lines


def faults(lines: list[bytes]) -> list[Fault]:
    return [found for found in verify(lines) if isinstance(found, Fault)]


@given(exchanges())
def test_replayed_over_the_original_an_entry_gives_what_was_sent(exchange: Exchange) -> None:
    (entry,) = verify([encode(decision_entry(exchange, "p"), Head(), WHEN)[0]])
    assert not isinstance(entry, Fault)
    changed = {each["message"]: each for each in entry["changes"]}
    pairs = {
        "request": (exchange.request, exchange.rewritten_request),
        "response": (exchange.response, exchange.rewritten_response),
    }
    assert set(changed) == {name for name, (_, after) in pairs.items() if after is not None}
    for name, (before, after) in pairs.items():
        if before is not None and after is not None:
            assert replay_body(changed[name], before.body.data or b"") == after.body.data
            assert replay_headers(changed[name], before.headers) == after.headers


def test_an_entry_says_what_was_changed() -> None:
    (changed,) = decision_entry(a_decision(), "p")["changes"]
    assert changed["edits"] == [{"offset": 3, "before": "1.0.522.73", "after": "0.0.0.0"}]
    odd = change("request", Request("GET", "/", body=Body.of(b"\xff")), Request("GET", "/", body=Body.of(b"\xfe")))
    assert odd["edits"] == [{"offset": 0, "before": "/w==", "after": "/g==", "encoding": "base64"}]


def test_a_body_that_is_not_held_is_journalled_by_hash() -> None:
    absent = Request("GET", "/", body=replace(Body.of(b"gone"), data=None))
    made = change("request", absent, absent)
    assert made["edits"] is None
    assert made["original"]["sha256"] == hashlib.sha256(b"gone").hexdigest()
    with pytest.raises(EditMismatch, match="no edits"):
        replay_body(made, b"gone")


def test_another_original_and_other_edits_are_refused() -> None:
    made = change("request", Request("GET", "/", body=Body.of(b"a")), Request("GET", "/", body=Body.of(b"b")))
    with pytest.raises(EditMismatch, match="another one"):
        replay_body(made, b"x")
    with pytest.raises(EditMismatch, match="another body"):
        replay_body({**made, "edits": []}, b"a")
    with pytest.raises(EditMismatch, match="header 0"):
        replay_headers({"headers": [{"position": 0, "before": [["A", "b"]], "after": []}]}, ())


def test_a_whole_chain_is_good() -> None:
    lines = a_chain()
    found = list(verify(lines))
    assert [entry["n"] for entry in found if not isinstance(entry, Fault)] == [1, 2, 3, 4]


@given(st.integers(0, 3), st.data())
def test_any_changed_byte_is_found_at_its_line(number: int, data: st.DataObject) -> None:
    lines = a_chain()
    position = data.draw(st.integers(0, len(lines[number]) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value not in {lines[number][position], 10}))
    lines[number] = lines[number][:position] + bytes([byte]) + lines[number][position + 1 :]
    assert faults(lines) == [Fault(number + 1, "was changed")]


def test_lines_removed_inserted_and_reordered_are_found() -> None:
    one, two, three, four = a_chain()
    forged, _ = encode({"entry": "decision", "phone": "q"}, Head(1, "0" * 64), WHEN)
    for lines, at in (
        ([two, three, four], 1),
        ([one, three, four], 2),
        ([one, three, two, four], 2),
        ([one, one, two, three], 2),
        ([one, forged, two], 2),
        ([one, b"\n", two], 2),
    ):
        assert [fault.line for fault in faults(lines)] == [at]


def test_a_line_forged_with_its_own_hash_breaks_the_next() -> None:
    one, two, three, _ = a_chain()
    forged, _ = encode({"entry": "decision", "phone": "q"}, Head(1, hash_of(one)), WHEN)
    assert [fault.line for fault in faults([one, forged, three])] == [3]
    assert faults([one, two]) == []


def hash_of(line: bytes) -> str:
    (entry,) = (found for found in verify([line]) if not isinstance(found, Fault))
    return str(entry["hash"])


def test_a_torn_line_is_no_fault_once_it_is_accounted_for() -> None:
    one, two, _, _ = a_chain()
    torn = two[:50]
    assert "is torn" in faults([one, torn])[0].what
    mended, _ = encode(
        {"entry": "torn", "sha256": hashlib.sha256(torn + b"\n").hexdigest()}, Head(1, hash_of(one)), WHEN
    )
    assert faults([one, torn + b"\n", mended]) == []
    assert [fault.line for fault in faults([one, torn[:-1] + b"\n", mended])] == [2]


@pytest.mark.parametrize("line", [b"[]\n", b"1\n", b"{}\n", b"[" * 100_000, b"9" * 5000 + b"\n", b"\xff\n", b"null\n"])
def test_hostile_lines_are_faults(line: bytes) -> None:
    assert [fault.line for fault in faults([line])] == [1]


def test_the_phone_is_told_by_mac_then_serial_then_address() -> None:
    assert identity_of(a_decision()) == ("mac", "00:04:f2:00:01:76")
    assert identity_of(an_exchange().with_facts(({"fact": "update-check", "serial": " A1 "},))) == ("serial", "a1")
    assert identity_of(an_exchange()) == ("address", "127.0.0.1")


def test_no_identity_is_written() -> None:
    assert b"00:04:f2" not in canonical(decision_entry(a_decision(), "p"))
