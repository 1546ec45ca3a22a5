"""From header values and pasted text to NTLM messages, through Base64 and SPNEGO."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from dissectors import auth_header
from dissectors.errors import DissectError, LimitExceeded
from dissectors.ntlm import messages, spnego
from dissectors.ntlm.layout import SIGNATURE
from dissectors.ntlm.messages import Message

MAX_TEXT = 1 << 18  # characters of Base64
_HEADER_NAME = re.compile(r"\s*((?:www|proxy)-authenticat\w+|(?:proxy-)?authorization)\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Token:
    """What one scheme carried.

    `scheme` is the header's (blank where only the bytes are known), `wrapping` is "spnego" or blank, `mechanisms` and
    `state` are SPNEGO's. `message` is None for another mechanism, and for SPNEGO without a token inside.
    """

    scheme: str
    wrapping: str = ""
    mechanisms: tuple[str, ...] = ()
    state: str | None = None
    message: Message | None = None

    @property
    def mechanism(self) -> str:
        """`NTLM`, or the mechanism SPNEGO names first, or blank."""
        if self.message is not None:
            return "NTLM"
        return self.mechanisms[0] if self.mechanisms else ""

    def to_json(self, *, secrets: bool = False) -> dict[str, Any]:
        """The `ntlm` fact: scheme and wrapping, then what the message holds; responses only with `secrets`."""
        shown: dict[str, Any] = {
            "fact": "ntlm",
            "scheme": self.scheme,
            "wrapping": self.wrapping,
            "mechanism": self.mechanism,
            "mechanisms": list(self.mechanisms),
            "state": self.state,
        }
        return shown if self.message is None else shown | self.message.to_json(secrets=secrets)


def from_bytes(data: bytes, scheme: str = "") -> Token:
    """Read a bare NTLM message or a SPNEGO token. Raises `DissectError`."""
    if data.startswith(SIGNATURE):
        return Token(scheme, message=messages.parse(data))
    outer = spnego.parse(data)
    inner = messages.parse(outer.token) if outer.token.startswith(SIGNATURE) else None
    wrapping = "" if outer.kind == "mechanism" else "spnego"
    return Token(scheme, wrapping, outer.mechanisms, outer.state, inner)


def from_credentials(credentials: auth_header.Credentials) -> Token | None:
    """The token of one challenge; None where the scheme carries none (a bare `NTLM`). Raises `DissectError`."""
    if credentials.scheme.lower() not in ("ntlm", "negotiate", "kerberos") or not credentials.blob:
        return None
    return from_bytes(_base64(credentials.blob), credentials.scheme)


def from_header(value: str) -> tuple[Token, ...]:
    """The tokens of a header value, HTTP's or SIP's. Raises `DissectError`."""
    tokens = map(from_credentials, auth_header.parse(value))
    return tuple(token for token in tokens if token is not None)


def from_text(text: str) -> Token:
    """Read what people paste: a header with or without its name, or Base64 alone, wrapped or not.

    Raises `DissectError`.
    """
    if len(text) > MAX_TEXT:
        raise LimitExceeded(0, f"a token of at most {MAX_TEXT} characters", f"{len(text)}")
    named = _HEADER_NAME.match(text)
    value = text[named.end() :] if named else text
    joined = "".join(value.split())
    for scheme in ("negotiate", "ntlm"):
        if joined[: len(scheme)].lower() == scheme and "=" not in joined[:-3]:
            return from_bytes(_base64(joined[len(scheme) :]), joined[: len(scheme)])
    if named or "=" in joined[:-3]:
        tokens = from_header(value)
        if not tokens:
            raise DissectError(0, "a header with a token", repr(value[:40]))
        return tokens[0]
    return from_bytes(_base64(joined))


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DissectError(0, "Base64", f"{text[:16]!r}: {error}") from None
