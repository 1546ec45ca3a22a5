"""What happens to the fleet: the server, the rules and when they change, the kill switch, a restart of the proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dissectors.audit_log import AuditRow, read_rows
from tools.fleet.phone import FleetPhone
from tools.fleet.population import INTERIM, LAST, OLDER, STUCK, populate
from tools.fleet.simulation import DAY, Fetched, Simulation
from tools.fleet.virtual import Clock, VirtualProxy
from tools.update_server.audit import AuditLogWriter
from tools.update_server.field_story import FieldStory
from tools.update_server.http import ServerEvent, UpdateServer
from tools.update_server.messages import NoOffer
from tools.update_server.packages import CX700, make_synthetic
from tools.update_server.rules import Rule, RuleBook
from tools.update_server.service import UpdateService

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
    restart: float = 3.0
    days: float = 9.0
    window: tuple[int, int] | None = (20, 8)  # hours, UTC, of cx500

    @classmethod
    def of(cls, phones: int, seed: int = 1) -> Plan:
        """Limits in proportion to the fleet."""
        return cls(phones, seed, concurrent=max(2, phones // 400))


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


async def tell(plan: Plan, folder: Path, record: str | None = None) -> Told:
    """The whole story; `record` is where the proxy records to, a folder or a database."""
    begin = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=plan.days + 2)
    clock = Clock(begin)
    rules, switch = folder / "rules.toml", folder / "stop"
    rules.write_text(rules_text(plan, plan.percentage))
    with update_server(folder, lambda _event: None, clock) as server:
        settings = {"record": record} if record is not None else {}
        proxy = VirtualProxy(server, clock, rules=str(rules), kill_switch=str(switch), **settings)
        try:
            await files_seen(proxy)
            members = populate(plan.phones, plan.seed)
            # Where the phones believe to ask, and where offers point: everything goes through the proxy.
            simulation = Simulation(proxy, server.url, members, clock, plan.seed)

            async def widen() -> None:
                rules.write_text(rules_text(plan, 100))
                proxy.addon.reload()

            async def restart() -> None:
                if record is not None:  # what is only in memory would be forgotten
                    proxy.restart()
                    await files_seen(proxy)

            async def stop() -> None:
                switch.touch()

            async def start() -> None:
                switch.unlink()

            turns = (
                (plan.killed[0], stop),
                (plan.killed[1], start),
                (plan.everybody, widen),
                (plan.restart, restart),
            )
            for day, turn in turns:
                simulation.at(begin + day * DAY, turn)
            await simulation.run(begin + plan.days * DAY)
        finally:
            proxy.close()
    first, last, everybody = (begin + day * DAY for day in (*plan.killed, plan.everybody))
    return Told(plan, audit_rows(folder), simulation.phones, simulation.fetched, (first, last), everybody)


async def files_seen(proxy: VirtualProxy) -> None:
    """Wait until the proxy knows which files the server has."""
    packages = proxy.addon.packages
    async with asyncio.timeout(60):
        while packages is not None and packages.files.counts()["not known"]:
            packages.look_after(proxy.addon.rewriter.rules)
            await asyncio.sleep(0.01)
