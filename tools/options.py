"""Values of options that several verbs take."""

from __future__ import annotations

import argparse
from typing import Any

from dissectors.errors import DissectError
from dissectors.version import Version
from tools.errors import UnusableInput


def version_of(option: str, text: str) -> Version:
    """The version an option names. Raises `UnusableInput`."""
    try:
        return Version.parse(text)
    except DissectError as error:
        raise UnusableInput(f"{option}: expected {error.expected}, found {error.found}") from error


def above_zero(option: str, value: float) -> float:
    """The number an option gives. Raises `UnusableInput`."""
    if not 0 < value < float("inf"):
        raise UnusableInput(f"{option}: expected a number above 0, found {value}")
    return value


def declare(parsers: argparse._SubParsersAction[Any], name: str, doc: str) -> argparse.ArgumentParser:
    """A sub-command from its module's docstring: the first line is its help, the rest stands below the options."""
    summary, _, details = doc.partition("\n")
    parser: argparse.ArgumentParser = parsers.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=details.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser
