"""Facts in a few words, for tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from captures.exchange import Fact


def words(fact: Fact) -> str:
    """A fact as a short phrase; a kind that has none of its own is named."""
    kind = str(fact.get("fact"))
    return WORDS[kind](fact) if kind in WORDS else kind


def _check(fact: Mapping[str, Any]) -> str:
    versions = ", ".join(module["version"] or "?" for module in fact["modules"]) or "no version"
    return f"{fact['mac_address'] or fact['serial'] or 'a phone'} {fact['model'] or '?'} runs {versions}"


def _answer(fact: Mapping[str, Any]) -> str:
    offered = [offer["offered_version"] or "?" for offer in fact["offers"] if not offer["empty"]]
    return f"offers {', '.join(offered)}" if offered else "offers nothing"


def _decision(fact: Mapping[str, Any]) -> str:
    if fact["action"] == "leave":
        return ""
    dry = " (dry run)" if fact["dry_run"] else ""
    return f"{fact['action']} {fact['version'] or ''} by {fact['rule']}{dry}".replace("  ", " ")


def _fetch(fact: Mapping[str, Any]) -> str:
    part = f" {fact['range']}" if fact["range"] else ""
    return f"{fact['model']} {fact['version']} {fact['file']}{part}"


def _login(fact: Mapping[str, Any]) -> str:
    if fact.get("message") != "authenticate":
        return f"{fact['scheme']} {fact.get('message') or fact.get('mechanism') or 'login'}"
    return f"{fact['scheme']} login as {fact['domain']}\\{fact['user']}"


WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "update-check": _check,
    "update-answer": _answer,
    "decision": _decision,
    "firmware-fetch": _fetch,
    "ntlm": _login,
}
