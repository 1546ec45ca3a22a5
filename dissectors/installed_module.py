"""Installed and offered modules as the audit log writes them (protocol.md sections 3.1 and 3.2).

Request modules are `Filename;Version;Timestamp`, answer modules `Filename;Signature Filename;Version;Timestamp`; `#`
stands between modules. The field also knows `0.0.0.0;01-01-1601 00:00:00`, a report without a file name: the zero
version and a zero FILETIME.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from dissectors.errors import DissectError, LimitExceeded
from dissectors.version import Version

MAX_MODULES = 1024
MAX_TEXT = 1 << 20
MAX_REMEMBERED = 50  # characters of a timestamp

PART_SEPARATOR = ";"
MODULE_SEPARATOR = "#"
FILETIME_EPOCH = datetime(1601, 1, 1)

_TIMESTAMP = re.compile(
    r"(?P<a>\d{1,4})(?P<sep>[-/.])(?P<b>\d{1,2})(?P=sep)(?P<c>\d{1,4})"
    r"(?:[ T]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.\d{1,7})?)?"
    r"(?: ?(?P<half>[AaPp])\.?[Mm]\.?)?)?Z?",
    re.ASCII,
)


def timestamp_readings(text: str) -> tuple[datetime, ...]:
    """Every calendar time a timestamp may mean, without time zone: the wire names none.

    `03-04-2009` is the third of April or the fourth of March, and no source tells which order the service writes
    (protocol.md section 3.2): both are returned, the day-first reading first. Unreadable text gives none.
    """
    return _remembered(text) if len(text) <= MAX_REMEMBERED else _readings(text)


def _readings(text: str) -> tuple[datetime, ...]:
    match = _TIMESTAMP.fullmatch(text.strip())
    if match is None:
        return ()
    a, b, c = match["a"], match["b"], match["c"]
    if len(a) == 4 and len(c) <= 2:
        dates = [(a, b, c)]
    elif len(c) == 4 and len(a) <= 2:
        dates = [(c, b, a), (c, a, b)]
    else:
        return ()
    hour, minute, second = (int(match[part] or 0) for part in ("hour", "minute", "second"))
    if match["half"]:
        if not 1 <= hour <= 12:
            return ()
        hour = hour % 12 + (12 if match["half"] in "pP" else 0)
    readings: list[datetime] = []
    for year, month, day in dates:
        try:
            reading = datetime(int(year), int(month), int(day), hour, minute, second)
        except ValueError:
            continue
        if reading not in readings:
            readings.append(reading)
    return tuple(readings)


_remembered = lru_cache(maxsize=1024)(_readings)  # thousands of phones run a few modules


def _only_reading(timestamp: str | None) -> datetime | None:
    readings = timestamp_readings(timestamp or "")
    return readings[0] if len(readings) == 1 else None


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(PART_SEPARATOR)]


def _version(text: str) -> Version | None:
    return Version.parse(text) if text else None


def _modules(text: str) -> list[str]:
    if len(text) > MAX_TEXT:
        raise LimitExceeded(MAX_TEXT, f"a module list of at most {MAX_TEXT} characters", str(len(text)))
    if not text.strip():
        return []
    modules = text.split(MODULE_SEPARATOR, MAX_MODULES)
    if len(modules) > MAX_MODULES:
        raise LimitExceeded(0, f"at most {MAX_MODULES} modules", "more")
    return modules


def _joined(*values: str | Version | None) -> str:
    parts = ["" if value is None else str(value) for value in values]
    for part in parts:
        if PART_SEPARATOR in part or MODULE_SEPARATOR in part:
            raise DissectError(0, f"no {PART_SEPARATOR} or {MODULE_SEPARATOR} within a module's part", repr(part[:40]))
    return PART_SEPARATOR.join(parts)


@dataclass(frozen=True, slots=True)
class InstalledModule:
    """One module a phone reports. The timestamp stays as it was written; `when` reads it where that is certain."""

    file_name: str | None
    version: Version | None
    timestamp: str | None

    @classmethod
    def parse(cls, text: str) -> InstalledModule:
        """Read `file;version;timestamp`, or `version;timestamp`; blank parts give None. Raises `DissectError`."""
        match _parts(text[: MAX_TEXT + 1]):
            case [file_name, version, timestamp]:
                return cls(file_name or None, _version(version), timestamp or None)
            case [version, timestamp]:
                return cls(None, _version(version), timestamp or None)
        raise DissectError(0, "file;version;timestamp or version;timestamp", repr(text[:60]))

    @classmethod
    def parse_list(cls, text: str) -> tuple[InstalledModule, ...]:
        """Read modules joined with `#`; blank text is an empty list. Raises `DissectError`."""
        return tuple(cls.parse(module) for module in _modules(text))

    @staticmethod
    def list_to_text(modules: tuple[InstalledModule, ...]) -> str:
        """Join modules with `#`. Raises `DissectError` where a part holds a separator."""
        return MODULE_SEPARATOR.join(module.to_text() for module in modules)

    def to_text(self) -> str:
        """The form `parse` reads. Raises `DissectError` where a part holds a separator."""
        if self.file_name is None:
            return _joined(self.version, self.timestamp)
        return _joined(self.file_name, self.version, self.timestamp)

    @property
    def when(self) -> datetime | None:
        """The timestamp without a zone, None where it is absent, unreadable or of unknown day and month order."""
        return _only_reading(self.timestamp)

    @property
    def nothing_installed(self) -> bool:
        """True for the zero version with a zero FILETIME: module absent, first start, or not readable."""
        return self.version is not None and self.version.is_zero and self.when == FILETIME_EPOCH

    def to_json(self) -> dict[str, Any]:
        """Plain values: `file`, `version`, `timestamp`, `when` (ISO 8601 or null), `nothing_installed`."""
        return {
            "file": self.file_name,
            "version": None if self.version is None else str(self.version),
            "timestamp": self.timestamp,
            "when": None if self.when is None else self.when.isoformat(),
            "nothing_installed": self.nothing_installed,
        }


NOTHING_INSTALLED = InstalledModule(None, Version(0, 0, 0, 0), "01-01-1601 00:00:00")


@dataclass(frozen=True, slots=True)
class AnswerModule:
    """One module a server offers, as the audit log's `Response Modules` column writes it."""

    file_name: str | None
    signature_file_name: str | None
    version: Version | None
    timestamp: str | None

    @classmethod
    def parse(cls, text: str) -> AnswerModule:
        """Read `file;signature file;version;timestamp`; blank parts give None. Raises `DissectError`."""
        match _parts(text[: MAX_TEXT + 1]):
            case [file_name, signature, version, timestamp]:
                return cls(file_name or None, signature or None, _version(version), timestamp or None)
        raise DissectError(0, "file;signature file;version;timestamp", repr(text[:60]))

    @classmethod
    def parse_list(cls, text: str) -> tuple[AnswerModule, ...]:
        """Read modules joined with `#`; blank text is an empty list. Raises `DissectError`."""
        return tuple(cls.parse(module) for module in _modules(text))

    @staticmethod
    def list_to_text(modules: tuple[AnswerModule, ...]) -> str:
        """Join modules with `#`. Raises `DissectError` where a part holds a separator."""
        return MODULE_SEPARATOR.join(module.to_text() for module in modules)

    def to_text(self) -> str:
        """The form `parse` reads. Raises `DissectError` where a part holds a separator."""
        return _joined(self.file_name, self.signature_file_name, self.version, self.timestamp)

    @property
    def when(self) -> datetime | None:
        """The timestamp without a zone, None where it is absent, unreadable or of unknown day and month order."""
        return _only_reading(self.timestamp)

    def to_json(self) -> dict[str, Any]:
        """Plain values: `file`, `signature_file`, `version`, `timestamp`, `when` (ISO 8601 or null)."""
        return {
            "file": self.file_name,
            "signature_file": self.signature_file_name,
            "version": None if self.version is None else str(self.version),
            "timestamp": self.timestamp,
            "when": None if self.when is None else self.when.isoformat(),
        }
