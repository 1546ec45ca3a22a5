"""Tables of a TOML file, read with messages that name the line and what was expected there."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, NoReturn

from dissectors import DissectError
from dissectors.mac_address import normal_mac
from dissectors.version import Version

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)


class RulesError(ValueError):
    """A rules file that cannot be used: `line` (0 where unknown) and what was expected there."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


@dataclass(slots=True)
class Table:
    """One `[[where]]` table of the file, or a table inside it; `start` is the line it begins at (0 where unknown)."""

    values: dict[str, Any]
    where: str
    lines: list[str]
    start: int
    inside: str = ""

    def fail(self, key: str, message: str, item: str | None = None) -> NoReturn:
        """Raise `RulesError` for a key of this table, or for one item of the list it has."""
        line = self._line(key)
        raise RulesError(line if item is None else self._line_of(item, line), message)

    def refuse(self, key: str, error: DissectError, item: str | None = None) -> NoReturn:
        """Raise `RulesError` for a value that a dissector could not read."""
        self.fail(key, f"{self._name(key)}: expected {error.expected}, found {error.found}", item)

    def expected(self, key: str, what: str) -> NoReturn:
        """Raise `RulesError` for a value that is of another kind."""
        self.fail(key, f"{self._name(key)}: expected {what}, found {shown(self.values.get(key))}")

    def only(self, *known: str) -> None:
        """Accept no other keys."""
        for key in self.values:
            if key not in known:
                self.fail(key, f"unknown key {self._name(key)!r} in [[{self.where}]]: expected {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        """A text in one line that is not blank."""
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value.strip() or any(ord(char) < 32 for char in value):
            self.expected(key, "text")
        return str(value)

    def flag(self, key: str) -> bool:
        """True or false; false where it is not there."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.expected(key, "true or false")
        return bool(value)

    def whole(self, key: str, default: int | None, most: int) -> int | None:
        """A whole number from 1 to `most`."""
        value = self.values.get(key, default)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            self.expected(key, f"a whole number from 1 to {most}")
        return value

    def number(self, key: str, most: float) -> float | None:
        """A number from 0 to `most`, None where it is not there."""
        value = self.values.get(key)
        if value is not None and (type(value) not in {int, float} or not 0 <= value <= most):
            self.expected(key, f"a number from 0 to {most:g}")
        return value

    def duration(self, key: str, default: str) -> timedelta:
        """A time such as `90s`, `30m`, `24h` or `7d`."""
        text = self.text(key, default)
        match = _DURATION.fullmatch(text.strip())
        if match is None or not int(match[1]):
            self.fail(key, f"{self._name(key)}: expected a time such as 90s, 30m, 24h or 7d, found {text!r}")
        return timedelta(**{_UNITS[match[2]]: int(match[1])})

    def inner(self, key: str) -> Table:
        """A table inside this one; an empty one where it is not there."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.expected(key, "a table")
        return Table(value, self.where, self.lines, self.start, self._name(key))

    def version(self, key: str) -> Version:
        """A version."""
        text = self.text(key)
        try:
            return Version.parse(text)
        except DissectError as error:
            self.refuse(key, error)

    def versions(self, key: str) -> tuple[Version, ...]:
        """A list of versions."""
        versions = []
        for item in self.list(key):
            try:
                versions.append(Version.parse(item))
            except DissectError as error:
                self.refuse(key, error, item)
        return tuple(versions)

    def list(self, key: str) -> list[str]:
        """A list of texts."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.expected(key, "a list of texts")
        return list(value)

    def strings(self, key: str) -> frozenset[str] | None:
        """A set of texts whose letter case does not matter."""
        items = [item.strip().casefold() for item in self.list(key)]
        if not all(items):
            self.fail(key, f"{self._name(key)}: expected texts that are not blank")
        return frozenset(items) if key in self.values else None

    def macs(self, key: str) -> frozenset[str] | None:
        """A set of MAC addresses in the form of `normal_mac`."""
        if key not in self.values:
            return None
        macs = set()
        for item in self.list(key):
            mac = normal_mac(item)
            if mac is None:
                expected = "a MAC address such as 00:04:f2:00:01:76"
                self.fail(key, f"{self._name(key)}: expected {expected}, found {item!r}", item)
            macs.add(mac)
        return frozenset(macs)

    def networks(self, key: str) -> tuple[Network, ...] | None:
        """Networks such as `10.1.0.0/16`; a bare address is a network of one."""
        if key not in self.values:
            return None
        networks = []
        for item in self.list(key):
            try:
                networks.append(ipaddress.ip_network(item.strip()))
            except ValueError as error:
                expected = "a subnet such as 10.1.0.0/16"
                self.fail(key, f"{self._name(key)}: expected {expected}, found {item!r} ({error})", item)
        return tuple(networks)

    def _name(self, key: str) -> str:
        return f"{self.inside}.{key}" if self.inside else key

    def _line(self, key: str) -> int:
        """The line where the key stands in this table, or the table's first line."""
        outer = self.inside.rpartition(".")[2]
        alone = rf"(^|[\s.{{,\"']){re.escape(key)}[\s\"']*(=|\.)"
        # Of several places that fit, the one that names the outer table too; then one below that table's own header.
        beside = re.compile(rf"(^|[\s.{{,\"']){re.escape(outer)}\b.*?{alone}" if outer else alone)
        header = re.compile(rf"\s*\[\s*{re.escape(self.where)}\.{re.escape(self.inside)}\s*\]")
        below = None
        first = None
        within = False
        for number in range(self.start, len(self.lines)):
            line = self.lines[number]
            if line.lstrip().startswith("[["):
                break
            if line.lstrip().startswith("["):
                within = bool(self.inside) and header.match(line) is not None
            elif beside.search(line):
                return number + 1
            elif re.search(alone, line):
                first = first or number + 1
                below = below or (number + 1 if within else None)
        return below or first or self.start

    def _line_of(self, item: str, start: int) -> int:
        """The line of an item of a list that begins in a line."""
        for number in range(max(start, 1), len(self.lines) + 1):
            line = self.lines[number - 1]
            if number > start and line.lstrip().startswith("["):
                break
            if f'"{item}"' in line or f"'{item}'" in line:
                return number
        return start


def shown(value: object) -> str:
    """A value as it stands in the file, as far as that matters."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return repr(value)
