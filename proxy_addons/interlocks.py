"""What holds a rule back although it matches: small functions in a list, each returns the reason or None.

The first reason counts for the decision; `upshim rules explain` shows them all. They keep a phone as it would be
without upshim: it gets the server's real answer, and asks again at its next poll.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from dissectors.version import Version
from proxy_addons.history import DAY, INSTALL_WITHIN, Histories, PhoneHistory, identity_of
from proxy_addons.phone import Phone, identity_mismatch
from proxy_addons.rules import Rule


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision depends on beside the rules and the phone.

    `now` is aware and in local time, None where no time is known. `history` is None where it cannot be known: then
    nothing is offered to anybody. `stopped` says why the kill switch is on, blank where it is off. `files` says why a
    phone cannot be sent to the files of a version; None where nobody can be asked, as in a replay.
    """

    now: datetime | None = None
    history: Histories | None = field(default_factory=Histories)
    stopped: str = ""
    files: Callable[[Rule, Version], str | None] | None = None
    unknown: str = ""  # why the history is not known


@dataclass(frozen=True, slots=True)
class Plan:
    """What a rule would do to a phone: report or offer `version`, or with None edit headers only."""

    rule: Rule
    phone: Phone
    version: Version | None
    offers: bool
    situation: Situation

    @property
    def changes_version(self) -> bool:
        """Whether the phone may be given firmware because of it."""
        return self.version is not None

    @property
    def identity(self) -> str | None:
        """The name the phone is known by in the history."""
        return identity_of(self.phone.mac, self.phone.serial, self.phone.address)

    @property
    def known(self) -> PhoneHistory:
        """The phone's history."""
        return (self.situation.history or Histories()).get(self.identity)


def kill_switch(plan: Plan) -> str | None:
    """Everything is switched off."""
    return plan.situation.stopped or None


def time_window(plan: Plan) -> str | None:
    """The rule acts at certain times of day."""
    window, now = plan.rule.window, plan.situation.now
    if window is None or (now is not None and now in window):
        return None
    return f"outside {window}: it is {now:%H:%M}" if now else f"only within {window}, and the time is not known"


def staged_rollout(plan: Plan) -> str | None:
    """Listed phones first, then a percentage."""
    rule, phone = plan.rule, plan.phone
    rollout = rule.rollout
    if rollout is None or rollout.lists(phone.mac, phone.serial):
        return None
    if rollout.percentage is None:
        return "the phone is not one of those in scope"
    if plan.identity is not None and rollout.reaches(rule.name, plan.identity):
        return None
    return f"not yet within the {rollout.percentage:g} % of the rollout"


def device_identity(plan: Plan) -> str | None:
    """The phone is of exactly the kind the upgrade path is for."""
    if not plan.changes_version:
        return None
    return "no upgrade path" if plan.rule.path is None else identity_mismatch(plan.rule.path, plan.phone)


def phone_identity(plan: Plan) -> str | None:
    """A phone without MAC address and serial number could be any."""
    if not plan.changes_version or plan.phone.mac or (plan.phone.serial or "").strip():
        return None
    if not plan.rule.allow_address_identity:
        return "the phone tells neither MAC address nor serial number"
    return None if plan.phone.address else "nothing tells one phone from another: not even an address"


def known_history(plan: Plan) -> str | None:
    """What happened to the phone before must be known."""
    if plan.changes_version and plan.situation.history is None:
        return f"the history of the phones is not known: {plan.situation.unknown}".removesuffix(": ")
    return None


def known_time(plan: Plan) -> str | None:
    """Limits over time need a time."""
    limits = plan.rule.limits
    counted = limits.per_phone_per_day, limits.fleet_failure_rate, limits.fleet_undecided, limits.concurrent_downloads
    if plan.changes_version and plan.situation.now is None and any(limit is not None for limit in counted):
        return "the rule has limits, and the time is not known"
    return None


def downgrade(plan: Plan) -> str | None:
    """Nothing older than what the phone runs, unless the rule says so."""
    version, runs = plan.version, plan.phone.version
    if plan.offers and version is not None and runs is not None and version < runs and not plan.rule.allow_downgrade:
        return f"{version} would be a downgrade from {runs}"
    return None


def required_waypoint(plan: Plan) -> str | None:
    """No required waypoint is skipped."""
    version, runs, path = plan.version, plan.phone.version, plan.rule.path
    if not plan.offers or version is None or runs is None or path is None:
        return None
    skipped = [waypoint for waypoint in path.required if runs < waypoint < version]
    return f"{version} would skip the required waypoint {min(skipped)}" if skipped else None


