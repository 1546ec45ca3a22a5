"""What may be told of the responses in message 3 without giving them away ([MS-NLMP] 2.2.2.3 to 2.2.2.8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from construct import Bytes, Const, ConstructError, Int64ul, Padding, Struct

from dissectors.errors import DissectError
from dissectors.filetime import rfc3339
from dissectors.ntlm.av_pairs import AvPair, parse_av_pairs

_PROOF_SIZE = 16
_V1_SIZE = 24
_CLIENT_CHALLENGE = Struct(  # NTLMv2_CLIENT_CHALLENGE, 2.2.2.7; AV pairs follow
    "resp_type" / Const(b"\x01\x01"),
    Padding(6),
    "timestamp" / Int64ul,
    "challenge" / Bytes(8),
    Padding(4),
)


@dataclass(frozen=True, slots=True)
class NtResponse:
    """Kind of the response, and for NTLMv2 the client's clock (FILETIME) and AV pairs: which server it logs in to."""

    kind: str
    client_time: int | None = None
    target_info: tuple[AvPair, ...] = ()
    problem: str = ""

    @classmethod
    def of(cls, nt_response: bytes, lm_response: bytes, *, extended_security: bool) -> NtResponse:
        """Tell the kind by size and shape; never raises."""
        if not nt_response:
            return cls("LM" if len(lm_response) == _V1_SIZE else "none")
        if len(nt_response) == _V1_SIZE:
            return cls("NTLMv1 with extended session security" if extended_security else "NTLMv1")
        try:
            blob = _CLIENT_CHALLENGE.parse(nt_response[_PROOF_SIZE:])
        except ConstructError:
            return cls("unknown", problem=f"{len(nt_response)} bytes are neither NTLMv1 nor NTLMv2")
        start = _PROOF_SIZE + _CLIENT_CHALLENGE.sizeof()
        try:
            return cls("NTLMv2", blob.timestamp, parse_av_pairs(nt_response[start:], start))
        except DissectError as error:
            return cls("NTLMv2", blob.timestamp, problem=f"AV pairs {error}")

    def to_json(self) -> dict[str, Any]:
        """Plain values; nothing of it helps to guess the password."""
        return {
            "kind": self.kind,
            "client_time": None if self.client_time is None else rfc3339(self.client_time),
            "target_info": [pair.to_json() for pair in self.target_info],
            "problem": self.problem,
        }
