"""Decisions that use up a limit, for a recording in a folder.

While this is the only process that writes to the folder, it decides in memory (sole_history.py): at once, and right for
all phones at the same moment. What an offer uses up is written as a reservation before anything is rewritten; the
transaction that records the exchange turns it into history. So a process that is killed leaves nothing uncounted, and
what the database tells is at any moment safe to decide by: as soon as another process writes there too, both decide
within it (ledger.py).

Whatever keeps an answer away, within `DECIDE_WITHIN` seconds, means that nothing is offered.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from captures.base_recording import BaseRecording
from captures.errors import StoreError
from captures.exchange import Exchange
from captures.folder_lock import FolderLock
from captures.rows import as_text, microseconds
from captures.sink import Question, Reservation, Result
from proxy_addons import phone_events
from proxy_addons.answers import Answers, within
from proxy_addons.census import Census, Label, told_apart
from proxy_addons.check import Check
from proxy_addons.history import Histories, identity_of
from proxy_addons.rewriter import Checked
from proxy_addons.sole_history import SoleHistories

if TYPE_CHECKING:
    from proxy_addons.ledger import Ledger

DECIDE_WITHIN = 1.0  # seconds a phone may wait for a decision
LATE = Result(False, f"the recording did not answer within {DECIDE_WITHIN:g} s")


class FolderLedger:
    """Decides for one folder. Its methods but `close` are for the event loop's thread."""

    def __init__(self, recording: BaseRecording, lock: FolderLock) -> None:
        self._recording = recording
        self._lock = lock
        self._answers: Answers[Result] = Answers()
        self._census = AskedCensus(recording)
        self._sole: SoleHistories | None = None
        self._among_others: Ledger | None = None

    @property
    def histories(self) -> Histories | None:
        """What the operator sees; None where it is not known yet."""
        return self._sole if self._among_others is None else self._among_others.histories

    async def look(self) -> None:
        """Look who else writes to the folder, and read what is to be known; again and again."""
        if not self._lock.alone or self._lock.wanted:
            self._lock.look()
        if not self._lock.alone:
            self._sole = None
            if self._among_others is None:
                self._among_others = self._ledger()
        elif self._sole is None:
            if self._among_others is not None:
                self._among_others.close()
                self._among_others = None
            await self._read()
        else:
            backlog = self._recording.backlog()
            if not backlog.exchanges:
                self._sole.forget_surplus()

    async def decide(self, uid: str, check: Check) -> Checked:
        """The decision about a check, and its reservation. Without an answer nothing is offered."""
        if not self._lock.alone:
            await self.look()
        if self._among_others is not None:
            if not self._lock.shared:
                return check.unknown("another process writes to the recording, and has not made room yet")
            return await self._among_others.decide(uid, check)
        identity = self._identity(check)
        if identity is None:
            return check.now()
        histories = await self._read() if self._sole is None else self._sole
        if isinstance(histories, str):
            return check.unknown(histories)
        if identity not in histories:
            recalled = await self._ask(Question("phone", identity))
            if not recalled.done:
                return check.unknown(str(recalled.value))
            histories.recall(identity, recalled.value)
        checked, reservation = self._decide(check, identity, histories)
        if reservation is None:
            return checked
        future, found = self._answers.expected()
        self._recording.reserve(uid, reservation, found)
        reserved = await within(future, DECIDE_WITHIN, LATE)
        return checked if reserved.done else self._not_reserved(check, reservation, reserved)

    def decide_now(self, uid: str, check: Check) -> Checked:
        """The same where nothing can be awaited, and briefly."""
        if self._among_others is not None:
            return self._among_others.decide_now(uid, check)
        identity = self._identity(check)
        if identity is None:
            return check.now()
        if self._sole is None:
            return check.unknown("the history of the phones has yet to be read")
        if identity not in self._sole:
            recalled = waited_for(lambda found: self._recording.ask(Question("phone", identity), found))
            if not recalled.done:
                return check.unknown(str(recalled.value))
            self._sole.recall(identity, recalled.value)
        checked, reservation = self._decide(check, identity, self._sole)
        if reservation is None:
            return checked
        reserved = waited_for(lambda found: self._recording.reserve(uid, reservation, found))
        return checked if reserved.done else self._not_reserved(check, reservation, reserved)

    def fetching(self, uid: str, method: str, target: str, address: str, now: datetime) -> str | None:
        """A request begins; where it fetches a file of an update, its phone keeps its place until the file ends.

        Returns the phone's identity where it can be told, for `ended`.
        """
        version = phone_events.fetched_version(method, target)
        if version is None:
            return None
        self._recording.fetch(uid, {"address": address, "version": str(version), "at": microseconds(now)})
        return None if self._sole is None else self._sole.fetching(address, version, now)

    def ended(self, identity: str | None, exchange: Exchange) -> None:
        """The exchange of a check is over, or a fetch, by the identity that `fetching` returned."""
        if self._sole is None:
            return
        if identity is not None:
            phone_events.fetched(self._sole, identity, exchange)
        elif phone_events.identity_in(exchange) in self._sole:
            phone_events.answered(self._sole, exchange)

    def close(self) -> None:
        """Let go; decisions that are still waited for come to nothing."""
        if self._among_others is not None:
            self._among_others.close()
        self._lock.close()

    def _identity(self, check: Check) -> str | None:
        """The phone that has to be known for a decision; None where it does not matter who it is."""
        phone = check.phone()
        identity = None if phone is None else identity_of(phone.mac, phone.serial, phone.address)
        known = self._sole is not None and identity in self._sole
        return identity if check.rewriter.rules.rules or known else None

    def _decide(self, check: Check, identity: str, histories: SoleHistories) -> tuple[Checked, Reservation | None]:
        check.histories = histories
        checked = check.now()
        rule = checked.decision.rule
        if not check.may_act(checked) or rule is None or check.dry_run:
            return checked, None
        path = rule.path.name if rule.path else ""
        return checked, Reservation(identity, as_text(rule.name), as_text(path), microseconds(check.at))

    def _not_reserved(self, check: Check, reservation: Reservation, why: Result) -> Checked:
        if self._sole is not None:
            self._sole.answered(
                reservation.identity, check.at, rule=reservation.rule, path=reservation.path, offers=False, version=None
            )
        return check.unknown(str(why.value or "the recording cannot be written"))

    async def _ask(self, question: Question) -> Result:
        future, found = self._answers.expected()
        self._recording.ask(question, found)
        return await within(future, DECIDE_WITHIN, LATE)

    async def _read(self) -> SoleHistories | str:
        """Read what is to be known of the fleet; or why that cannot be."""
        fleet = await self._ask(Question("fleet"))
        if not fleet.done:
            return str(fleet.value)
        if not self._lock.alone:
            return "another process writes to the recording now"
        if self._sole is None:
            self._sole = SoleHistories(fleet.value, self._census)
        return self._sole

    def _ledger(self) -> Ledger | None:
        from captures.store import Store  # noqa: PLC0415 - only where several processes write to one folder
        from proxy_addons.ledger import Ledger  # noqa: PLC0415

        if not isinstance(self._recording.place, Path):
            return None
        try:
            return Ledger(self._recording, Store.connect(self._recording.place))
        except StoreError:
            return None


class AskedCensus(Census):
    """Counts phones where they are, by way of the process that writes them. For any thread but the event loop's."""

    def __init__(self, recording: BaseRecording) -> None:
        super().__init__()
        self._recording = recording
        self._last: dict[Label, int] = {}

    def counts(self) -> dict[Label, int]:
        """Phones by state and version; the last ones known while nobody answers."""
        answer = waited_for(lambda found: self._recording.ask(Question("census"), found), DECIDE_WITHIN)
        if answer.done:
            self._last = told_apart(answer.value)
        return self._last


def waited_for(ask: Callable[[Callable[[Result], None]], Any], seconds: float = DECIDE_WITHIN / 4) -> Result:
    """What comes of a question while this thread waits."""
    there = threading.Event()
    results: list[Result] = []

    def found(result: Result) -> None:
        results.append(result)
        there.set()

    ask(found)
    return results[0] if there.wait(seconds) else LATE
