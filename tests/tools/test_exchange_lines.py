from __future__ import annotations

import io
import re
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest

from captures.exchange import Body, Exchange, Request, Response
from captures.items import DECRYPTED, CaptureSummary, Item, JoinedObject, Observation
from tests.captures.test_store import an_exchange
from tools.exchange_lines import Lines

LONG = "/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.103/CPE/CPE.nbt"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(*items: Item, terminal: bool = False) -> list[str]:
    out = Terminal() if terminal else io.StringIO()
    lines = Lines(out)
    for item in items:
        lines.show(item)
    return out.getvalue().splitlines()


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)


def exchange(**changes: object) -> Exchange:
    request = Request("GET", LONG, headers=(("Host", "pool.contoso.com"),))
    one = replace(an_exchange(), request=request, response=Response(200, body=Body.of(b"x" * 1500)), problems=())
    return replace(one, **{"complete": True, **changes})  # type: ignore[arg-type]


def test_columns_stand_below_each_other_and_nothing_is_cut_in_a_pipe() -> None:
    other = exchange(index=1, client="[2001:db8::1234:5678]:49152", response=None, problems=("no answer",))
    header, first, second, problem = shown(exchange(), other)
    assert first.split() == [
        "0",
        *first.split()[1:3],
        exchange().client,
        "GET",
        "200",
        "1500",
        f"pool.contoso.com{LONG}",
    ]
    assert first.index("pool.contoso") == header.index("target")
    assert second.split()[3:] == ["[2001:db8::1234:5678]:49152", "GET", "-", "-", f"pool.contoso.com{LONG}"]
    assert problem == "       ! no answer"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", first[6:29])


def test_on_a_terminal_rows_fit_and_the_day_is_said_once() -> None:
    later = exchange(index=1, started=exchange().started + timedelta(days=1))
    facts = ({"fact": "sip"} | SIP,)
    seen_later = replace(seen(), facts=facts, capture=later.capture, time=later.started)
    rows = shown(exchange(), exchange(), later, seen_later, terminal=True)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in rows]
    assert all(len(row) <= 100 for row in plain)
    assert sum(row.endswith(" UTC") for row in plain) == 2
    assert sum("…" in row and row.endswith("CPE.nbt") for row in plain) == 3
    assert any("\x1b[32m" in row for row in rows)


def test_long_problems_wrap_below_themselves() -> None:
    rows = shown(exchange(problems=("word " * 40,)), terminal=True)
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", row) for row in rows[3:]]
    assert len(plain) > 1
    assert plain[0].startswith("       ! word")
    assert all(row.startswith("         word") for row in plain[1:])


SIP = {
    "method": "REGISTER", "status": 403, "reason": "Forbidden", "diagnostics": [{"code": 4004, "reason": "no"}],
    "in_band": None,
}  # fmt: skip


def seen() -> Observation:
    return Observation("c", exchange().started, "10.0.0.1:5060", "10.0.0.2:5060", ({"fact": "sip"} | SIP,))


def test_other_protocols_stand_in_the_same_columns() -> None:
    header, row = shown(seen())
    assert row.split()[2:] == [
        "10.0.0.1:5060",
        "SIP",
        "403",
        "Forbidden",
        "to",
        "REGISTER;",
        "ms-diagnostics",
        "4004",
        "no",
    ]
    assert row.index("403") == header.index("target")


def test_objects_say_what_they_are_made_of() -> None:
    one = JoinedObject("c", "host", "/x.cab", 39618, "ab" * 32, "cd" * 20, True, (0, 1, 2, 5, 7, 8))
    *_, row, digests, sha1 = shown(exchange(), one)
    assert row.split("  ")[3].strip() == "joined from exchanges 0-2, 5, 7-8"
    assert row.endswith("39618  host/x.cab")
    assert (digests.strip(), sha1.strip()) == (f"complete: sha256 {'ab' * 32}", f"sha1 {'cd' * 20}")
    part = replace(one, complete=False, sha256=None, sha1=None, missing=((0, 9), (20, 29)), problems=("odd",))
    assert shown(part)[-2:] == ["       ! 20 bytes missing, in 2 stretches", "       ! odd"]


def test_the_account_and_what_it_lacks() -> None:
    counts = {"exchanges": 1, "packets": 20, "bytes missing": 1, "gaps": 0}
    summary = CaptureSummary("c.pcap", "pcap", Counter(counts))
    assert shown(replace(summary, problems=("cut off",))) == [
        "c.pcap: pcap: 1 exchange, 1 byte missing, 20 packets",
        "       ! cut off",
    ]


def test_tls_is_told_by_the_address() -> None:
    *_, row = shown(exchange(facts=(DECRYPTED,)))
    assert row.endswith(f"https://pool.contoso.com{LONG}")


def test_nothing_steers_the_terminal() -> None:
    ugly = exchange(request=Request("G\x1b]0;x", "/\x1b[2J", headers=()), problems=("\x07",))
    assert all("\x1b]" not in row and "\x1b[2J" not in row and "\x07" not in row for row in shown(ugly, terminal=True))
