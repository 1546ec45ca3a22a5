"""What happens to the fleet: the server, the rules and when they change, the kill switch.

A shim that records is a process of its own, which is killed amid traffic and started again, twice; several of them
share a database, which crashes and is away for a while.
"""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence, Set
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from captures.audit import audit, entries_of
from captures.database_url import place_of
from captures.schema import FACTS
from captures.store import Store
from dissectors.audit_log import AuditRow, read_rows
from tools.fleet.phone import FleetPhone
from tools.fleet.population import INTERIM, LAST, OLDER, STUCK, populate
from tools.fleet.postgres import PostgresServer
from tools.fleet.shim import AddonShim, Shim
from tools.fleet.shim_process import ShimProcess
from tools.fleet.simulation import DAY, Fetched, Happening, Simulation
from tools.fleet.virtual import Clock, Front
from tools.update_server.audit import AuditLogWriter
from tools.update_server.field_story import FieldStory
from tools.update_server.http import ServerEvent, UpdateServer
from tools.update_server.messages import NoOffer
from tools.update_server.packages import CX700, make_synthetic
from tools.update_server.rules import Rule, RuleBook
from tools.update_server.service import UpdateService

TOGETHER = 40  # phones at most that ask at the same moment, where several shims take them
MOMENTS = 5  # of a day, at least
AMIDST = 3  # answers on their way when a shim is killed, or the database is stopped
IMAGE = 64 << 10  # bytes: the smallest that is taken for firmware
FAMILIES = {
    "cx700": CX700,
    "cx500": CX700._replace(model="CX500"),
    "ip8540": CX700._replace(brand="LG-Nortel", model="IP8540"),
}
ACTIONS = {
    "cx700": 'then.report = "0.0.0.0"\ncheck_files = true\n',
    "cx500": 'then.offer = { version = "next", file = "CPE.nbt", signature_file = "CPE.cat" }\n',
    "ip8540": 'then.report = "0.0.0.0"\n',
}


