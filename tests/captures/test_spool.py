from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures.exchange import Exchange
from captures.journalling import told_of
from captures.spool import Spool, SpoolFull, Waiting
from tests.captures.test_journal import a_decision
from tests.captures.test_store import EXCHANGES, an_exchange


def some(*names: str) -> list[Waiting]:
    return [Waiting(name, replace(an_exchange(name), capture="live")) for name in names]


def drained(spool: Spool, most: int = 2) -> list[str]:
    names = []
    while spool.pending:
        page, taken = spool.page(most)
        names += [one.uid for one in page]
        spool.done(taken)
    return names


@given(st.lists(st.tuples(EXCHANGES, st.booleans()), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_what_waits_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, exchanges: list[tuple[Exchange, bool]]
) -> None:
    waiting = [
        Waiting(f"fetch {n}", fetch={"address": "10.0.0.1", "version": "1.0.0.0", "at": n})
        if is_fetch
        else Waiting(str(n), replace(exchange, capture="live"), told_of(exchange))
        for n, (exchange, is_fetch) in enumerate(exchanges)
    ]
    spool = Spool(tmp_path_factory.mktemp("spool"))
    spool.append(waiting)
    page, taken = spool.page(10)
    assert page == waiting
    spool.done(taken)
    assert not spool.pending
    assert spool.size == 0
    spool.close()


def test_what_the_journal_will_tell_waits_too(tmp_path: Path) -> None:
    told = told_of(a_decision())
    assert told is not None
    spool = Spool(tmp_path)
    spool.append([Waiting("one", an_exchange(), told)])
    assert spool.page(1)[0][0].told == told
    spool.close()


def test_it_is_read_in_order_while_it_grows(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append(some("a", "b", "c"))
    page, taken = spool.page(2)
    assert [one.uid for one in page] == ["a", "b"]
    spool.append(some("d"))
    spool.done(taken)
    assert drained(spool) == ["c", "d"]
    spool.append(some("e"))
    assert drained(spool) == ["e"]
    spool.close()


def test_a_process_that_is_gone_leaves_what_waited_to_the_next(tmp_path: Path) -> None:
    one, two = Spool(tmp_path), Spool(tmp_path)
    one.append(some("of one"))
    two.append(some("of two", "more"))
    three = Spool(tmp_path)
    assert not three.pending, "what has an owner is not touched"
    for gone in (one, two):
        gone.close()
    four = Spool(tmp_path)
    assert sorted(drained(four)) == ["more", "of one", "of two"]
    three.close()
    four.close()
    assert not drained(Spool(tmp_path)), "once"


def torn(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b'{"uid": "half')


def spoilt(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b'{"uid": 1}\n\xff\n', *lines[1:]]))


def beyond_all_times(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    line = re.sub(rb'"started": \d+', b'"started": 9' + b"9" * 30, lines[0])
    assert line != lines[0]
    path.write_bytes(b"".join([line.replace(b'"a"', b'"z"'), *lines]))


@pytest.mark.parametrize("damage", [torn, spoilt, beyond_all_times])
def test_damage_costs_what_is_damaged(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    first = Spool(tmp_path)
    first.append(some("a", "b"))
    first.close()
    damage(tmp_path / "0.jsonl")
    second = Spool(tmp_path)
    second.append(some("c"))
    assert drained(second) == ["a", "b", "c"]
    second.close()
    # The same where another process has to take over.
    holder, left = Spool(tmp_path), Spool(tmp_path)
    left.append(some("a", "b"))
    left.close()
    damage(tmp_path / "1.jsonl")
    holder.close()
    third = Spool(tmp_path)
    assert drained(third) == ["a", "b"]
    third.close()


def test_it_is_bounded_and_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path, most=2000)
    spool.append(some("a"))
    with pytest.raises(SpoolFull):
        spool.append(some(*"bcdefgh"))
    assert drained(spool) == ["a"]
    spool.append(some("z"))
    assert (tmp_path / "0.jsonl").stat().st_mode & 0o777 == 0o600
    spool.close()
