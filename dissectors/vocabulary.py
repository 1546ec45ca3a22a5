"""The names of the update service's values, read from one TOML profile (`vocabulary.toml`) that users can extend."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final

from dissectors.errors import DissectError, LimitExceeded

MAX_PROFILE = 1 << 16  # characters
MAX_ALIAS = 80
MAX_KNOWN = 4096  # pairs of names that are remembered

DEVICE_FIELDS: Final = (
    "device_type",
    "mac",
    "serial",
    "vendor",
    "model",
    "revision",
    "locale",
    "user",
    "last_update_status",
)
MODULE_FIELDS: Final = ("file", "signature_file", "version", "timestamp")
URL_FIELDS: Final = ("base_url", "external_base_url")
PACKAGE_FIELDS: Final = ("update_type",)
_TABLES: Final[Mapping[str, tuple[str, ...]]] = {
    "aliases": (*DEVICE_FIELDS, "module", "modules", *MODULE_FIELDS, *URL_FIELDS, *PACKAGE_FIELDS),
    "generic": ("name", "value"),
}
_INSIGNIFICANT = re.compile(r"[-_.\s]+")
_POSITION = re.compile(r"\(at line (\d+), column (\d+)\)")


def normal_name(name: str) -> str:
    """A name without its namespace prefix, case, `-`, `_`, `.` and blanks; blank for a name too long to be known."""
    return "" if len(name) > 2 * MAX_ALIAS else _normal(name)


@lru_cache(maxsize=4096)  # the names of a body come again in the next one
def _normal(name: str) -> str:
    return _INSIGNIFICANT.sub("", name.rpartition(":")[2]).casefold()


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Which field of the update service a name stands for.

    `aliases` maps normal names (`macaddress`, `module/name`) to fields, `generic` the names of name and value holders
    (`key`, `value`) to `name` and `value`.
    """

    aliases: Mapping[str, str]
    generic: Mapping[str, str]
    # The names of a body come again in the next one.
    _known: dict[tuple[str, str], str | None] = field(default_factory=dict, init=False, compare=False, repr=False)

    @staticmethod
    def default() -> Vocabulary:
        """The profile that comes with the package."""
        return _default()

    def extended(self, toml_text: str) -> Vocabulary:
        """This vocabulary and the aliases of a user's profile, which win where both know a name.

        Raises `DissectError` (`offset` in characters) for bad TOML, unknown tables or fields, and wrong types.
        """
        tables = _read(toml_text)
        return Vocabulary(
            {**self.aliases, **_mapping(toml_text, tables, "aliases")},
            {**self.generic, **_mapping(toml_text, tables, "generic")},
        )

    def field_of(self, name: str, owner: str) -> str | None:
        """The field that `name` stands for within an element `owner` (blank: none), None if it is no known name."""
        pair = name, owner
        if (known := self._known.get(pair, "")) != "":
            return known
        normal = normal_name(name)
        found = self.aliases.get(f"{normal_name(owner)}/{normal}") or self.aliases.get(normal)
        if len(self._known) < MAX_KNOWN and len(name) + len(owner) <= MAX_ALIAS:
            self._known[pair] = found
        return found


@cache
def _default() -> Vocabulary:
    text = resources.files("dissectors").joinpath("vocabulary.toml").read_text(encoding="utf-8")
    return Vocabulary({}, {}).extended(text)


def _read(text: str) -> dict[str, Any]:
    if len(text) > MAX_PROFILE:
        raise LimitExceeded(MAX_PROFILE, f"a profile of at most {MAX_PROFILE} characters", str(len(text)))
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise LimitExceeded(0, "a TOML profile of [aliases] and [generic]", "values nested too deeply") from None
    except ValueError as error:  # TOMLDecodeError, and int() on numbers of thousands of digits
        position = _POSITION.search(str(error))
        offset = 0
        if position is not None:
            lines = text.splitlines(keepends=True)[: int(position[1]) - 1]
            offset = sum(map(len, lines)) + int(position[2]) - 1
        raise DissectError(offset, "a TOML profile", str(error)[:120]) from None


def _mapping(text: str, tables: dict[str, Any], table: str) -> dict[str, str]:
    """Normal name to field of one table."""

    def refuse(name: str, expected: str, found: object) -> DissectError:
        return DissectError(max(text.find(name), 0), expected, str(found)[:80])

    for name in tables:
        if name not in _TABLES:
            raise refuse(name, "only the tables " + " and ".join(f"[{known}]" for known in _TABLES), f"{name!r}")
    fields = tables.get(table, {})
    if not isinstance(fields, dict):
        raise refuse(table, f"a table [{table}]", repr(fields))
    result: dict[str, str] = {}
    for kind, names in fields.items():
        if kind not in _TABLES[table]:
            raise refuse(kind, f"a field of [{table}]: " + ", ".join(_TABLES[table]), repr(kind))
        if not isinstance(names, list):
            raise refuse(kind, f"a list of names for {kind}", repr(names))
        for name in names:
            if not isinstance(name, str):
                raise refuse(kind, f"names in quotes for {kind}", repr(name))
            normal = "/".join(normal_name(part) for part in name.split("/"))
            if not all(normal.split("/")) or normal.count("/") > 1 or len(name) > MAX_ALIAS:
                raise refuse(name, f"a Name or an Owner/Name of at most {MAX_ALIAS} characters", repr(name))
            if result.setdefault(normal, kind) != kind:
                raise refuse(name, f"a name for one field alone ({result[normal]} has it)", f"{name!r} for {kind}")
    return result
