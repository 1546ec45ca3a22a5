"""Takes credentials out of what is shown or exported, so that a login can still be followed.

Shown are the scheme and the length. Exported NTLM messages stay, with the responses and keys in them set to zero:
another reader sees the login, and nobody can use it or search for its password.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from captures.exchange import Exchange, Fact, Headers, Request, Response
from dissectors.errors import DissectError
from dissectors.redaction import REDACTED

CREDENTIALS = frozenset(("authorization", "proxy-authorization", "authentication-info", "proxy-authentication-info"))
CHALLENGES = frozenset(("www-authenticate", "proxy-authenticate"))
COOKIES = frozenset(("cookie", "set-cookie"))

WITH_USER = frozenset(("update-check", "update-answer"))

M = TypeVar("M", Request, Response)


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


def redacted_fact(fact: Fact) -> Fact:
    """A fact without the user of a phone, whom only a recording that was told to keeps in it."""
    return {**fact, "user": REDACTED} if fact.get("fact") in WITH_USER and fact.get("user") else fact


def redacted(exchange: Mapping[str, Any]) -> dict[str, Any]:
    """One line of `exchanges --json` without secrets in its headers."""
    shown = dict(exchange)
    shown["facts"] = [redacted_fact(fact) for fact in exchange["facts"]]
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


def for_export(exchange: Exchange) -> tuple[Exchange, int]:
    """An exchange whose headers hold no credentials and whose facts no users, and how many values that changed.

    Bodies stay.
    """
    count = 0

    def cleaned(headers: Headers) -> Headers:
        nonlocal count
        kept = tuple((name, _exported(name, value)) for name, value in headers)
        count += sum(before != after for before, after in zip(headers, kept, strict=True))
        return kept

    def message(one: M) -> M:
        one = replace(one, headers=cleaned(one.headers))
        if isinstance(one, Response) and one.interim:
            one = replace(one, interim=tuple((status, reason, cleaned(each)) for status, reason, each in one.interim))
        return one

    facts = tuple(map(redacted_fact, exchange.facts))
    count += sum(before is not after for before, after in zip(exchange.facts, facts, strict=True))
    changed = replace(
        exchange,
        facts=facts,
        request=message(exchange.request),
        response=exchange.response and message(exchange.response),
        rewritten_request=exchange.rewritten_request and message(exchange.rewritten_request),
        rewritten_response=exchange.rewritten_response and message(exchange.rewritten_response),
    )
    return (changed, count) if count else (exchange, 0)


def _exported(name: str, value: str) -> str:
    shown = redacted_value(name, value)
    if shown == value or name.lower() in COOKIES:
        return shown
    scheme, _, rest = value.strip().partition(" ")
    try:
        token = base64.b64decode(rest.strip(), validate=True)
        return f"{scheme} {base64.b64encode(_without_proofs(token)).decode()}"
    except (DissectError, binascii.Error, ValueError):
        return shown


def _without_proofs(token: bytes) -> bytes:
    """An NTLM message, bare or in SPNEGO, without what proves a password. Raises `DissectError` for anything else."""
    for proof in _proofs(token):
        token = token.replace(proof, bytes(len(proof)))
    if _proofs(token):
        raise DissectError(0, "an NTLM message whose parts lie apart", "another")
    return token


def _proofs(token: bytes) -> list[bytes]:
    from dissectors import ntlm  # noqa: PLC0415 - seldom needed

    message = ntlm.from_bytes(token).message
    if message is None:
        raise DissectError(0, "an NTLM message", "none")
    if not isinstance(message, ntlm.Authenticate):
        return []
    proofs = (message.nt_response, message.lm_response, message.session_key, message.mic or b"")
    return [proof for proof in proofs if any(proof)]
