"""The emulated server's rules as a TOML file.

[[rule]]                       # documented properties of a device update rule
device_type = "UCPhone"        # default
brand = "Polycom"
model = "CX700"
revision = "A"                 # default
locale = "ENU"                 # default
update_type = "CPE"            # default
approved = "1.0.522.101"
pending = "3.5.6907.35"        # for test devices
restore = "1.0.199.123"

[[test_device]]
mac = "00-04-F2-00-01-76"      # or: serial = "07823-A345"
name = "the one on my desk"

[[field_story]]                # against the documented rules, as seen in the field
reported = "1.0.522.73"
answer = ""                    # blank: nothing is offered
model = "CX700"                # optional
"""

from __future__ import annotations

import tomllib
from typing import Any, NamedTuple

from dissectors.errors import DissectError
from dissectors.version import Version
from tools.update_server.field_story import FieldStory
from tools.update_server.packages import CX700
from tools.update_server.rules import DeviceKey, IdentifierType, Rule, RuleBook, TestDevice

_RULE = {*DeviceKey._fields, "update_type", "approved", "pending", "restore"}
_TEST_DEVICE = {"mac", "serial", "name"}
_FIELD_STORY = {"reported", "answer", "model"}


class ServerRules(NamedTuple):
    """What a rules file of the server holds."""

    book: RuleBook
    stories: tuple[FieldStory, ...]


def read_server_rules(text: str) -> ServerRules:
    """Read the file's text. Raises `ValueError` that says what is wrong and in which entry."""
    try:
        document = tomllib.loads(text)
    except RecursionError:
        raise ValueError("expected tables of text, found values nested too deeply") from None
    unknown = document.keys() - {"rule", "test_device", "field_story"}
    if unknown:
        raise ValueError(f"expected [[rule]], [[test_device]] and [[field_story]], found {min(unknown)!r}")
    rules = tuple(_rule(entry) for entry in _entries(document, "rule", _RULE))
    keys = [(rule.key, rule.update_type) for rule in rules]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise ValueError(f"two rules for {twice[0]} {twice[1]}")
    devices = tuple(_test_device(entry) for entry in _entries(document, "test_device", _TEST_DEVICE))
    stories = tuple(_story(entry) for entry in _entries(document, "field_story", _FIELD_STORY))
    return ServerRules(RuleBook(rules, devices), stories)


class _Entry(NamedTuple):
    title: str
    values: dict[str, str]

    def text(self, name: str, default: str | None = None) -> str:
        """A value; raises `ValueError` where it is missing and has no default."""
        value = self.values.get(name, default)
        if value is None:
            raise ValueError(f"{self.title}: {name} is missing")
        return value

    def version(self, name: str) -> Version | None:
        """A version, None where it is blank or missing."""
        text = self.values.get(name, "")
        try:
            return Version.parse(text) if text else None
        except DissectError as error:
            raise ValueError(f"{self.title}: {name}: expected {error.expected}, found {error.found}") from None


def _entries(document: dict[str, Any], table: str, known: set[str]) -> list[_Entry]:
    entries = document.get(table, [])
    if not isinstance(entries, list):
        raise ValueError(f"expected [[{table}]] (two brackets), found [{table}]")  # noqa: TRY004 - it is the file's
    found = []
    for number, entry in enumerate(entries, 1):
        title = f"{table} {number}"
        if not isinstance(entry, dict):
            raise ValueError(f"{title}: expected a table, found {entry!r}")  # noqa: TRY004
        for name, value in entry.items():
            if name not in known:
                raise ValueError(f"{title}: {name!r} is not known; expected {', '.join(sorted(known))}")
            if not isinstance(value, str):
                raise ValueError(f"{title}: {name}: expected text in quotes, found {value!r}")  # noqa: TRY004
        found.append(_Entry(title, entry))
    return found


def _rule(entry: _Entry) -> Rule:
    key = DeviceKey(
        entry.text("device_type", CX700.device_type),
        entry.text("brand"),
        entry.text("model"),
        entry.text("revision", CX700.revision),
        entry.text("locale", CX700.locale),
    )
    versions = (entry.version(name) for name in ("approved", "pending", "restore"))
    try:
        return Rule(key, entry.text("update_type", "CPE"), *versions)
    except ValueError as error:
        raise ValueError(f"{entry.title}: {error}") from None


def _test_device(entry: _Entry) -> TestDevice:
    mac, serial = entry.values.get("mac"), entry.values.get("serial")
    if (mac is None) == (serial is None):
        raise ValueError(f"{entry.title}: expected either mac or serial")
    kind = IdentifierType.SERIAL_NUMBER if mac is None else IdentifierType.MAC_ADDRESS
    try:
        return TestDevice(kind, mac or serial or "", entry.text("name", ""))
    except ValueError as error:
        raise ValueError(f"{entry.title}: {error}") from None


def _story(entry: _Entry) -> FieldStory:
    reported = entry.version("reported")
    if reported is None:
        raise ValueError(f"{entry.title}: reported is missing")
    entry.text("answer")
    return FieldStory(reported, entry.version("answer"), entry.text("model", ""))
