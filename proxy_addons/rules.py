"""The rules file (TOML): upgrade paths and rules, checked as a whole when it is read.

    [[path]]                          # one device family and its waypoints, oldest first
    name = "cx700"
    device_type = "UCPhone"
    vendor = "Polycom"
    model = "CX700"
    revision = "A"
    locale = "ENU"
    waypoints = ["1.0.522.103", "3.5.6907.222"]
    required = ["1.0.522.103"]        # an offer never jumps over these

    [[rule]]
    name = "cx700-interim"
    path = "cx700"                    # only phones with exactly this identity
    when.version = "< 1.0.522.101"
    then.report = "0.0.0.0"           # or then.offer = "1.0.522.103", or then.observe = true

The first rule that matches decides. A file with any mistake is refused as a whole.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from typing import Any, NoReturn

from dissectors import DissectError
from dissectors.mac_address import normal_mac
from dissectors.version import Version

MAX_RULES_BYTES = 16 << 20
OFFER_TEXTS = ("base_url", "external_base_url", "file", "signature_file", "timestamp")
IDENTITY = ("device_type", "vendor", "model", "revision", "locale")

_CONSTRAINT = re.compile(r"(<=|>=|!=|<|>|==?)?\s*([\d.]+)")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class RulesError(ValueError):
    """A rules file that cannot be used: `line` (0 where unknown) and what was expected there."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(line, message)
        self.line = line
        self.message = message

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}" if self.line else self.message


@dataclass(frozen=True, slots=True)
class VersionRange:
    """Constraints that must all hold, such as `>= 1.0.199.123, < 1.0.522.101`."""

    constraints: tuple[tuple[str, Version], ...] = ()

    @classmethod
    def parse(cls, text: str) -> VersionRange:
        """Read constraints separated by commas; a bare version means that version. Raises `DissectError`."""
        constraints = []
        for part in text.split(","):
            match = _CONSTRAINT.fullmatch(part.strip())
            if match is None:
                raise DissectError(0, "a constraint such as '< 1.0.522.101'", repr(part.strip()))
            constraints.append(((match[1] or "=").replace("==", "="), Version.parse(match[2])))
        return cls(tuple(constraints))

    def __contains__(self, version: Version) -> bool:
        holds = {
            "<": version.__lt__,
            "<=": version.__le__,
            ">": version.__gt__,
            ">=": version.__ge__,
            "=": version.__eq__,
            "!=": version.__ne__,
        }
        return all(holds[operator](bound) for operator, bound in self.constraints)


