"""The history of the phones in memory, for the one process that writes a recording: loaded as phones are heard of.

The recording holds the same, a moment later, and keeps it over the end of the process. Phones that nothing is under
way with are forgotten here again, the one not heard of for longest first; they are loaded when they ask again.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from captures.rows import moment_of
from dissectors import DissectError
from proxy_addons.census import Census
from proxy_addons.history import OFFER_LEASE, Histories, Offered, PhoneHistory
from proxy_addons.history_rows import from_row
from proxy_addons.rules import MAX_OFFERS_KEPT

MOST_REMEMBERED = 20_000  # phones

Promised = list[tuple[str, str, str, int]]  # identity, rule, path, when, of offers whose exchange was never recorded


class Recalled(NamedTuple):
    """What is known of one phone: the `history` of history_rows.py, None for one never seen."""

    history: dict[str, Any] | None
    promised: Promised


class Fleet(NamedTuple):
    """What the fleet's limits count, and the phones that are on their way. Times are microseconds since 1970."""

    phones: list[tuple[str, dict[str, Any]]]
    places: list[tuple[str, str, int, int]]  # identity, rule, granted, until
    outcomes: list[tuple[str, int, bool]]  # path, when, worked
    undecided: list[tuple[str, str, int]]  # path, identity, when
    promised: Promised


class SoleHistories(Histories):
    """What is known of the fleet, and of the phones that were heard of."""

    def __init__(self, fleet: Fleet, census: Census) -> None:
        super().__init__()
        self.census = census
        promised: dict[str, Promised] = {}
        for one in fleet.promised:
            promised.setdefault(one[0], []).append(one)
        for identity, row in fleet.phones:
            # What another version has written there is an error for that phone, when it asks.
            with contextlib.suppress(KeyError, TypeError, ValueError, DissectError):
                self.recall(identity, Recalled(row, promised.get(identity, [])))
        for identity, rule, granted, until in fleet.places:
            self._places.take(identity, rule, moment_of(until), moment_of(granted))
        for path, at, worked in fleet.outcomes:
            self._outcome(path, moment_of(at), worked=worked)
        # An offer that was promised and whose end nobody recorded counts as made.
        for identity, rule, _, at in fleet.promised:
            self._places.take(identity, rule, moment_of(at) + OFFER_LEASE, moment_of(at))
        undecided = [*fleet.undecided, *((path, identity, at) for identity, _, path, at in fleet.promised)]
        for path, identity, at in sorted(undecided, key=lambda one: one[2]):
            self._open_end(path, identity, moment_of(at))

    def __contains__(self, identity: str | None) -> bool:
        return identity in self._phones

    def recall(self, identity: str, recalled: Recalled) -> None:
        """A phone is heard of. Raises as `from_row` does."""
        if identity in self._phones:
            return
        phone = PhoneHistory(identity) if recalled.history is None else from_row(identity, recalled.history)
        promised = (Offered(moment_of(at), None, rule) for _, rule, _, at in recalled.promised)
        phone.offers = (*phone.offers, *promised)[-MAX_OFFERS_KEPT:]
        self._phones[identity] = phone
        if phone.addresses:
            self._moves(identity, None, phone.addresses[-1][1])

    def forget_surplus(self) -> None:
        """Forget phones above a number, where nothing is under way. For when the recording has all of it."""
        surplus = len(self._phones) - MOST_REMEMBERED
        for identity in list(self._phones) if surplus > 0 else ():
            if len(self._phones) <= MOST_REMEMBERED:
                break
            phone = self._phones[identity]
            if phone.attempt is None and not phone.pending:
                del self._phones[identity]
                if phone.addresses:
                    self._leave_address(phone.addresses[-1][1], identity)

    def _count(self, phone: PhoneHistory) -> None:
        """Counted by the database."""
