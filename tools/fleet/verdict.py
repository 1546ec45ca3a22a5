"""What was done to the fleet, held against the rules: counted from the server's audit log, from the files that were
fetched from it and from what the phones run, never from what upshim says of itself.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from dissectors.audit_log import AuditRow
from dissectors.mac_address import normal_mac
from dissectors.version import ZERO, Version
from tools.fleet.population import INTERIM, Behaviour, Member
from tools.fleet.simulation import DAY, Fetched
from tools.fleet.story import Told

ALSO = {"interim"}  # kinds without a rule that the server itself has something for


class Verdict:
    """Counts, and what was not as it should be."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.members = {one.member.identity.mac: one.member for one in told.phones if one.member.identity.mac}
        # No phone of the fleet runs nothing: a row that says so is the proxy's doing.
        self.reported = [row for row in told.rows if zero(row)]
        interim = f"/{INTERIM}/"
        self.interim = [one for one in told.fetched if interim in one.target]
        self.wrong: list[str] = []
        checks = (self.strangers, self.per_phone, self.percentage, self.window, self.concurrent, self.breaker)
        for check in (*checks, self.kill_switch, self.failed, self.ends, self.answers, self.away, self.recorded):
            self.wrong += [f"{check.__name__}: {what}" for what in check()]

    def family(self, name: str) -> list[Fetched]:
        """Files of the interim version that phones of a family fetched."""
        return [one for one in self.interim if one.member.family == name]

    def offers(self, name: str) -> dict[str, list[datetime]]:
        """When each phone of a family was given an offer because of its rule, by MAC address.

        A report is in the audit log. An offer made by the proxy itself is not: there the catalog counts, which a phone
        fetches first.
        """
        found: defaultdict[str, list[datetime]] = defaultdict(list)
        if name == "cx500":
            for one in self.family(name):
                if one.target.endswith(".cat"):
                    found[one.member.identity.mac].append(one.begin)
        else:
            for row in self.reported:
                if row.response_modules and row.mac in self.members and self.members[row.mac].family == name:
                    found[row.mac].append(when(row))
        return dict(found)

    def strangers(self) -> Iterator[str]:
        """No phone of another kind is ever offered anything, nor reported as anything but what it is."""
        for row in self.reported:
            if row.mac not in self.members or not self.members[row.mac].family:
                yield f"{row.mac or 'a nameless phone'} ({row.model}) was reported as running nothing"
        for row in self.told.rows:
            member = self.members.get(row.mac)
            if row.response_modules and (member is None or not (member.family or member.kind in ALSO | {"current"})):
                yield f"{row.mac or 'a nameless phone'} ({row.model}) was offered something"
        for one in self.told.fetched:
            if not one.member.family and one.member.kind not in ALSO:
                yield f"{one.member.identity} fetched {one.target}"
            key = one.member.identity
            if f"/{key.vendor}/{key.model}/{key.revision}/{key.locale}/".casefold() not in one.target.casefold():
                yield f"{key} fetched {one.target}"

    def per_phone(self) -> Iterator[str]:
        """No phone is given more offers within a day than allowed."""
        for name in ("cx700", "cx500", "ip8540"):
            for mac, times in self.offers(name).items():
                most = max(sum(at <= other < at + DAY for other in times) for at in times)
                if most > self.told.plan.per_day:
                    yield f"{mac} was given {most} offers in 24 hours"

    def percentage(self) -> Iterator[str]:
        """Only the share that was in at the time, by the documented hash."""
        until = self.told.everybody
        for mac, times in self.offers("cx700").items():
            digest = hashlib.sha256(f"cx700\0mac:{normal_mac(mac)}".encode()).digest()
            if min(times) < until and int.from_bytes(digest[:8], "big") * 100 >= self.told.plan.percentage << 64:
                yield f"{mac} was not one of the {self.told.plan.percentage} %"

    def window(self) -> Iterator[str]:
        """Offers at the hours of the window only."""
        window = self.told.plan.window
        for mac, times in self.offers("cx500").items() if window else ():
            if window and any(window[1] <= at.hour < window[0] for at in times):
                yield f"{mac} was offered something outside of the window"

    def concurrent(self) -> Iterator[str]:
        """No more downloads at a time than allowed."""
        most = overlap(self.family("cx700"))
        if most > self.told.plan.concurrent:
            yield f"{most} phones downloaded at a time"

    def breaker(self) -> Iterator[str]:
        """The bad image stops: no more phones get it than may be under way when the breaker opens."""
        got, plan = len(self.offers("ip8540")), self.told.plan
        if got > plan.undecided + plan.minimum:
            yield f"{got} phones were given the bad image"
        if got < plan.minimum:
            yield f"only {got} phones were given the bad image: nothing was tried"

    def kill_switch(self) -> Iterator[str]:
        """Nothing is done while it is on, and something is before and after."""
        first, last = self.told.killed
        times = [at for name in ("cx700", "cx500", "ip8540") for each in self.offers(name).values() for at in each]
        times += [when(row) for row in self.reported]
        if any(first < at < last for at in times):
            yield "something was done while it was on"
        if not (min(times) < first and max(times) > last):
            yield "nothing was done before or after"

    def failed(self) -> Iterator[str]:
        """A phone that failed is not sent through it again."""
        images = Counter(
            one.member.identity.mac for one in self.interim if one.complete and one.target.endswith(".nbt")
        )
        for mac, count in images.items():
            if count > 1 + (mac in self.told.disturbed):
                yield f"{mac or 'a nameless phone'} was given the whole image {count} times"

    def ends(self) -> Iterator[str]:
        """Everyone eligible ends on the last waypoint, everyone else where it was, as the server saw it."""
        last = {row.mac: row for row in self.told.rows if row.mac}
        for one in self.told.phones:
            wanted, mac = one.member.ends_on, one.member.identity.mac
            if wanted is None:
                continue
            if one.version != wanted:
                yield f"{mac} ({one.member.kind}, {one.member.behaviour.value}) ends on {one.version}, not {wanted}"
            row = last.get(mac)
            if row is not None and not zero(row) and version_of(row) != one.version:
                yield f"{mac} is on {one.version}, the server heard {version_of(row)} last"

    def answers(self) -> Iterator[str]:
        """Every check is answered, but for those in flight when a shim is killed, and while the only one is dead."""
        down = self.told.down
        lost = [at for at in self.told.unanswered if not any(first <= at <= last for first, last in down)]
        if lost:
            yield f"{len(lost)} checks had no answer, the first at {lost[0]}"

    def away(self) -> Iterator[str]:
        """While the database is away nothing is offered."""
        if not self.told.away:
            return
        first, last = self.told.away
        if any(first < when(row) < last for row in self.reported) or any(
            first < at < last for each in self.offers("cx500").values() for at in each
        ):
            yield "something was done while it was away"
        if not any(first < when(row) < last for row in self.told.rows):
            yield "nobody asked meanwhile"

    def recorded(self) -> Iterator[str]:
        """Every check that was answered is in the recording once, and its journal is good."""
        kept, answered = self.told.recorded, self.told.answered
        if kept is not None and not answered <= kept <= answered + len(self.told.unanswered):
            yield f"{answered} checks were answered, {kept} are in the recording"
        yield from self.told.journal

    def summary(self) -> dict[str, object]:
        """The counts."""
        phones = self.told.phones
        return {
            "phones": len(phones),
            "audit_rows": len(self.told.rows),
            "rewritten_rows": len(self.reported),
            "eligible": sum(able(one.member) for one in phones),
            "arrived": sum(able(one.member) and one.version == one.member.ends_on for one in phones),
            "given_bad_image": len(self.offers("ip8540")),
            "phones_of_bad_image": sum(one.member.family == "ip8540" for one in phones),
            "bricked": sum(
                one.member.behaviour is Behaviour.BRICKED
                for one in phones
                if one.member.identity.mac in self.offers("ip8540")
            ),
            "most_downloads_at_once": overlap(self.family("cx700")),
            "downloads_allowed": self.told.plan.concurrent,
            "unanswered": len(self.told.unanswered),
            "recorded": self.told.recorded,
            "wrong": self.wrong,
        }


def able(member: Member) -> bool:
    """Whether a phone must end on the last waypoint because of a rule."""
    return bool(member.family) and member.ends_on not in {None, member.version}


def zero(row: AuditRow) -> bool:
    """Whether a row reports that nothing is installed."""
    return any(module.version == ZERO for module in row.request_modules)


def version_of(row: AuditRow) -> Version | None:
    """What a row reports."""
    return next((module.version for module in row.request_modules), None)


def when(row: AuditRow) -> datetime:
    """The time of a row, which is written in local time."""
    return datetime.strptime(row.logged, "%Y-%m-%d %H:%M:%S").astimezone(UTC)


def overlap(fetched: Iterable[Fetched]) -> int:
    """The most phones that had a download under way at one time."""
    begun: list[tuple[datetime, int, str]] = []
    for one in fetched:
        # One that ends when another begins is over.
        begun += [(one.begin, 1, one.member.address), (one.end - timedelta(microseconds=1), -1, one.member.address)]
    under_way: Counter[str] = Counter()
    most = 0
    for _, step, address in sorted(begun):
        under_way[address] += step
        most = max(most, sum(count > 0 for count in under_way.values()) if step > 0 else 0)
    return most
