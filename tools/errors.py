"""How a verb ends: its exit codes, and the one error that is the user's to mend."""

from __future__ import annotations

EXIT_OK = 0
EXIT_PROBLEM = 1
EXIT_UNUSABLE = 2
EXIT_INTERRUPTED = 130  # from the keyboard, as shells have it


class UnusableInput(Exception):
    """An input or option that cannot be used: one line on stderr, exit 2."""
