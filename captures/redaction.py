"""Takes credentials out of what is shown: kept are the scheme and the length, so that a login can still be followed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CREDENTIALS = frozenset(("authorization", "proxy-authorization", "authentication-info", "proxy-authentication-info"))
CHALLENGES = frozenset(("www-authenticate", "proxy-authenticate"))
COOKIES = frozenset(("cookie", "set-cookie"))


def redacted_value(name: str, value: str) -> str:
    """A header's value without its secrets; other headers' values as they are."""
    key = name.lower()
    if key in COOKIES:
        return f"<redacted, {len(value)} characters>"
    if key in CREDENTIALS or (key in CHALLENGES and " " in value.strip()):
        scheme, _, rest = value.strip().partition(" ")
        # `realm="x"` in a challenge is no secret; a token is one word.
        if key in CHALLENGES and "=" in rest.rstrip("= "):
            return value
        return f"{scheme} <redacted, {len(rest)} characters>" if rest else f"<redacted, {len(value)} characters>"
    return value


def redacted(exchange: Mapping[str, Any]) -> dict[str, Any]:
    """One line of `exchanges --json` without secrets in its headers."""
    shown = dict(exchange)
    for side in ("request", "response"):
        if shown.get(side):
            shown[side] = _message(shown[side])
    if shown.get("rewritten"):
        shown["rewritten"] = {side: _message(message) for side, message in shown["rewritten"].items()}
    return shown


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(message)
    shown["headers"] = [[name, redacted_value(name, value)] for name, value in message["headers"]]
    if "interim" in shown:
        shown["interim"] = [_message(each) for each in shown["interim"]]
    return shown
