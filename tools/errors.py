"""How a verb ends: its exit codes, and the one error that is the user's to mend."""

from __future__ import annotations

import re

EXIT_OK = 0
EXIT_PROBLEM = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130  # from the keyboard, as shells have it


class UnusableInput(Exception):
    """An input or option that cannot be used: one line on stderr, exit 2."""


# A password may hold what should have been escaped: up to the last @ before another URL begins.
_LOGIN = re.compile(r"(//[^\s:/@]*):(?:(?!\s\S*://).)*@|((?<![\w/])[^\s:/@'\"]+):(?!//)\S*@")


def without_passwords(line: str) -> str:
    """A line for people, who may have it in a log: of `user:password@` the password is ***."""
    return _LOGIN.sub(lambda match: f"{match[1] or match[2]}:***@", line)
