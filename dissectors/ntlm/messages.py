"""NEGOTIATE, CHALLENGE and AUTHENTICATE messages ([MS-NLMP] 2.2.1.1 to 2.2.1.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from construct import ConstructError

from dissectors.errors import DissectError, LimitExceeded, Unsupported
from dissectors.ntlm.av_pairs import AvPair, build_av_pairs
from dissectors.ntlm.flags import Flags
from dissectors.ntlm.layout import (
    AUTHENTICATE,
    CHALLENGE,
    MAX_MESSAGE,
    NEGOTIATE,
    PREFIX,
    OsVersion,
    Reader,
    build,
    encode,
    oem,
)
from dissectors.ntlm.login import Login
from dissectors.ntlm.responses import NtResponse


@dataclass(frozen=True, slots=True)
class Negotiate:
    """Message 1, from the client. Domain and workstation are OEM text; most clients leave them out."""

    type: ClassVar[str] = "negotiate"

    flags: Flags
    domain: str = ""
    workstation: str = ""
    version: OsVersion | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Negotiate:
        """Read message 1, also the short ones of old clients (16 bytes). Raises `DissectError`."""
        _check(data, 1)
        if len(data) < 32:
            if len(data) < 16:
                raise DissectError(len(data), "NegotiateFlags", "the end")
            return cls(Flags(int.from_bytes(data[12:16], "little")))
        flags = Flags(int.from_bytes(data[12:16], "little"))
        announced = {
            "domain": Flags.NEGOTIATE_OEM_DOMAIN_SUPPLIED in flags,
            "workstation": Flags.NEGOTIATE_OEM_WORKSTATION_SUPPLIED in flags,
        }
        reader = Reader(data, NEGOTIATE, 32, ignored=frozenset(name for name, there in announced.items() if not there))
        for name, there in announced.items():
            if not there and reader.raw(name):
                reader.problems.append(f"{name}: its flag is not set")
        return cls(
            flags,
            reader.text("domain", wide=False),
            reader.text("workstation", wide=False),
            reader.version(flags, 40),
            tuple(reader.problems),
        )

    def to_bytes(self) -> bytes:
        """The message as Windows lays it out; raises `DissectError` where text is no ISO 8859-1."""
        texts = {"workstation": oem(self.workstation), "domain": oem(self.domain)}
        return build(1, NEGOTIATE, texts, {"flags": int(self.flags), "version": self.version})

    def to_json(self, *, secrets: bool = False) -> dict[str, Any]:  # noqa: ARG002  # nothing secret here
        """Plain values."""
        return {
            "message": self.type,
            "flags": self.flags.to_json(),
            "domain": printable(self.domain),
            "workstation": printable(self.workstation),
            "version": None if self.version is None else str(self.version),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Challenge:
    """Message 2, from the server. `target_info` names the server and its domain."""

    type: ClassVar[str] = "challenge"

    flags: Flags
    server_challenge: bytes
    target_name: str = ""
    target_info: tuple[AvPair, ...] = ()
    version: OsVersion | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Challenge:
        """Read message 2. Raises `DissectError`."""
        _check(data, 2)
        reader = Reader(data, CHALLENGE, 32)
        flags = Flags(reader.header.flags)
        return cls(
            flags,
            bytes(reader.header.server_challenge),
            reader.text("target_name", wide=Flags.NEGOTIATE_UNICODE in flags),
            reader.av_pairs("target_info"),
            reader.version(flags, 56),
            tuple(reader.problems),
        )

    def to_bytes(self) -> bytes:
        """The message as Windows lays it out."""
        payload = {
            "target_name": encode(self.target_name, self.flags),
            "target_info": build_av_pairs(self.target_info) if self.target_info else b"",
        }
        fixed = {"flags": int(self.flags), "server_challenge": self.server_challenge, "reserved": bytes(8)}
        return build(2, CHALLENGE, payload, {**fixed, "version": self.version})

    def to_json(self, *, secrets: bool = False) -> dict[str, Any]:  # noqa: ARG002  # the challenge is public
        """Plain values."""
        return {
            "message": self.type,
            "flags": self.flags.to_json(),
            "target_name": printable(self.target_name),
            "server_challenge": self.server_challenge.hex(),
            "target_info": [pair.to_json() for pair in self.target_info],
            "version": None if self.version is None else str(self.version),
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Message 3, from the client: who logs in, and the proof, which is kept out of `repr` and `to_json`.

    `mic` is None where the header ends before it; some clients leave it zero.
    """

    type: ClassVar[str] = "authenticate"

    flags: Flags
    domain: str = ""
    user: str = ""
    workstation: str = ""
    lm_response: bytes = field(default=b"", repr=False)
    nt_response: bytes = field(default=b"", repr=False)
    session_key: bytes = field(default=b"", repr=False)
    version: OsVersion | None = None
    mic: bytes | None = field(default=None, repr=False)
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Authenticate:
        """Read message 3, also with the shorter headers of old clients (52, 64, 72 bytes). Raises `DissectError`."""
        _check(data, 3)
        reader = Reader(data, AUTHENTICATE, 52)
        if reader.room < 64:
            reader.problems.append("no NegotiateFlags: an old client; texts read as OEM")
            reader.header.flags = 0
            if reader.room < 60:
                reader.header.session_key.length = 0
        flags = Flags(reader.header.flags)
        wide = Flags.NEGOTIATE_UNICODE in flags
        return cls(
            flags,
            reader.text("domain", wide=wide),
            reader.text("user", wide=wide),
            reader.text("workstation", wide=wide),
            reader.raw("lm_response"),
            reader.raw("nt_response"),
            reader.raw("session_key"),
            reader.version(flags, 72),
            bytes(reader.header.mic) if reader.room >= 88 else None,
            tuple(reader.problems),
        )

    @property
    def login(self) -> Login:
        """Domain and user as sent."""
        return Login(self.domain, self.user)

    @property
    def response(self) -> NtResponse:
        """Which kind of response was sent, and what of it is no secret."""
        extended = Flags.NEGOTIATE_EXTENDED_SESSIONSECURITY in self.flags
        return NtResponse.of(self.nt_response, self.lm_response, extended_security=extended)

    def to_bytes(self) -> bytes:
        """The message as Windows lays it out."""
        payload = {
            "domain": encode(self.domain, self.flags),
            "user": encode(self.user, self.flags),
            "workstation": encode(self.workstation, self.flags),
            "lm_response": self.lm_response,
            "nt_response": self.nt_response,
            "session_key": self.session_key,
        }
        fixed = {"flags": int(self.flags), "version": self.version, "mic": self.mic}
        return build(3, AUTHENTICATE, payload, fixed)

    def to_json(self, *, secrets: bool = False) -> dict[str, Any]:
        """Plain values; responses, session key and MIC as hexadecimal digits only with `secrets`."""
        shown = {
            "message": self.type,
            "flags": self.flags.to_json(),
            **{name: printable(text) for name, text in self.login.to_json().items()},
            "workstation": printable(self.workstation),
            "response": self.response.to_json(),
            "lm_response_length": len(self.lm_response),
            "nt_response_length": len(self.nt_response),
            "session_key_length": len(self.session_key),
            "mic": None if self.mic is None else "present" if any(self.mic) else "zero",
            "version": None if self.version is None else str(self.version),
            "problems": list(self.problems),
        }
        if secrets:
            shown["secrets"] = {
                "lm_response": self.lm_response.hex(),
                "nt_response": self.nt_response.hex(),
                "session_key": self.session_key.hex(),
                "mic": None if self.mic is None else self.mic.hex(),
            }
        return shown


Message = Negotiate | Challenge | Authenticate
_MESSAGES: dict[int, type[Negotiate] | type[Challenge] | type[Authenticate]] = {
    1: Negotiate,
    2: Challenge,
    3: Authenticate,
}


def parse(data: bytes) -> Message:
    """Read a message that begins with `NTLMSSP`. Raises `DissectError`."""
    kind = _MESSAGES.get(_type(data))
    if kind is None:
        raise Unsupported(8, "NTLM message type 1, 2 or 3", f"type {_type(data)}")
    return kind.parse(data)


def printable(text: str) -> str:
    """Text that can be printed and encoded: lone surrogates become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _type(data: bytes) -> int:
    if len(data) > MAX_MESSAGE:
        raise LimitExceeded(0, f"an NTLM message of at most {MAX_MESSAGE} bytes", f"{len(data)} bytes")
    try:
        return int(PREFIX.parse(data).type)
    except ConstructError:
        raise DissectError(0, "an NTLM message (NTLMSSP)", repr(data[:12])) from None


def _check(data: bytes, wanted: int) -> None:
    found = _type(data)
    if found != wanted:
        raise DissectError(8, f"NTLM message type {wanted}", f"type {found}")
