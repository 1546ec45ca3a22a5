"""What is known of each phone and of the fleet: pure, fed with events, every one with its time.

A phone is known by its MAC address, else by its serial number, else by its address, which is weak: another phone may
have it tomorrow. Who signs in there is kept only where the proxy was told to (`--store-users`). Everything is bounded:
the phones (the one not seen for longest is forgotten first) and what is kept of each.

An attempt begins when a phone is offered another version, by whomever, and ends well when it reports that version. It
fails when

- the phone reports a last update status that is an error,
- it fetches a file a second time that it had in full already,
- it had the firmware in full and still reports the old version `INSTALL_WITHIN` later: phones install when they are
  not in use (protocol.md section 9), so a check soon after the download proves nothing, or
- it has reported the new version and then an older one again.

Failures count until the phone reports another version, and for `KEPT_FOR` at most.

How an attempt will end is not known until then, unless the phone is heard of again and has not got the firmware: a
phone that a bad image has killed says nothing any more, and that must count too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from captures.exchange import rfc3339
from captures.rows import as_text
from dissectors.redaction import REDACTED
from dissectors.update_status import LastUpdateStatus
from dissectors.version import Version
from proxy_addons.census import Census, Label
from proxy_addons.fleet_counts import Outcomes, Places, Undecided
from proxy_addons.rules import MAX_FAILURES_KEPT, MAX_OFFERS_KEPT

MAX_PHONES = 200_000
MAX_CHANGES_KEPT = 16  # versions, addresses, statuses and users of one phone
MAX_DOWNLOADS_KEPT = 32  # of one phone
MAX_FILES = 64  # of one attempt
KEPT_FOR = timedelta(days=30)
DAY = timedelta(hours=24)
INSTALL_WITHIN = timedelta(hours=6)
OFFER_LEASE = timedelta(minutes=15)  # an offer holds its place among the downloads for so long before one begins
IDLE_LEASE = timedelta(minutes=1)  # and so long between the files of one update
NOT_FIRMWARE = (".cat", ".xml")  # what else an update consists of (protocol.md section 2.2)

STATES = ("unknown", "current", "eligible", "offered", "downloading", "installed", "failed", "held")

Change = tuple[datetime, str]


class Unreadable(Exception):
    """What is known of the phones cannot be read at the moment."""


def identity_of(mac: str | None, serial: str | None, address: str | None) -> str | None:
    """The name a phone is known by: `mac:…`, else `serial:…`, else `address:…`; None where it tells nothing."""
    if mac:
        return f"mac:{mac}"
    if serial and serial.strip():
        return as_text(f"serial:{serial.strip().casefold()}")
    return f"address:{address}" if address else None


@dataclass(frozen=True, slots=True)
class Offered:
    """An offer a phone was given; `rule` is blank where it was the server's own idea."""

    at: datetime
    version: Version | None
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Download:
    """A file that was fetched, `complete` when the phone then had all of it; `resumed` when it asked for the rest."""

    at: datetime
    version: Version
    file: str
    complete: bool
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed, at which version, and why."""

    at: datetime
    version: Version | None
    why: str


@dataclass(slots=True)
class Attempt:
    """A phone on its way to an offered version."""

    version: Version | None
    path: str
    files: set[str] = field(default_factory=set)  # had in full
    begun: bool = False
    downloaded: datetime | None = None  # when the firmware was there in full


@dataclass(slots=True)
class PhoneHistory:
    """One phone. A history without checks is that of a phone never seen before."""

    identity: str = ""
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    checks: int = 0
    version: Version | None = None
    versions: tuple[Change, ...] = ()
    addresses: tuple[Change, ...] = ()
    statuses: tuple[Change, ...] = ()
    users: tuple[Change, ...] = ()
    offers: tuple[Offered, ...] = ()
    downloads: tuple[Download, ...] = ()
    failures: tuple[Failure, ...] = ()
    attempt: Attempt | None = None
    action: str = ""  # of the last decision
    reached: Version | None = None  # the last version it was offered and then ran
    reached_on: str = ""  # the upgrade path of that offer
    pending: int = 0  # offers decided on, their answers not yet seen
    counted: Label | None = None  # how the census has it

    @property
    def weak(self) -> bool:
        """Known by its address only."""
        return self.identity.startswith("address:")

    def offers_within(self, now: datetime, span: timedelta) -> int:
        """Offers made because of a rule, those on their way included."""
        return self.pending + sum(offer.at > now - span for offer in self.offers if offer.rule)

    def failures_at(self, version: Version | None, now: datetime) -> list[Failure]:
        """Failures that still count: at one version, or with None at any."""
        return [
            failure
            for failure in self.failures
            if failure.at > now - KEPT_FOR and (version is None or failure.version in {None, version})
        ]

    @property
    def state(self) -> str:
        """`unknown`, `current`, `eligible`, `offered`, `downloading`, `installed`, `failed` or `held`."""
        if not self.checks:
            return "unknown"
        if self.attempt is not None:
            return "downloading" if self.attempt.begun else "offered"
        if self.failures:
            return "failed"
        if self.action == "hold":
            return "held"
        if self.action in {"report", "offer"}:
            return "eligible"
        return "installed" if self.reached is not None and self.reached == self.version else "current"

    def to_json(self, *, secrets: bool = False) -> dict[str, Any]:
        """The history as plain JSON values; users only with `secrets`."""
        return {
            "identity": self.identity,
            "weak": self.weak,
            "state": self.state,
            "first_seen": self.first_seen and rfc3339(self.first_seen),
            "last_seen": self.last_seen and rfc3339(self.last_seen),
            "checks": self.checks,
            "versions": [[rfc3339(at), text] for at, text in self.versions],
            "addresses": [[rfc3339(at), text] for at, text in self.addresses],
            "statuses": [[rfc3339(at), text] for at, text in self.statuses],
            "users": [[rfc3339(at), text if secrets else REDACTED] for at, text in self.users],
            "offers": [
                {"at": rfc3339(one.at), "version": one.version and str(one.version), "rule": one.rule or None}
                for one in self.offers
            ],
            "downloads": [
                {
                    "at": rfc3339(one.at),
                    "version": str(one.version),
                    "file": one.file,
                    "complete": one.complete,
                    "resumed": one.resumed,
                }
                for one in self.downloads
            ],
            "failures": [
                {"at": rfc3339(one.at), "version": one.version and str(one.version), "why": one.why}
                for one in self.failures
            ],
        }


class Histories:
    """All phones, and what the fleet's limits need to know. One writer."""

    def __init__(self, most: int = MAX_PHONES) -> None:
        self._most = most
        self._phones: OrderedDict[str, PhoneHistory] = OrderedDict()
        self._by_address: dict[str, set[str]] = {}
        self._places = Places()
        self._outcomes: dict[str, Outcomes] = {}
        self._undecided: dict[str, Undecided] = {}
        self.census = Census()

    def __len__(self) -> int:
        return len(self._phones)

    def __iter__(self) -> Iterator[PhoneHistory]:
        return iter(self._phones.values())

    def get(self, identity: str | None) -> PhoneHistory:
        """What is known of a phone; nothing of one never seen."""
        return self._find(identity or "") or PhoneHistory(identity or "")

    def _find(self, identity: str) -> PhoneHistory | None:
        return self._phones.get(identity)

    def checked(
        self,
        identity: str,
        now: datetime,
        *,
        version: Version | None,
        address: str | None = None,
        status: LastUpdateStatus | None = None,
        user: str | None = None,
    ) -> PhoneHistory:
        """A phone asks for an update and says what it runs."""
        phone = self._known(identity)
        phone.first_seen = phone.first_seen or now
        phone.last_seen = now
        phone.checks += 1
        self._asks(identity, now)
        if address and (not phone.addresses or phone.addresses[-1][1] != address):
            self._moves(identity, phone.addresses[-1][1] if phone.addresses else None, address)
            phone.addresses = (*phone.addresses, (now, address))[-MAX_CHANGES_KEPT:]
        if status is not None and (not phone.statuses or phone.statuses[-1][1] != status.text):
            phone.statuses = (*phone.statuses, (now, status.text))[-MAX_CHANGES_KEPT:]
        if user and (not phone.users or phone.users[-1][1] != user):
            phone.users = (*phone.users, (now, as_text(user)))[-MAX_CHANGES_KEPT:]
        if phone.versions and now < phone.versions[-1][0]:
            pass  # told late, by a shim the database was away for: what it ran then is not what it runs
        elif version is not None and version != phone.version:
            self._runs(phone, version, now)
        elif phone.attempt is not None:
            self._judge(phone, phone.attempt, status, now)
        attempt = phone.attempt
        if attempt is not None and attempt.downloaded is None and not phone.pending:
            self._known_end(attempt.path, identity)
        self._count(phone)
        return phone

    def _runs(self, phone: PhoneHistory, version: Version, now: datetime) -> None:
        """A phone reports another version than before."""
        attempt, left = phone.attempt, phone.version
        phone.attempt = None
        if attempt is not None:
            self._known_end(attempt.path, phone.identity)
        phone.failures = ()
        if attempt is not None and attempt.version in {None, version}:
            phone.reached, phone.reached_on = version, attempt.path
            self._outcome(attempt.path, now, worked=True, identity=phone.identity)
        elif left is not None and left == phone.reached and version < left:
            # A phone keeps the version before as a backup, and returns to it by itself (protocol.md section 9).
            phone.reached = None
            phone.failures = (*phone.failures, Failure(now, left, f"it went back to {version}"))[-MAX_FAILURES_KEPT:]
            self._outcome(phone.reached_on, now, worked=False, identity=phone.identity)
        phone.version = version
        phone.versions = (*phone.versions, (now, str(version)))[-MAX_CHANGES_KEPT:]

    def _judge(self, phone: PhoneHistory, attempt: Attempt, status: LastUpdateStatus | None, now: datetime) -> None:
        """A phone with an attempt under way reports the version it had before."""
        if status is not None and not status.ok:
            self._fail(phone, f"its last update status is {status.text}", now)
        elif attempt.downloaded is not None and now - attempt.downloaded >= INSTALL_WITHIN:
            self._fail(phone, "it has downloaded the firmware and still runs the old version", now)

    def _fail(self, phone: PhoneHistory, why: str, now: datetime) -> None:
        attempt = phone.attempt
        if attempt is not None:
            phone.failures = (*phone.failures, Failure(now, attempt.version, why))[-MAX_FAILURES_KEPT:]
            phone.attempt = None
            self._known_end(attempt.path, phone.identity)
            self._outcome(attempt.path, now, worked=False, identity=phone.identity)

    def decided(self, identity: str, now: datetime, action: str, rule: str = "", path: str = "") -> None:
        """What was decided for a phone; a `rule` that changes what it gets takes a place among the downloads."""
        phone = self._known(identity)
        phone.action = action
        self._count(phone)
        if rule:
            phone.pending += 1
            self._places.take(identity, rule, now + OFFER_LEASE, now)
            self._open_end(path, identity, now)

    def answered(
        self, identity: str, now: datetime, *, rule: str = "", path: str = "", offers: bool, version: Version | None
    ) -> None:
        """A phone has its answer; `rule` as in `decided`, and `version` what is offered, where the answer tells."""
        phone = self._known(identity)
        if rule:
            phone.pending = max(0, phone.pending - 1)
        if not offers or (version is not None and version == phone.version):
            if rule and not phone.pending:
                self._places.leave(identity)
                if phone.attempt is None or phone.attempt.downloaded is None:
                    self._known_end(path, identity)
            return
        phone.offers = (*phone.offers, Offered(now, version, rule))[-MAX_OFFERS_KEPT:]
        attempt = phone.attempt
        if attempt is None or attempt.version != version:
            if attempt is not None and attempt.path != path:
                self._known_end(attempt.path, identity)
            phone.attempt = Attempt(version, path)
            self._count(phone)
        elif path:
            attempt.path = path

    def fetching(self, address: str, version: Version, now: datetime) -> str | None:
        """A file is being fetched; returns the identity of the phone, None where it cannot be told which one it is."""
        identity = self._who(address, version)
        if identity is not None:
            phone = self._known(identity)
            phone.last_seen = now
            if phone.attempt is not None:
                phone.attempt.begun = True
                self._count(phone)
            self._places.begin(identity, now)
        return identity

    def fetched(self, identity: str, now: datetime, download: Download) -> None:
        """The fetch of a file has ended; for each `fetching` that returned an identity, one of these."""
        phone = self._known(identity)
        phone.last_seen = now
        phone.downloads = (*phone.downloads, download)[-MAX_DOWNLOADS_KEPT:]
        self._places.end(identity, now + IDLE_LEASE)
        attempt = phone.attempt
        if attempt is None or attempt.version not in {None, download.version} or not download.complete:
            return
        attempt.version = download.version
        file = download.file.casefold()
        # A phone that restarts before it has the firmware begins again with the catalog.
        if file in attempt.files and attempt.downloaded is not None:
            self._fail(phone, f"it has fetched {download.file} again", now)
            attempt = phone.attempt = Attempt(download.version, attempt.path, begun=True)
            self._open_end(attempt.path, identity, now)
            self._count(phone)
        if len(attempt.files) < MAX_FILES:
            attempt.files.add(file)
        if not file.endswith(NOT_FIRMWARE):
            attempt.downloaded = now

    def downloading(self, rule: str, now: datetime, besides: str | None = None) -> int:
        """Phones that hold a place among the downloads of a rule, one of them left out."""
        return self._places.count(rule, now, besides)

    def outcomes(self, path: str, now: datetime, span: timedelta) -> tuple[int, int]:
        """Attempts on an upgrade path that failed and that ended at all, within a span of time."""
        known = self._outcomes.get(path)
        return known.within(now, span) if known is not None else (0, 0)

    def undecided(self, path: str, now: datetime) -> int:
        """Phones that were given something on an upgrade path, and how that ends is not known yet."""
        known = self._undecided.get(path)
        return known.count(now - KEPT_FOR) if known is not None else 0

    def _open_end(self, path: str, identity: str, now: datetime) -> None:
        self._undecided.setdefault(path, Undecided()).add(identity, now)

    def _known_end(self, path: str, identity: str) -> None:
        if known := self._undecided.get(path):
            known.drop(identity)

    def _count(self, phone: PhoneHistory) -> None:
        version = str(phone.version) if phone.version else "unknown"
        if phone.counted != (phone.state, version):
            phone.counted = self.census.move(phone.counted, phone.state, version)

    def _outcome(self, path: str, now: datetime, *, worked: bool, identity: str = "") -> None:  # noqa: ARG002
        if path:
            self._outcomes.setdefault(path, Outcomes()).add(now, worked=worked)

    def _known(self, identity: str) -> PhoneHistory:
        phone = self._phones.get(identity)
        if phone is None:
            phone = self._phones[identity] = PhoneHistory(identity)
            if len(self._phones) > self._most:
                forgotten, history = self._phones.popitem(last=False)
                history.counted = self.census.move(history.counted, None)
                self._places.leave(forgotten)
                if history.attempt is not None:
                    self._known_end(history.attempt.path, forgotten)
                if history.addresses:
                    self._leave_address(history.addresses[-1][1], forgotten)
        self._phones.move_to_end(identity)
        return phone

    def _who(self, address: str, version: Version) -> str | None:
        """The one phone at an address that is on its way to a version, else the only one there."""
        there = self._by_address.get(address, set())
        if len(there) <= 1:
            return next(iter(there), None)
        on_their_way = [
            name for name in there if (attempt := self._phones[name].attempt) and attempt.version in {None, version}
        ]
        return on_their_way[0] if len(on_their_way) == 1 else None

    def _asks(self, identity: str, now: datetime) -> None:  # noqa: ARG002
        """A phone that asks again is done with what it was offered before."""
        self._places.leave(identity)

    def _moves(self, identity: str, before: str | None, address: str) -> None:
        """A phone has another address now."""
        if before is not None:
            self._leave_address(before, identity)
        self._by_address.setdefault(address, set()).add(identity)

    def _leave_address(self, address: str, identity: str) -> None:
        there = self._by_address.get(address, set())
        there.discard(identity)
        if not there:
            self._by_address.pop(address, None)
