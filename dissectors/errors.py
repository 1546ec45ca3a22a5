"""The one error type of all dissectors."""

from __future__ import annotations


class DissectError(ValueError):
    """Input is not what the format asks for.

    `offset` counts bytes from the start of the dissected input (characters where the input is text), `expected` and
    `found` are short phrases for people. Callers catch this type alone; the subclasses only tell blame apart.
    """

    def __init__(self, offset: int, expected: str, found: str) -> None:
        super().__init__(offset, expected, found)
        self.offset = offset
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"at offset {self.offset}: expected {self.expected}, found {self.found}"


class Unsupported(DissectError):
    """Well-formed as far as read, but in a variant that is not decoded."""


class LimitExceeded(DissectError):
    """One of the declared limits of the dissector would be exceeded."""
