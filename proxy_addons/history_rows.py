"""The history of a phone as plain JSON values and back. Times are microseconds since 1970, UTC."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from captures.rows import microseconds, moment_of
from dissectors.version import Version
from proxy_addons.history import (
    Attempt,
    Change,
    Download,
    Failure,
    Offered,
    PhoneHistory,
)


def to_row(phone: PhoneHistory) -> dict[str, Any]:
    """A history but for its identity, and for what is true of a moment only (`pending`, `counted`)."""
    attempt = phone.attempt
    return {
        "seen": [_time(phone.first_seen), _time(phone.last_seen)],
        "checks": phone.checks,
        "version": _text(phone.version),
        "versions": _changes(phone.versions),
        "addresses": _changes(phone.addresses),
        "statuses": _changes(phone.statuses),
        "users": _changes(phone.users),
        "offers": [[_time(one.at), _text(one.version), one.rule] for one in phone.offers],
        "downloads": [
            [_time(one.at), str(one.version), one.file, one.complete, one.resumed] for one in phone.downloads
        ],
        "failures": [[_time(one.at), _text(one.version), one.why] for one in phone.failures],
        "attempt": attempt
        and [_text(attempt.version), attempt.path, sorted(attempt.files), attempt.begun, _time(attempt.downloaded)],
        "action": phone.action,
        "reached": [_text(phone.reached), phone.reached_on],
    }


def from_row(identity: str, row: dict[str, Any]) -> PhoneHistory:
    """The history again. Raises `KeyError`, `TypeError`, `ValueError`, `DissectError` for what is none."""
    attempt = row["attempt"]
    return PhoneHistory(
        identity=identity,
        first_seen=_moment(row["seen"][0]),
        last_seen=_moment(row["seen"][1]),
        checks=row["checks"],
        version=_version(row["version"]),
        versions=_changed(row["versions"]),
        addresses=_changed(row["addresses"]),
        statuses=_changed(row["statuses"]),
        users=_changed(row.get("users", ())),  # not there in rows of before
        offers=tuple(Offered(moment_of(at), _version(version), rule) for at, version, rule in row["offers"]),
        downloads=tuple(
            Download(moment_of(at), Version.parse(version), file, complete, resumed)
            for at, version, file, complete, resumed in row["downloads"]
        ),
        failures=tuple(Failure(moment_of(at), _version(version), why) for at, version, why in row["failures"]),
        attempt=attempt and Attempt(_version(attempt[0]), attempt[1], set(attempt[2]), attempt[3], _moment(attempt[4])),
        action=row["action"],
        reached=_version(row["reached"][0]),
        reached_on=row["reached"][1],
    )


def _time(moment: datetime | None) -> int | None:
    return None if moment is None else microseconds(moment)


def _moment(number: int | None) -> datetime | None:
    return None if number is None else moment_of(number)


def _text(version: Version | None) -> str | None:
    return None if version is None else str(version)


def _version(text: str | None) -> Version | None:
    return None if text is None else Version.parse(text)


def _changes(changes: Sequence[Change]) -> list[list[Any]]:
    return [[_time(at), text] for at, text in changes]


def _changed(rows: Sequence[Sequence[Any]]) -> tuple[Change, ...]:
    return tuple((moment_of(at), text) for at, text in rows)