def failed_waypoint(plan: Plan) -> str | None:
    """Not again to a phone that has failed, nor to one that has the firmware and may be about to install it."""
    now = plan.situation.now
    if not plan.changes_version or now is None:
        return None
    # What a server will offer after a report is not known beforehand: a failure at any version counts.
    target = plan.version if plan.offers else None
    failures = plan.known.failures_at(target, now)
    if len(failures) >= plan.rule.limits.stop_after_failures:
        last = failures[-1]
        at = f" at {last.version}" if last.version else ""
        return f"the phone has failed{at} ({len(failures)} of {plan.rule.limits.stop_after_failures}): {last.why}"
    attempt = plan.known.attempt
    if attempt is None or attempt.downloaded is None or target not in {None, attempt.version}:
        return None
    if now - attempt.downloaded < INSTALL_WITHIN:
        return f"the phone has {attempt.version} already and has not installed it yet"
    return None


def daily_limit(plan: Plan) -> str | None:
    """So many offers per phone in any 24 hours."""
    most, now = plan.rule.limits.per_phone_per_day, plan.situation.now
    if not plan.changes_version or most is None or now is None:
        return None
    made = plan.known.offers_within(now, DAY)
    return f"the phone was given {made} offers in 24 hours, the limit is {most}" if made >= most else None


@dataclass(frozen=True, slots=True)
class Breaker:
    """How the attempts on a rule's path went within its window, and whether that holds the rule."""

    path: str
    failed: int
    ended: int
    open: bool


def breaker(rule: Rule, history: Histories, now: datetime) -> Breaker | None:
    """The state of a rule's breaker; None for a rule that has none."""
    limits, path = rule.limits, rule.path
    if limits.fleet_failure_rate is None or path is None:
        return None
    failed, ended = history.outcomes(path.name, now, limits.fleet_window)
    too_many = ended >= limits.fleet_minimum and failed / ended > limits.fleet_failure_rate
    return Breaker(path.name, failed, ended, too_many)


def fleet_breaker(plan: Plan) -> str | None:
    """Nobody any more where too many have failed."""
    now, history = plan.situation.now, plan.situation.history
    if not plan.changes_version or not now or history is None:
        return None
    state = breaker(plan.rule, history, now)
    if state is None or not state.open:
        return None
    return f"the breaker is open: {state.failed} of {state.ended} attempts on path {state.path} failed"


def undecided_attempts(plan: Plan) -> str | None:
    """The breaker knows only of attempts that have ended; so many more may be under way."""
    rule, now, history = plan.rule, plan.situation.now, plan.situation.history
    most, path = rule.limits.fleet_undecided, rule.path
    if not plan.changes_version or most is None or now is None or history is None or path is None:
        return None
    waiting = history.undecided(path.name, now)
    if waiting < most:
        return None
    return f"how {waiting} attempts on path {path.name} end is not known yet, the limit is {most}"


def concurrent_downloads(plan: Plan) -> str | None:
    """So many phones at one time, for the sake of the line."""
    most, now, history = plan.rule.limits.concurrent_downloads, plan.situation.now, plan.situation.history
    if not plan.changes_version or most is None or now is None or history is None:
        return None
    busy = history.downloading(plan.rule.name, now, plan.identity)
    return f"{busy} phones are downloading, the limit is {most}" if busy >= most else None


def files_upstream(plan: Plan) -> str | None:
    """What a phone is sent to is there: an image of plausible size, and its catalog."""
    look, rule, path = plan.situation.files, plan.rule, plan.rule.path
    if not plan.changes_version or look is None or path is None or not rule.checks_files:
        return None
    # After a report the server chooses; what is looked at is what it should choose.
    version = plan.version if plan.offers else path.next_after(plan.phone.version) if plan.phone.version else None
    return look(rule, version) if version is not None else None


Interlock = Callable[[Plan], str | None]

INTERLOCKS: tuple[Interlock, ...] = (
    kill_switch,
    device_identity,
    phone_identity,
    known_history,
    known_time,
    downgrade,
    required_waypoint,
    failed_waypoint,
    fleet_breaker,
    undecided_attempts,
    staged_rollout,
    time_window,
    daily_limit,
    concurrent_downloads,
    files_upstream,
)


def held(plan: Plan) -> str | None:
    """The first interlock that holds, with its reason, as `name: reason`; None where none does."""
    for interlock in INTERLOCKS:
        reason = interlock(plan)
        if reason is not None:
            return f"{interlock.__name__}: {reason}"
    return None