@dataclass(frozen=True, slots=True)
class Plan:
    """The limits in force, and the story's turns as days from its beginning."""

    phones: int
    seed: int = 1
    percentage: int = 20  # of cx700, until everybody
    per_day: int = 2
    concurrent: int = 4
    undecided: int = 10  # ip8540
    minimum: int = 5  # ip8540
    killed: tuple[float, float] = (1.0, 1.5)
    everybody: float = 2.5
    kills: tuple[float, ...] = (3.0, 4.1)  # of the first shim
    dead: float = 0.15  # for so long
    away: tuple[float, float] = (4.0, 4.3)  # the database: a shim that is killed meanwhile leaves what waits for it
    days: float = 9.0
    window: tuple[int, int] | None = (20, 8)  # hours, UTC, of cx500

    @classmethod
    def of(cls, phones: int, seed: int = 1, least: int = 2) -> Plan:
        """Limits in proportion to the fleet."""
        return cls(phones, seed, concurrent=max(least, phones // 400))


def rules_text(plan: Plan, percentage: int) -> str:
    """The proxy's rules."""
    fleet = f"limits.fleet_failure_rate = 0.5\nlimits.fleet_minimum = {max(20, plan.phones // 20)}\n"
    limits = {
        "cx700": f"when.percentage = {percentage}\nlimits.concurrent_downloads = {plan.concurrent}\n{fleet}",
        "cx500": f'when.window = "{plan.window[0]}:00-{plan.window[1]}:00 UTC"\n' if plan.window else "",
        "ip8540": 'limits.fleet_failure_rate = 0.1\nlimits.fleet_window = "30d"\n'
        f"limits.fleet_minimum = {plan.minimum}\nlimits.fleet_undecided = {plan.undecided}\n",
    }
    paths = [
        f'[[path]]\nname = "{name}"\ndevice_type = "{key.device_type}"\nvendor = "{key.brand}"\nmodel = "{key.model}"\n'
        f'revision = "{key.revision}"\nlocale = "{key.locale}"\nwaypoints = ["{INTERIM}", "{LAST}"]\n'
        f'required = ["{INTERIM}"]\n'
        for name, key in FAMILIES.items()
    ]
    rules = [
        f'[[rule]]\nname = "{name}"\npath = "{name}"\nwhen.version = "< 1.0.522.101"\n{ACTIONS[name]}'
        f"limits.per_phone_per_day = {plan.per_day}\n{limits[name]}"
        for name in FAMILIES
    ]
    return "\n".join([*paths, *rules])


@contextmanager
def update_server(
    folder: Path, on_event: Callable[[ServerEvent], None], clock: Callable[[], datetime], image: int = IMAGE
) -> Iterator[UpdateServer]:
    """The server of the field story: nothing for the stuck, the interim for those that run nothing."""
    updates = folder / "updates"
    for key in FAMILIES.values():
        for version in (INTERIM, LAST):
            make_synthetic(updates, version, image, key)
    stuck = tuple(FieldStory(version, None) for version in (STUCK, OLDER))
    empty = tuple(FieldStory.of("0.0.0.0", str(INTERIM), key.model) for key in FAMILIES.values())
    book = RuleBook(tuple(Rule(key, approved_version=LAST) for key in FAMILIES.values()))
    service = UpdateService(updates, book, (*stuck, *empty))
    audit = AuditLogWriter(folder, "fleet", clock)
    with UpdateServer(service, audit=audit, no_offer=NoOffer.BLANK, on_event=on_event, clock=clock) as server:
        yield server


def audit_rows(folder: Path) -> list[AuditRow]:
    """What the server has logged."""
    rows = []
    for path in sorted((folder / "Logs").rglob("RequestHandlerAuditLog_*")):
        with path.open("rb") as file:
            rows += list(read_rows(iter(lambda: file.read(1 << 16), b"")))
    return sorted(rows, key=lambda row: row.logged)


@dataclass(slots=True)
class Told:
    """How it went: what the server logged, what reached the phones, and where they ended."""

    plan: Plan
    rows: list[AuditRow]
    phones: Sequence[FleetPhone]
    fetched: Sequence[Fetched]
    killed: tuple[datetime, datetime]  # while the kill switch was on
    everybody: datetime  # when the rollout was widened
    disturbed: Set[str] = frozenset()  # phones whose download a proxy may have taken into its grave
    answered: int = 0  # checks
    unanswered: Sequence[datetime] = ()
    down: list[tuple[datetime, datetime]] = field(default_factory=list)  # while nobody was there to answer
    away: list[datetime] = field(default_factory=list)  # when the database went, and when it was back
    recorded: int | None = None  # checks
    journal: Sequence[str] = ()  # what is wrong with it


@dataclass(slots=True)
class Site:
    """What stands between phones and server: shims, and where they record, a folder or a database.

    `database` is the database's server, where it may be stopped.
    """

    shims: int = 1
    record: str | None = None
    database: PostgresServer | None = None


class Shims:
    """The shims of a site, and what is done to them."""

    def __init__(self, site: Site, folder: Path, upstream: str) -> None:
        self.all: list[Shim] = []
        self._site = site
        self._folder = folder
        self._upstream = upstream

    async def start(self, number: int) -> Shim:
        """A shim; one that was there before finds what it has left."""
        folder = self._folder
        settings = {"rules": str(folder / "rules.toml"), "kill_switch": str(folder / "stop")}
        if self._site.record is not None:
            settings |= {"record": self._site.record, "state": str(folder / f"state-{number}")}
            return await ShimProcess.start(folder / f"shim-{number}.log", self._upstream, **settings)
        shim = AddonShim(self._upstream, **settings)
        await shim.ready()
        return shim

    async def start_again(self) -> None:
        """Start the one that was killed."""
        self.all[0] = await self.start(0)

    def kill(self) -> None:
        """kill -9 for the first."""
        if isinstance(first := self.all[0], ShimProcess):
            first.kill()

    async def reload(self) -> None:
        """Have all of them read their rules."""
        for shim in self._there():
            await shim.reload()

    async def caught_up(self) -> None:
        """Wait until all that is over is in the database."""
        for shim in self._there():
            await shim.caught_up()

    def _there(self) -> list[Shim]:
        return [shim for shim in self.all if not shim.gone]


@asynccontextmanager
async def shims_of(site: Site, folder: Path, upstream: str) -> AsyncIterator[Shims]:
    """The shims of a site, running."""
    shims = Shims(site, folder, upstream)
    try:
        for number in range(site.shims):
            shims.all.append(await shims.start(number))
        yield shims
    finally:
        for shim in shims.all:
            await shim.close()


async def tell(plan: Plan, folder: Path, site: Site | None = None) -> Told:
    """The whole story."""
    site = site or Site()
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=plan.days + 2)
    clock = Clock(begin)
    rules = folder / "rules.toml"
    rules.write_text(rules_text(plan, plan.percentage))
    with update_server(folder, lambda _event: None, clock) as server:
        async with shims_of(site, folder, server.url) as shims:
            front = Front(server, clock, shims.all)
            members = list(populate(plan.phones, plan.seed))
            # Where the phones believe to ask, and where offers point: everything goes through the shims.
            together = 1 if site.record is None else min(TOGETHER, plan.phones // MOMENTS)
            simulation = Simulation(front, server.url, members, clock, plan.seed, together)
            first, last, everybody = (begin + day * DAY for day in (*plan.killed, plan.everybody))
            told = Told(plan, [], simulation.phones, simulation.fetched, (first, last), everybody)
            for day, turn in turns(plan, site, folder, shims, simulation, told):
                simulation.at(begin + day * DAY, turn)
            await simulation.run(begin + plan.days * DAY)
    told.rows = audit_rows(folder)
    told.answered, told.unanswered = simulation.answered, simulation.unanswered
    if site.record is not None:
        with closing(Store.open(place_of(site.record))) as store:
            told.recorded = checks_in(store)
            found = audit(entries_of(store), store)
            told.journal = [*(fault.what for fault in found.faults), *found.problems]
    return told


def checks_in(store: Store) -> int:
    """How many update checks a recording holds."""
    checks = sa.select(sa.func.count()).select_from(FACTS).where(FACTS.c.fact == "update-check")
    with store.reading.connect() as connection:
        return int(connection.execute(checks).scalar_one())


def turns(
    plan: Plan, site: Site, folder: Path, shims: Shims, simulation: Simulation, told: Told
) -> Iterator[tuple[float, Happening]]:
    """What happens beside the phones' doings, and on which day."""
    switch = folder / "stop"
    database = site.database

    async def stop() -> None:
        switch.touch()

    async def start() -> None:
        switch.unlink()

    async def widen() -> None:
        (folder / "rules.toml").write_text(rules_text(plan, 100))
        await shims.reload()

    async def kill() -> None:
        def now() -> None:
            grave = simulation.clock.now
            back = grave + plan.dead * DAY
            told.down.append((grave, grave if site.shims > 1 else back))
            shims.kill()
            simulation.at(back, shims.start_again)

        simulation.front.amidst(AMIDST, 0, now)

    async def crash_database() -> None:
        def now() -> None:
            told.away.append(simulation.clock.now)
            if database is not None:
                database.stop(signal.SIGQUIT)

        simulation.front.amidst(AMIDST, 0, now)

    async def start_database() -> None:
        told.away.append(simulation.clock.now)
        if database is not None:
            database.start()
        await shims.caught_up()

    yield plan.killed[0], stop
    yield plan.killed[1], start
    yield plan.everybody, widen
    if site.record is not None:
        for day in plan.kills:
            yield day, kill
    if database is not None:
        yield plan.away[0], crash_database
        yield plan.away[1], start_database
