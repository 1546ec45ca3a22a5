"""A fleet over real sockets before two real proxies on one PostgreSQL: one is killed, then the database goes away.

UPSHIM_FLEET gives another number of phones than the quick few.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import sqlalchemy as sa

from captures.database_url import DatabaseUrl
from captures.schema import PLACES, RESERVATIONS
from captures.store import Store
from dissectors.audit_log import AuditRow
from tests.postgres import PostgresServer, postgres_server
from tests.proxies import Proxy, running
from tools.fleet.population import populate
from tools.fleet.real import IMAGE, RealFleet
from tools.fleet.story import Plan, Told, audit_rows, rules_text, update_server
from tools.fleet.verdict import Verdict, able, zero
from tools.update_server.http import UpdateServer

PHONES = int(os.environ.get("UPSHIM_FLEET", "24"))
MOST_ROUNDS = 12 + PHONES // 100
WITHIN = 60.0
SEED = 3


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def second() -> datetime:
    """Now, as the audit log tells it."""
    return datetime.now(UTC).replace(microsecond=0)


def get(url: str) -> bytes:
    with urlopen(url, timeout=WITHIN) as answer:
        return bytes(answer.read())


def said(proxy: Proxy, what: bytes) -> bool:
    return what in proxy.log


def idle(admin: str) -> bool:
    return bool(json.loads(get(f"{admin}/health"))["exchanges_in_flight"] == 0)


def recorded(admin: str) -> bool:
    return b"upshim_recording_waiting 0.0" in get(f"{admin}/metrics")


def places_lost(database: DatabaseUrl) -> int:
    """Places held by downloads and decisions of which nobody will ever tell the end, while none is under way."""
    with closing(Store.open(database)) as store, store.engine.connect() as connection:
        fetches = sa.select(PLACES.c.identity).where(PLACES.c.uid != "")
        both = sa.union(fetches, sa.select(RESERVATIONS.c.identity)).subquery()
        return int(connection.execute(sa.select(sa.func.count()).select_from(both)).scalar_one())


class Site:
    """Two proxies, what they share, and the server behind them."""

    def __init__(self, folder: Path, server: UpdateServer, postgres: PostgresServer, stack: ExitStack) -> None:
        small = max(2, PHONES // 100)
        self.plan = Plan(
            PHONES, SEED, 30, per_day=4, concurrent=max(6, PHONES // 40), undecided=small, minimum=small, window=None
        )
        self.folder, self.server, self.postgres = folder, server, postgres
        self.rules, self.switch = folder / "rules.toml", folder / "stop"
        self.rules.write_text(rules_text(self.plan, self.plan.percentage))
        self.database: DatabaseUrl = postgres.new_database()
        self._stack = stack
        self.proxies = [self.start("one"), self.start("two")]
        self.urls = [f"http://127.0.0.1:{proxy.port}" for proxy in self.proxies]

    def start(self, name: str) -> Proxy:
        options = {
            "admin": "127.0.0.1:0",
            "rules": self.rules,
            "kill_switch": self.switch,
            "record": self.database.secret,
        }
        return self._stack.enter_context(running("upshim", self.server.url, self.folder / name, **options))

    def settle(self) -> None:
        """Wait until everything that is over is recorded."""
        for proxy in self.proxies:
            until(partial(said, proxy, b"admin listener at"), "the admin listener")
            found = re.search(rb"admin listener at (\S+)", proxy.log)
            assert found is not None
            admin = found[1].decode()
            until(partial(idle, admin), "exchanges end")
            until(partial(recorded, admin), "exchanges are recorded")

    def kill_one(self) -> None:
        self.proxies[0].kill()

    def start_again(self) -> None:
        self.proxies[0] = self.start("one")
        self.urls[0] = f"http://127.0.0.1:{self.proxies[0].port}"

    def widen(self) -> None:
        told = [proxy.log.count(b"rules in force") for proxy in self.proxies]
        new = self.rules.with_suffix(".new")
        new.write_text(rules_text(self.plan, 100))
        new.replace(self.rules)
        until(
            lambda: all(proxy.log.count(b"rules in force") > n for proxy, n in zip(self.proxies, told, strict=True)),
            "new rules in force",
        )

    def rows(self) -> list[AuditRow]:
        """The checks the server has logged so far."""
        assert self.server.audit is not None
        self.server.audit.flush()
        return audit_rows(self.folder)


def test_two_proxies_on_one_database(tmp_path: Path) -> None:
    with ExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        server = stack.enter_context(update_server(tmp_path, lambda _: None, lambda: datetime.now(UTC), IMAGE))
        site = Site(tmp_path, server, postgres, stack)
        fleet = RealFleet(site.urls, populate(PHONES, SEED), SEED)
        fleet.round()
        site.settle()

        began = second()
        site.switch.touch()
        before = len(site.rows())
        fleet.round()
        assert not any(zero(row) for row in site.rows()[before:])
        killed = began, second()
        site.switch.unlink()

        everybody = second()
        site.widen()
        fleet.round(site.kill_one, after=PHONES // 3)
        site.start_again()
        site.settle()
        fleet.round()
        site.settle()

        postgres.stop()
        before = len(site.rows())
        checks = [len(visitor.answered) for visitor in fleet.visitors]
        fleet.round()
        away = site.rows()[before:]
        assert away
        assert not any(zero(row) for row in away)  # an unknown history: nothing is offered ...
        for visitor, asked in zip(fleet.visitors, checks, strict=True):
            assert set(visitor.answered[asked:]) <= {200}  # ... and traffic flows
        postgres.start()

        waiting = [phone for phone in fleet.phones if able(phone.member)]
        for _ in range(MOST_ROUNDS):
            if all(phone.version == phone.member.ends_on for phone in waiting):
                break
            site.settle()
            fleet.round()
        told = Told(site.plan, site.rows(), fleet.phones, fleet.fetched, killed, everybody, fleet.disturbed)
        verdict = Verdict(told)
        wrong = verdict.wrong
        if places_lost(site.database) >= site.plan.concurrent:
            # What the killed proxy had under way holds its places for a while: then nobody can arrive in time.
            wrong = [what for what in wrong if not what.startswith("ends")]
        assert wrong == []
        assert verdict.reported
        for proxy in site.proxies:
            proxy.stop()  # writes what it has spooled
        with closing(Store.open(site.database)) as store:
            kept = sum(any(fact["fact"] == "update-check" for fact in one.facts) for one in store.exchanges())
        assert kept >= len(told.rows) - PHONES  # but for what was in flight in the proxy that was killed