@dataclass(frozen=True, slots=True)
class UpgradePath:
    """A device family and the versions it goes through, oldest first."""

    name: str
    device_type: str
    vendor: str
    model: str
    revision: str
    locale: str
    waypoints: tuple[Version, ...]
    required: frozenset[Version] = frozenset()
    update_type: str = "CPE"

    def next_after(self, version: Version) -> Version | None:
        """The first waypoint above a version."""
        return next((waypoint for waypoint in self.waypoints if waypoint > version), None)


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """Headers to set (added where absent) and to remove."""

    set: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """What `then.offer` puts into an answer; `version` None means the next waypoint of the path.

    URLs and names that are None follow the documented layout below the address the phone asked, and the names the
    answer already holds.
    """

    version: Version | None = None
    base_url: str | None = None
    external_base_url: str | None = None
    file: str | None = None
    signature_file: str | None = None
    timestamp: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What `then.report` tells the server instead; a timestamp of None leaves the phone's own."""

    version: Version
    timestamp: str | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. With neither report, offer nor header edits it only observes."""

    name: str
    path: UpgradePath | None = None
    version: VersionRange | None = None
    macs: frozenset[str] | None = None
    serials: frozenset[str] | None = None
    report: Report | None = None
    offer: Offer | None = None
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: HeaderEdits = HeaderEdits()
    allow_downgrade: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """A whole rules file; `sha256` names the exact text that was in force."""

    paths: tuple[UpgradePath, ...] = ()
    rules: tuple[Rule, ...] = ()
    sha256: str = ""

    @classmethod
    def parse(cls, text: bytes) -> Rules:
        """Read and check a rules file. Raises `RulesError`."""
        if len(text) > MAX_RULES_BYTES:
            raise RulesError(0, f"expected at most {MAX_RULES_BYTES} bytes")
        try:
            source = text.decode()
            document = tomllib.loads(source)
        except UnicodeDecodeError as error:
            raise RulesError(
                0, f"expected UTF-8, found byte {text[error.start]:#04x} at offset {error.start}"
            ) from None
        except tomllib.TOMLDecodeError as error:
            raise RulesError(0, f"not TOML: {error}") from None
        except RecursionError:
            raise RulesError(0, "not TOML: nested too deeply") from None
        return _Reader(source, document).rules(hashlib.sha256(text).hexdigest())


class _Reader:
    """Checks the parsed document table by table and says where a mistake stands."""

    def __init__(self, source: str, document: dict[str, Any]) -> None:
        self._lines = source.splitlines()
        self._document = document

    def rules(self, sha256: str) -> Rules:
        unknown = sorted(set(self._document) - {"path", "rule"})
        if unknown:
            raise RulesError(self._line(unknown[0]), f"expected [[path]] and [[rule]] tables, found {unknown[0]!r}")
        paths: dict[str, UpgradePath] = {}
        for table in self._tables("path"):
            path = self._path(table)
            if path.name in paths:
                table.fail("name", f"a path named {path.name!r} is there already")
            paths[path.name] = path
        rules: dict[str, Rule] = {}
        for table in self._tables("rule"):
            rule = self._rule(table, paths)
            if rule.name in rules:
                table.fail("name", f"a rule named {rule.name!r} is there already")
            rules[rule.name] = rule
        return Rules(tuple(paths.values()), tuple(rules.values()), sha256)

    def _tables(self, kind: str) -> list[_Table]:
        found = self._document.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise RulesError(self._line(kind), f"expected [[{kind}]] tables")
        starts = [number for number, line in enumerate(self._lines, 1) if re.match(rf"\s*\[\[\s*{kind}\s*\]\]", line)]
        return [
            _Table(item, kind, self._lines, starts[index] if len(starts) == len(found) else 0)
            for index, item in enumerate(found)
        ]

    def _line(self, key: str) -> int:
        return next((number for number, line in enumerate(self._lines, 1) if key in line), 0)

    def _path(self, table: _Table) -> UpgradePath:
        table.only("name", *IDENTITY, "waypoints", "required", "update_type")
        waypoints = table.versions("waypoints")
        if not waypoints:
            table.fail("waypoints", "expected at least one waypoint")
        if list(waypoints) != sorted(set(waypoints)):
            table.fail("waypoints", "expected waypoints from the oldest to the newest, each once")
        required = table.versions("required")
        strangers = set(required) - set(waypoints)
        if strangers:
            table.fail("required", f"{min(strangers)} is not a waypoint")
        return UpgradePath(
            name=table.text("name"),
            **{part: table.text(part) for part in IDENTITY},
            waypoints=waypoints,
            required=frozenset(required),
            update_type=table.text("update_type", "CPE"),
        )

    def _rule(self, table: _Table, paths: dict[str, UpgradePath]) -> Rule:
        table.only("name", "path", "when", "then", "allow_downgrade")
        name = table.text("name")
        path = None
        if "path" in table.values:
            wanted = table.text("path")
            path = paths.get(wanted)
            if path is None:
                table.fail("path", f"no path is named {wanted!r}")
        when = table.inner("when")
        when.only("version", "mac", "serial")
        then = table.inner("then")
        then.only("report", "timestamp", "offer", "observe", "request_headers", "response_headers")
        report, offer = self._report(then), self._offer(then, path)
        actions = [key for key in ("report", "offer", "observe") if key in then.values]
        if len(actions) > 1:
            then.fail(actions[1], f"expected one of report, offer and observe, found {' and '.join(actions)}")
        if (report or offer) and path is None:
            table.fail("name", f"rule {name!r} changes what a phone gets: expected a path that says for which device")
        rule = Rule(
            name=name,
            path=path,
            version=when.constraints("version"),
            macs=when.macs("mac"),
            serials=when.strings("serial"),
            report=report,
            offer=offer,
            request_headers=then.headers("request_headers"),
            response_headers=then.headers("response_headers"),
            allow_downgrade=table.flag("allow_downgrade"),
        )
        if not actions and rule.request_headers == rule.response_headers == HeaderEdits():
            table.fail("then", f"rule {name!r} does nothing: expected report, offer, observe or header edits")
        if "observe" in then.values and not then.flag("observe"):
            then.fail("observe", "expected true")
        if (report or offer) and rule.version is None:
            table.fail("when", f"rule {name!r} would never stop: expected when.version")
        return rule

    def _report(self, then: _Table) -> Report | None:
        if "report" not in then.values:
            if "timestamp" in then.values:
                then.fail("timestamp", "expected a report beside it")
            return None
        version = then.version("report")
        # Zero is reported the way phones do it: zero version and zero FILETIME (protocol.md section 3.2).
        default = "01-01-1601 00:00:00" if version.is_zero else None
        return Report(version, then.text("timestamp") if "timestamp" in then.values else default)

    def _offer(self, then: _Table, path: UpgradePath | None) -> Offer | None:
        if "offer" not in then.values:
            return None
        key = "offer"
        if not isinstance(then.values["offer"], str):
            then, key = then.inner("offer"), "version"
            then.only("version", *OFFER_TEXTS)
        version = None if then.values.get(key) == "next" else then.version(key)
        if version is not None and path is not None and version not in path.waypoints:
            then.fail(key, f"{version} is not a waypoint of path {path.name!r}")
        return Offer(version, **{name: then.text(name) for name in OFFER_TEXTS if name in then.values})


@dataclass(slots=True)
class _Table:
    """One table of the file, with readers that know where it stands."""

    values: dict[str, Any]
    where: str
    lines: list[str]
    start: int
    inside: str = ""

    def fail(self, key: str, message: str) -> NoReturn:
        """Raise `RulesError` for a key of this table."""
        raise RulesError(self._line(key), message)

    def only(self, *known: str) -> None:
        for key in self.values:
            if key not in known:
                self.fail(key, f"unknown key {self._name(key)!r} in [[{self.where}]]: expected {', '.join(known)}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if not isinstance(value, str) or not value.strip() or any(ord(char) < 32 for char in value):
            self.fail(key, f"{self._name(key)}: expected text, found {value!r}")
        return str(value)

    def flag(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self.fail(key, f"{self._name(key)}: expected true or false, found {value!r}")
        return bool(value)

    def inner(self, key: str) -> _Table:
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.fail(key, f"{self._name(key)}: expected a table, found {value!r}")
        return _Table(value, self.where, self.lines, self.start, self._name(key))

    def version(self, key: str) -> Version:
        text = self.text(key)
        try:
            return Version.parse(text)
        except DissectError as error:
            raise RulesError(
                self._line(key), f"{self._name(key)}: expected {error.expected}, found {error.found}"
            ) from None

    def list(self, key: str) -> list[str]:
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.fail(key, f"{self._name(key)}: expected a list of texts, found {value!r}")
        return list(value)

    def strings(self, key: str) -> frozenset[str] | None:
        return frozenset(item.strip().casefold() for item in self.list(key)) if key in self.values else None

    def macs(self, key: str) -> frozenset[str] | None:
        if key not in self.values:
            return None
        macs = set()
        for item in self.list(key):
            mac = normal_mac(item)
            if mac is None:
                self.fail(key, f"{self._name(key)}: expected a MAC address such as 00:04:f2:00:01:76, found {item!r}")
            macs.add(mac)
        return frozenset(macs)

    def versions(self, key: str) -> tuple[Version, ...]:
        return tuple(
            _Table({key: item}, self.where, self.lines, self.start, self.inside).version(key) for item in self.list(key)
        )

    def constraints(self, key: str) -> VersionRange | None:
        if key not in self.values:
            return None
        try:
            return VersionRange.parse(self.text(key))
        except DissectError as error:
            raise RulesError(
                self._line(key), f"{self._name(key)}: expected {error.expected}, found {error.found}"
            ) from None

    def headers(self, key: str) -> HeaderEdits:
        table = self.inner(key)
        table.only("set", "remove")
        inner = table.inner("set")
        edits = HeaderEdits(tuple((name, inner.text(name)) for name in inner.values), tuple(table.list("remove")))
        for name in (*inner.values, *edits.remove):
            if not _TOKEN.fullmatch(name) or name.lower() in {
                "content-length",
                "transfer-encoding",
                "content-encoding",
            }:
                self.fail(key, f"{self._name(key)}: {name!r} is not a header that can be edited")
        return edits

    def _name(self, key: str) -> str:
        return f"{self.inside}.{key}" if self.inside else key

    def _line(self, key: str) -> int:
        """The line where the key stands in this table, or the table's first line."""
        wanted = re.compile(rf"(^|[\s.{{,\"']){re.escape(key)}[\s\"']*(=|\.)")
        for number in range(self.start, len(self.lines)):
            if self.lines[number].lstrip().startswith("[["):
                break
            if wanted.search(self.lines[number]):
                return number + 1
        return self.start
