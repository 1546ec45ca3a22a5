"""Values of options that several verbs take."""

from __future__ import annotations

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
