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
    when.window = "22:00-05:00"       # local time; "22:00-05:00 UTC" for UTC
    when.percentage = 10              # of the phones, by a stable hash of rule name and MAC address
    scope.mac = ["00:04:f2:00:01:76"] # these first, whatever the percentage
    then.report = "0.0.0.0"           # or then.offer = "1.0.522.103", or then.observe = true
    limits.per_phone_per_day = 3      # offers a phone is given in any 24 hours
    limits.stop_after_failures = 1    # failed attempts at a waypoint, then no more (1 where it is not there)
    limits.fleet_failure_rate = 0.2   # over this share of failures nobody is offered anything more on this path,
    limits.fleet_window = "24h"       # counted over this time (24h where it is not there),
    limits.fleet_minimum = 5          # from so many outcomes on (5 where it is not there)
    limits.fleet_undecided = 50       # phones on this path whose attempt has not ended (50 beside a failure rate)
    limits.concurrent_downloads = 10  # phones that are downloading because of this rule at one time

The first rule that matches decides: `when.version`, `when.mac`, `when.serial` and `when.subnet` (of the phone's
address) choose it. Everything else never makes way for a later rule: outside its window, its rollout or its limits a
rule holds, and the phone gets what it would get without upshim. A phone that tells neither MAC address nor serial
number is held unless `allow_address_identity = true`. An offer is held until its files have been seen upstream, unless
`check_files = false`; with `check_files = true` so is a report, for the next waypoint's. A file with any mistake is
refused as a whole.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

from dissectors import DissectError
from dissectors.version import Version
from proxy_addons.conditions import NO_LIMITS, UNDECIDED, Limits, Rollout, VersionRange, Window
from proxy_addons.phone import IDENTITY, UpgradePath
from proxy_addons.rule_index import RuleIndex
from proxy_addons.toml_table import Network, RulesError, Table

MAX_RULES_BYTES = 16 << 20
OFFER_TEXTS = ("base_url", "external_base_url", "file", "signature_file", "timestamp")
MAX_OFFERS_KEPT = 100  # of one phone, so that a limit can be counted
MAX_FAILURES_KEPT = 20  # of one phone
MAX_OUTCOMES_KEPT = 2000  # of one upgrade path, the newest
RULE_FLAGS = ("allow_downgrade", "allow_address_identity", "check_files")

_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$", re.ASCII)
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


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
    subnets: tuple[Network, ...] | None = None
    window: Window | None = None
    rollout: Rollout | None = None
    limits: Limits = NO_LIMITS
    report: Report | None = None
    offer: Offer | None = None
    request_headers: HeaderEdits = HeaderEdits()
    response_headers: HeaderEdits = HeaderEdits()
    allow_downgrade: bool = False
    allow_address_identity: bool = False
    check_files: bool | None = None

    @property
    def matches_all(self) -> bool:
        """Whether it matches every phone of its path, or without one every phone."""
        return self.version is None and self.macs is None and self.serials is None and self.subnets is None

    @property
    def checks_files(self) -> bool:
        """Whether the files must have been seen upstream: unless told otherwise for an offer, not for a report."""
        return self.offer is not None if self.check_files is None else self.check_files


