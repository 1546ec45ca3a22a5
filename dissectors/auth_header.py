"""Values of `WWW-Authenticate`, `Authorization` and their proxy forms (RFC 9110 section 11), in HTTP and SIP.

Tolerant: what real stacks send is read as far as it has a meaning, several challenges in one value are told apart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dissectors.errors import DissectError, LimitExceeded

MAX_VALUE = 1 << 18  # characters; IIS takes 16 KiB in one header unless told otherwise
MAX_CHALLENGES = 32
MAX_PARAMETERS = 64

HEADERS = frozenset(
    {
        "www-authenticate",
        "authorization",
        "proxy-authenticate",
        "proxy-authorization",
        "authentication-info",
        "proxy-authentication-info",
    }
)

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_WORD})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*))', re.DOTALL)
_SCHEME = re.compile(rf"({_WORD})(?=[\s,]|\Z)")
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=[ \t]*(?:,|\Z))")
_GAP = re.compile(r"[\s,]*")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


class Credentials(NamedTuple):
    """One challenge or one set of credentials: scheme as written, token68 (`NTLM TlRM...`) or parameters."""

    scheme: str
    token: str = ""
    parameters: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """First parameter of that name, compared without case."""
        wanted = name.lower()
        return next((value for key, value in self.parameters if key.lower() == wanted), None)

    @property
    def blob(self) -> str:
        """The Base64 token, wherever the scheme puts it: SIP has it in `gssapi-data` ([MS-SIPAE])."""
        return self.token or self.get("gssapi-data") or ""


def parse(value: str) -> tuple[Credentials, ...]:
    """Read a header value. Raises `DissectError` where no scheme can be found."""
    if len(value) > MAX_VALUE:
        raise LimitExceeded(0, f"a header of at most {MAX_VALUE} characters", f"{len(value)}")
    found: list[Credentials] = []
    position = _after_gap(value, 0)
    while position < len(value):
        scheme = _SCHEME.match(value, position)
        if scheme is None:
            raise DissectError(position, "an authentication scheme", repr(value[position : position + 20]))
        if len(found) == MAX_CHALLENGES:
            raise LimitExceeded(position, f"at most {MAX_CHALLENGES} challenges", "more")
        position = _after_gap(value, scheme.end())
        token = ""
        parameters: list[tuple[str, str]] = []
        separated = "," in value[scheme.end() : position]
        if not separated and (match := _TOKEN68.match(value, position)):
            token = match[0]
            position = _after_gap(value, match.end())
        else:
            while match := _PARAMETER.match(value, position):
                if len(parameters) == MAX_PARAMETERS:
                    raise LimitExceeded(position, f"at most {MAX_PARAMETERS} parameters", "more")
                quoted = match[2]
                parameters.append((match[1], match[3] if quoted is None else _ESCAPE.sub(r"\1", quoted)))
                position = _after_gap(value, match.end())
        found.append(Credentials(scheme[1], token, tuple(parameters)))
    return tuple(found)


def _after_gap(value: str, position: int) -> int:
    """Past white space and commas."""
    match = _GAP.match(value, position)
    return match.end() if match else position
