"""Facts in a few words, for tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from captures.exchange import Fact


def words(fact: Fact) -> str:
    """A fact as a short phrase; a kind that has none of its own is named."""
    kind = str(fact.get("fact"))
    try:
        return WORDS[kind](fact) if kind in WORDS else kind
    except (KeyError, TypeError, AttributeError):  # told by another version, with other fields
        return kind


def _check(fact: Mapping[str, Any]) -> str:
    versions = ", ".join(module["version"] or "?" for module in fact["modules"]) or "no version"
    return f"{fact['mac_address'] or fact['serial'] or 'a phone'} {fact['model'] or '?'} runs {versions}"


def _answer(fact: Mapping[str, Any]) -> str:
    offered = [offer["offered_version"] or "?" for offer in fact["offers"] if not offer["empty"]]
    return f"offers {', '.join(offered)}" if offered else "offers nothing"


def _decision(fact: Mapping[str, Any]) -> str:
    if fact["action"] == "leave":
        return ""
    if fact["action"] == "hold":
        return f"held: {fact['reason']}"
    dry = " (dry run)" if fact["dry_run"] else ""
    return f"{fact['action']} {fact['version'] or ''} by {fact['rule']}{dry}".replace("  ", " ")


def _fetch(fact: Mapping[str, Any]) -> str:
    part = f" {fact['range']}" if fact["range"] else ""
    return f"{fact['model']} {fact['version']} {fact['file']}{part}"


def _login(fact: Mapping[str, Any]) -> str:
    if fact.get("message") != "authenticate":
        return f"{fact['scheme']} {fact.get('message') or fact.get('mechanism') or 'login'}"
    return f"{fact['scheme']} login as {fact['domain']}\\{fact['user']}"


def _dhcp(fact: Mapping[str, Any]) -> str:
    told = []
    for option in fact["options"]:
        if option["option"] == _VENDOR_CLASS and "text" in option:
            told.append(option["text"])
        elif option["option"] == _SIP_SERVERS:
            told += option.get("names", []) + option.get("addresses", [])
        elif option["option"] == _VENDOR_OPTIONS:
            told.append(option.get("certificate_url") or "option 43")
    return f"DHCP {fact['message']} {fact['client_mac']}" + "".join(f", {each}" for each in told)


def _dns(fact: Mapping[str, Any]) -> str:
    asked = ", ".join(f"{question['type']} {question['name']}" for question in fact["questions"])
    if fact["message"] == "query":
        return f"DNS {asked}?"
    values = ", ".join(answer["value"] for answer in fact["answers"] if answer["value"])
    return f"DNS {asked}: {values or fact['rcode']}"


def _sip(fact: Mapping[str, Any]) -> str:
    if fact["status"] is None:
        agent = fact["user_agent"]
        by = f" by {agent['text']}" if agent and agent.get("text") else ""
        return f"SIP {fact['method']} {fact['uri'] or ''} from {fact['from'] or '?'}{by}"
    errors = "".join(f"; ms-diagnostics {each['code']} {each['reason']}" for each in fact["diagnostics"])
    settings = "; in-band settings" if fact["in_band"] else ""
    return f"SIP {fact['status']} {fact['reason']} to {fact['method']}{errors}{settings}"


_VENDOR_OPTIONS, _VENDOR_CLASS, _SIP_SERVERS = 43, 60, 120

WORDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "update-check": _check,
    "update-answer": _answer,
    "decision": _decision,
    "firmware-fetch": _fetch,
    "ntlm": _login,
    "dhcp-message": _dhcp,
    "dns": _dns,
    "sip": _sip,
    "tls": lambda _fact: "",  # the address shows it
}
