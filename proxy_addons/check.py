"""One update check on its way to a decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from captures.exchange import Headers
from dissectors.version import Version
from proxy_addons import phone_events
from proxy_addons.history import Histories
from proxy_addons.interlocks import Situation
from proxy_addons.phone import Phone
from proxy_addons.rewriter import Checked, Read, Rewriter
from proxy_addons.rules import Rule

Find = Callable[[Phone], Histories | None]  # what is known of a phone


@dataclass(slots=True)
class Check:
    """A message (body, headers, the phone's address) and what its decision depends on beside the history.

    `histories` is that of this process; with None there it is somebody else's to ask, and `now` decides as if nothing
    had ever happened. Since history only holds back, what is not done then need not be asked about.
    """

    rewriter: Rewriter
    message: tuple[bytes, Headers, str]
    at: datetime
    stopped: str
    files: Callable[[Rule, Version], str | None] | None
    histories: Histories | None
    _was_read: Read | None = None
    _seen: dict[tuple[str, Version], str | None] = field(default_factory=dict)

    def phone(self) -> Phone | None:
        """Who asks; None where it cannot be told."""
        return self._read().phone

    def now(self) -> Checked:
        """Decide at once."""
        histories = Histories() if self.histories is None else self.histories
        checked = self._check(lambda phone: self._situation(phone, histories, self._look))
        if checked.phone is not None and self.histories is not None:
            phone_events.decided(self.histories, checked.phone, self.at, checked.decision, dry_run=self.dry_run)
        return checked

    def by(self, find: Find) -> Checked:
        """Decide by what is known of the phone. May run in another thread than `now` has."""
        return self._check(lambda phone: self._situation(phone, find(phone), self._looked))

    def unknown(self, why: str) -> Checked:
        """Decide where the history cannot be known."""
        return self._check(lambda phone: self._situation(phone, None, self._looked, why))

    @property
    def dry_run(self) -> bool:
        """Whether nothing is carried out."""
        return self.rewriter.dry_run

    @staticmethod
    def may_act(checked: Checked) -> bool:
        """Whether a decision would give the phone another version."""
        return checked.decision.action in phone_events.ACTIONS

    def _check(self, situate: Callable[[Phone], Situation]) -> Checked:
        return self.rewriter.decide(self._read(), situate)

    def _read(self) -> Read:
        if self._was_read is None:
            self._was_read = self.rewriter.read(*self.message)
        return self._was_read

    def _situation(
        self,
        phone: Phone,
        histories: Histories | None,
        files: Callable[[Rule, Version], str | None],
        unknown: str = "",
    ) -> Situation:
        look = None if self.files is None else files
        return phone_events.situation(histories, phone, self.at, self.stopped, look, unknown)

    def _look(self, rule: Rule, version: Version) -> str | None:
        if self.files is None:
            return None
        found = self._seen[rule.name, version] = self.files(rule, version)
        return found

    def _looked(self, rule: Rule, version: Version) -> str | None:
        return self._seen.get((rule.name, version), "its files have not been looked at")
