"""Plain JSON values as indented lines, for people; used where mitmproxy and the command line show what was decoded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

INDENT = "  "
MAX_LINES = 5000


def outline(value: Any) -> Iterator[str]:
    """`name: value` lines; what is empty is left out, and what is very long is cut off."""
    for number, line in enumerate(_lines(value, "")):
        if number == MAX_LINES:
            yield "..."
            return
        yield line


def _lines(value: Any, indent: str) -> Iterator[str]:
    for name, one in value.items():
        if isinstance(one, dict) and one:
            yield f"{indent}{name}:"
            yield from _lines(one, indent + INDENT)
        elif isinstance(one, list) and one:
            yield from _list(name, one, indent)
        elif not _empty(one):
            yield f"{indent}{name}: {_plain(one)}"


def _list(name: str, values: list[Any], indent: str) -> Iterator[str]:
    if not any(isinstance(one, dict | list) for one in values):
        yield f"{indent}{name}: {', '.join(map(_plain, values))}"
        return
    yield f"{indent}{name}:"
    for one in values:
        if isinstance(one, dict):
            first = True
            for line in _lines(one, ""):
                yield f"{indent}{'- ' if first else INDENT}{line}"
                first = False
        else:
            yield f"{indent}- {_plain(one)}"


def _empty(value: Any) -> bool:
    return value is None or value in ("", [], {})


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
