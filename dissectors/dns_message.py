"""DNS messages (RFC 1035 section 4): names asked for, and the answers of the kinds that lead a phone to its servers.

Names may be compressed, and a hostile message may compress them in circles: every pointer must go back, and the names
of one message are bounded in all.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from dissectors.errors import DissectError, LimitExceeded

MAX_RECORDS = 256  # questions and answers read of one message
MAX_NAME = 255  # octets (RFC 1035 section 2.3.4)
MAX_POINTERS = 16  # of one name

_HEAD = struct.Struct(">HHHHHH")
_RECORD = struct.Struct(">HHIH")
_SRV = struct.Struct(">HHH")  # RFC 2782
A, CNAME, PTR, AAAA, SRV = 1, 5, 12, 28, 33
TYPES = {A: "A", 2: "NS", CNAME: "CNAME", 6: "SOA", PTR: "PTR", 15: "MX", 16: "TXT", AAAA: "AAAA", SRV: "SRV"}
RCODES = {0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}


class Question(NamedTuple):
    """What is asked: a name and a record type."""

    name: str
    kind: int


class Answer(NamedTuple):
    """A record of the answer section; `value` is an address, or a name (SRV: `priority weight port target`)."""

    name: str
    kind: int
    ttl: int
    value: str | None


@dataclass(frozen=True, slots=True)
class DnsMessage:
    """A query or an answer; authority and additional sections are not read."""

    identifier: int
    is_answer: bool
    rcode: int
    questions: tuple[Question, ...]
    answers: tuple[Answer, ...]

    @classmethod
    def parse(cls, data: bytes) -> DnsMessage:
        """Read a message as it stands in a UDP datagram. Raises `DissectError`."""
        if len(data) < _HEAD.size:
            raise DissectError(0, "a DNS header of 12 octets", f"{len(data)}")
        identifier, flags, asked, answered, _, _ = _HEAD.unpack_from(data)
        if asked + answered > MAX_RECORDS:
            raise LimitExceeded(4, f"at most {MAX_RECORDS} questions and answers", f"{asked + answered}")
        at = _HEAD.size
        questions = []
        for _ in range(asked):
            name, at = _name(data, at)
            _need(data, at, 4)
            questions.append(Question(name, int.from_bytes(data[at : at + 2], "big")))
            at += 4
        answers = []
        for _ in range(answered):
            name, at = _name(data, at)
            _need(data, at, _RECORD.size)
            kind, _class, ttl, size = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            _need(data, at, size)
            answers.append(Answer(name, kind, ttl, _value(data, at, size, kind)))
            at += size
        return cls(identifier, bool(flags & 0x8000), flags & 15, tuple(questions), tuple(answers))

    def to_json(self) -> dict[str, Any]:
        """The `dns` fact: `message`, `questions`, `answers`, `rcode` (None in a query)."""
        return {
            "fact": "dns",
            "message": "answer" if self.is_answer else "query",
            "id": self.identifier,
            "rcode": RCODES.get(self.rcode, str(self.rcode)) if self.is_answer else None,
            "questions": [{"name": name, "type": _type(kind)} for name, kind in self.questions],
            "answers": [
                {"name": name, "type": _type(kind), "ttl": ttl, "value": value}
                for name, kind, ttl, value in self.answers
            ],
        }


def _type(kind: int) -> str:
    return TYPES.get(kind, f"TYPE{kind}")  # RFC 3597 section 5


def _need(data: bytes, at: int, size: int) -> None:
    if at + size > len(data):
        raise DissectError(at, f"{size} octets", f"{max(0, len(data) - at)}")


def _value(data: bytes, at: int, size: int, kind: int) -> str | None:
    if kind == A and size == 4:
        return str(IPv4Address(data[at : at + 4]))
    if kind == AAAA and size == 16:
        return str(IPv6Address(data[at : at + 16]))
    if kind in (CNAME, PTR, 2):
        return _name(data, at)[0]
    if kind == SRV and size > _SRV.size:
        priority, weight, port = _SRV.unpack_from(data, at)
        return f"{priority} {weight} {port} {_name(data, at + _SRV.size)[0]}"
    return None


def _name(data: bytes, at: int) -> tuple[str, int]:
    """A name and where it ends. Every pointer goes further back than the piece it stands in."""
    labels: list[str] = []
    end: int | None = None
    size = pointers = 0
    piece = at
    while True:
        _need(data, at, 1)
        octet = data[at]
        if octet >= 0xC0:
            _need(data, at, 2)
            target = (octet & 0x3F) << 8 | data[at + 1]
            end = at + 2 if end is None else end
            pointers += 1
            if target >= piece or pointers > MAX_POINTERS:
                raise DissectError(at, "a pointer to an earlier name", f"a pointer to {target}")
            at = piece = target
            continue
        if octet > 63:
            raise DissectError(at, "a label length or a pointer", f"octet {octet:02x}")
        at += 1
        if not octet:
            return ".".join(labels) or ".", at if end is None else end
        _need(data, at, octet)
        size += octet + 1
        if size > MAX_NAME:
            raise DissectError(at, f"a name of at most {MAX_NAME} octets", "more")
        labels.append(data[at : at + octet].decode("ascii", "backslashreplace"))
        at += octet