@dataclass(frozen=True, slots=True)
class Rules:
    """A whole rules file; `sha256` names the exact text that was in force."""

    paths: tuple[UpgradePath, ...] = ()
    rules: tuple[Rule, ...] = ()
    sha256: str = ""
    index: RuleIndex[Rule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", RuleIndex(self.rules))

    @classmethod
    def parse(cls, text: bytes) -> Rules:
        """Read and check a rules file. Raises `RulesError`."""
        if len(text) > MAX_RULES_BYTES:
            raise RulesError(0, f"expected at most {MAX_RULES_BYTES} bytes")
        try:
            source = text.removeprefix(codecs.BOM_UTF8).decode()  # editors on Windows begin with it
            document = tomllib.loads(source)
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            raise RulesError(line, f"expected UTF-8, found byte {error.object[error.start]:#04x}") from None
        except tomllib.TOMLDecodeError as error:
            what, place = str(error), _PLACE.search(str(error))
            if place is None:  # at the end of the document
                raise RulesError(len(source.splitlines()), f"not TOML: {what}") from None
            raise RulesError(int(place[1]), f"not TOML: {what[: place.start()]}, column {place[2]}") from None
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
        takes_all: dict[str | None, str] = {}  # by path: the rule that leaves no phone of it to later ones
        for table in self._tables("rule"):
            rule = self._rule(table, paths)
            if rule.name in rules:
                table.fail("name", f"a rule named {rule.name!r} is there already")
            rules[rule.name] = rule
            name = rule.path.name if rule.path is not None else None
            before = takes_all.get(name) or takes_all.get(None)
            if before is not None:
                table.fail(
                    "name", f"rule {rule.name!r} is never reached: rule {before!r} before it matches every phone"
                )
            if rule.matches_all:
                takes_all[name] = rule.name
        return Rules(tuple(paths.values()), tuple(rules.values()), sha256)

    def _tables(self, kind: str) -> list[Table]:
        found = self._document.get(kind, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise RulesError(self._line(kind), f"expected [[{kind}]] tables")
        starts = [number for number, line in enumerate(self._lines, 1) if re.match(rf"\s*\[\[\s*{kind}\s*\]\]", line)]
        return [
            Table(item, kind, self._lines, starts[index] if len(starts) == len(found) else 0)
            for index, item in enumerate(found)
        ]

    def _line(self, key: str) -> int:
        begins = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}(?![\w-])")
        return next((number for number, line in enumerate(self._lines, 1) if begins.match(line)), 0)

    def _path(self, table: Table) -> UpgradePath:
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

    def _rule(self, table: Table, paths: dict[str, UpgradePath]) -> Rule:
        table.only("name", "path", "when", "then", "scope", "limits", *RULE_FLAGS)
        name = table.text("name")
        path = None
        if "path" in table.values:
            wanted = table.text("path")
            path = paths.get(wanted)
            if path is None:
                table.fail("path", f"no path is named {wanted!r}")
        when = table.inner("when")
        when.only("version", "mac", "serial", "subnet", "window", "percentage")
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
            version=self._constraints(when),
            macs=when.macs("mac"),
            serials=when.strings("serial"),
            subnets=when.networks("subnet"),
            window=self._window(when),
            rollout=self._rollout(table, when),
            limits=self._limits(table.inner("limits")),
            report=report,
            offer=offer,
            request_headers=self._headers(then, "request_headers"),
            response_headers=self._headers(then, "response_headers"),
            allow_downgrade=table.flag("allow_downgrade"),
            allow_address_identity=table.flag("allow_address_identity"),
            check_files=table.flag("check_files") if "check_files" in table.values else None,
        )
        if not actions and rule.request_headers == rule.response_headers == HeaderEdits():
            table.fail("then", f"rule {name!r} does nothing: expected report, offer, observe or header edits")
        if "observe" in then.values and not then.flag("observe"):
            then.fail("observe", "expected true")
        if (report or offer) and rule.version is None:
            table.fail("when", f"rule {name!r} would never stop: expected when.version")
        if report and path and rule.version and path.waypoints[-1] in rule.version:
            last = path.waypoints[-1]
            when.fail("version", f"rule {name!r} would never stop: expected a range without the last waypoint, {last}")
        return rule

    def _constraints(self, when: Table) -> VersionRange | None:
        try:
            return VersionRange.parse(when.text("version")) if "version" in when.values else None
        except DissectError as error:
            when.refuse("version", error)

    def _window(self, when: Table) -> Window | None:
        try:
            return Window.parse(when.text("window")) if "window" in when.values else None
        except DissectError as error:
            when.refuse("window", error)

    def _rollout(self, table: Table, when: Table) -> Rollout | None:
        scope = table.inner("scope")
        scope.only("mac", "serial")
        percentage = when.number("percentage", 100)
        if "scope" in table.values and not scope.values:
            table.fail("scope", "scope: expected mac or serial")
        if "scope" not in table.values and percentage is None:
            return None
        return Rollout(scope.macs("mac") or frozenset(), scope.strings("serial") or frozenset(), percentage)

    def _limits(self, limits: Table) -> Limits:
        limits.only(*Limits.__slots__)
        for key in ("fleet_window", "fleet_minimum"):
            if key in limits.values and "fleet_failure_rate" not in limits.values:
                limits.fail(key, f"limits.{key}: expected limits.fleet_failure_rate beside it")
        default = NO_LIMITS
        return Limits(
            per_phone_per_day=limits.whole("per_phone_per_day", None, MAX_OFFERS_KEPT),
            stop_after_failures=limits.whole("stop_after_failures", None, MAX_FAILURES_KEPT)
            or default.stop_after_failures,
            fleet_failure_rate=limits.number("fleet_failure_rate", 1),
            fleet_window=limits.duration("fleet_window", "24h"),
            fleet_minimum=limits.whole("fleet_minimum", None, MAX_OUTCOMES_KEPT) or default.fleet_minimum,
            fleet_undecided=limits.whole(
                "fleet_undecided", UNDECIDED if "fleet_failure_rate" in limits.values else None, 1_000_000
            ),
            concurrent_downloads=limits.whole("concurrent_downloads", None, 1_000_000),
        )

    def _headers(self, then: Table, key: str) -> HeaderEdits:
        table = then.inner(key)
        table.only("set", "remove")
        inner = table.inner("set")
        edits = HeaderEdits(tuple((name, inner.text(name)) for name in inner.values), tuple(table.list("remove")))
        for name, value in edits.set:
            if not value.isascii():
                inner.fail(name, f"{inner.inside}.{name}: expected ASCII, found {value!r}")
        for name in (*inner.values, *edits.remove):
            if not _TOKEN.fullmatch(name) or name.lower() in {
                "content-length",
                "transfer-encoding",
                "content-encoding",
            }:
                then.fail(key, f"{then.inside}.{key}: {name!r} is not a header that can be edited")
        return edits

    def _report(self, then: Table) -> Report | None:
        if "report" not in then.values:
            if "timestamp" in then.values:
                then.fail("timestamp", "expected a report beside it")
            return None
        version = then.version("report")
        # Zero is reported the way phones do it: zero version and zero FILETIME (protocol.md section 3.2).
        default = "01-01-1601 00:00:00" if version.is_zero else None
        return Report(version, then.text("timestamp") if "timestamp" in then.values else default)

    def _offer(self, then: Table, path: UpgradePath | None) -> Offer | None:
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


__all__ = [
    "HeaderEdits",
    "Offer",
    "Report",
    "Rule",
    "Rules",
    "RulesError",
    "VersionRange",
]
