"""What a SIP message says about a phone's login: who sent it, how it was refused, which settings it brought."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from dissectors import inband, ntlm
from dissectors.auth_header import Credentials
from dissectors.errors import DissectError
from dissectors.sip.message import SipMessage
from dissectors.sip_users import mask_users
from dissectors.user_agent import UserAgent

MAX_DIAGNOSTICS = 16

_DIAGNOSTICS = ("ms-diagnostics", "ms-diagnostics-public", "ms-client-diagnostics")
_CODE = re.compile(r"\s*(\d{1,9})\s*(?:;|\Z)")
_PARAMETER = re.compile(r';\s*([\w.-]{1,64})\s{0,4}=\s{0,4}(?:"((?:[^"\\]|\\.)*)"|([^;"]*))', re.ASCII | re.DOTALL)
_EPID = re.compile(r";\s*epid=([^;>\s]{1,64})", re.IGNORECASE)
_NAME_ADDR = re.compile(r"<([^<>]*)>")
_ADDR_SPEC = re.compile(r"\s*([^\s;]+)")
# Parameters that tell about the server; opaque, rspauth, response and the like belong to the logged-in user.
_PUBLIC = ("realm", "targetname", "version", "sts-uri", "qop")


class Diagnostics(NamedTuple):
    """An ms-diagnostics header ([MS-OCER]): error number, reason, the server that wrote it, and the rest."""

    header: str
    code: int | None
    parameters: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, header: str, value: str) -> Diagnostics:
        """Read a value; never raises: without a number `code` is None."""
        code = _CODE.match(value)
        found = _PARAMETER.finditer(value, code.end(1) if code else 0)
        parameters = tuple(
            (match[1], match[3].strip() if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])) for match in found
        )
        return cls(header, int(code[1]) if code else None, parameters)

    def get(self, name: str) -> str:
        """A parameter by name without case, blank where it is not there."""
        return next((value for key, value in self.parameters if key.lower() == name), "")

    def to_json(self, *, secrets: bool = False) -> dict[str, Any]:
        """`header`, `code`, `reason`, `source` and the other `parameters`."""
        shown = {key: value if secrets else mask_users(value) for key, value in self.parameters}
        return {
            "header": self.header,
            "code": self.code,
            "reason": self.get("reason"),
            "source": self.get("source"),
            "parameters": {key: value for key, value in shown.items() if key.lower() not in ("reason", "source")},
        }


def diagnostics(message: SipMessage) -> tuple[Diagnostics, ...]:
    """The ms-diagnostics headers of a message."""
    found = [Diagnostics.parse(name, value) for name in _DIAGNOSTICS for value in message.get_all(name)]
    return tuple(found[:MAX_DIAGNOSTICS])


def user_agent(message: SipMessage) -> UserAgent | None:
    """The sender of a request; for a response see its Server header."""
    text = message.get("user-agent")
    return None if text is None else UserAgent.parse(text)


def in_band(message: SipMessage) -> inband.InBandSettings | None:
    """The settings in the body. Raises `DissectError` where the body is not what its type says."""
    kind, _, parameters = (message.get("content-type") or "").partition(";")
    if kind.strip().lower() != inband.CONTENT_TYPE or not message.body:
        return None
    charset = re.search(r"charset=\"?([\w.:-]{1,40})", parameters, re.IGNORECASE)
    return inband.parse(message.body, charset[1] if charset else None)


def to_json(message: SipMessage, *, secrets: bool = False) -> dict[str, Any]:
    """The `sip` fact. SIP users, and what proves a login, are shown only with `secrets`."""
    problems = list(message.problems)
    schemes: list[dict[str, Any]] = []
    tokens: list[dict[str, Any]] = []
    for header, found in message.credentials:
        if isinstance(found, DissectError):
            problems.append(f"{header}: {found}")
            continue
        schemes.append(_scheme(header, found, secrets=secrets))
        try:
            if token := ntlm.from_credentials(found):
                tokens.append(token.to_json(secrets=secrets))
        except DissectError as error:
            problems.append(f"{header}: {error}")
    settings = None
    try:
        settings = in_band(message)
    except DissectError as error:
        problems.append(f"body: {error}")
    agent = user_agent(message)
    return {
        "fact": "sip",
        "method": message.method,
        "uri": _party(message.uri, secrets=secrets) if message.uri else None,
        "status": message.status,
        "reason": message.reason,
        "from": _party(message.get("from") or "", secrets=secrets),
        "to": _party(message.get("to") or "", secrets=secrets),
        "epid": _epid(message),
        "call_id": message.get("call-id"),
        "cseq": message.get("cseq"),
        "expires": message.get("expires"),
        "event": message.get("event"),
        "user_agent": agent.to_json() if agent else None,
        "server": message.get("server"),
        "authentication": schemes,
        "ntlm": tokens,
        "diagnostics": [found.to_json(secrets=secrets) for found in diagnostics(message)],
        "content_type": message.get("content-type"),
        "body": {"size": len(message.body), "declared": message.declared_length},
        "in_band": settings.to_json(secrets=secrets) if settings else None,
        "problems": problems,
    }


def _scheme(header: str, credentials: Credentials, *, secrets: bool) -> dict[str, Any]:
    shown = {key.lower(): value for key, value in credentials.parameters if secrets or key.lower() in _PUBLIC}
    return {"header": header, "scheme": credentials.scheme, **{name: shown.pop(name, None) for name in _PUBLIC}} | (
        {"parameters": shown} if secrets else {}
    )


def _party(value: str, *, secrets: bool) -> str | None:
    """The URI of a From, To or Contact value, without the display name."""
    match = _NAME_ADDR.search(value) or _ADDR_SPEC.match(value)
    if match is None:
        return None
    return match[1] if secrets else mask_users(match[1])


def _epid(message: SipMessage) -> str | None:
    """The endpoint id ([MS-SIPRE]): the phone's, in From of a request and in To of what it is sent."""
    for name in ("from", "to"):
        if match := _EPID.search(message.get(name) or ""):
            return match[1]
    return None
