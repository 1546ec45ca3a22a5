"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OK, WARN, PROBLEM = "ok", "warn", "problem"


@dataclass(frozen=True, slots=True)
class Result:
    """One thing looked at: its state (`ok`, `warn` or `problem`), what was found, and what to do about it."""

    check: str
    subject: str
    status: str
    found: str
    advice: str = ""

    def to_json(self) -> dict[str, Any]:
        """The line of `--json`."""
        return {
            "kind": "check",
            "check": self.check,
            "subject": self.subject,
            "status": self.status,
            "found": self.found,
            "advice": self.advice or None,
        }


def reason(error: Exception) -> str:
    """An error in one line."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0]
