"""How long a message's body is (RFC 9112 section 6.3), and whether that can be believed."""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from typing import NamedTuple

from dissectors.http1.head import RequestHead, ResponseHead, shown

MAX_LENGTH = (1 << 63) - 1
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
_KNOWN_TRANSFER = frozenset(("chunked", "gzip", "x-gzip", "deflate", "compress", "x-compress"))
NO_BODY_METHODS = frozenset(("HEAD",))
_METHODS_THAT_MATTER = NO_BODY_METHODS | {"CONNECT"}  # to the length of an answer


class Kind(enum.Enum):
    """Where a body ends."""

    LENGTH = "length"  # after so many bytes, possibly none
    CHUNKED = "chunked"
    CLOSE = "close"  # with the connection
    TUNNEL = "tunnel"  # never: what follows is another protocol
    UNKNOWN = "unknown"  # recipients would disagree


class Framing(NamedTuple):
    """Where a body ends, what was odd about it, and why it may be unknown. `codings` are undone after chunks are."""

    kind: Kind
    length: int = 0
    notes: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    codings: tuple[str, ...] = ()


NO_BODY = Framing(Kind.LENGTH)
TO_THE_END = Framing(Kind.CLOSE)


def request_framing(head: RequestHead) -> Framing:
    """The framing of a request body."""
    framing = head.framings.get(None)
    if framing is None:
        framing = head.framings[None] = _request_framing(head)
    return framing


def response_framing(head: ResponseHead, method: str | None) -> Framing:
    """The framing of the body of an answer to `method`, None where the request was not seen."""
    that_matters = method if method in _METHODS_THAT_MATTER else None
    framing = head.framings.get(that_matters)
    if framing is None:
        framing = head.framings[that_matters] = _response_framing(head, that_matters)
    return framing


def _request_framing(head: RequestHead) -> Framing:
    if head.faults:
        return Framing(Kind.UNKNOWN)
    if head.told_transfers:
        return _transfer(head.told_transfers, head.told_lengths, head.version, Kind.UNKNOWN)
    return _length(head.told_lengths, NO_BODY)


def _response_framing(head: ResponseHead, method: str | None) -> Framing:
    if method == "CONNECT" and 200 <= head.status < 300:
        return Framing(Kind.TUNNEL)
    if head.status == 101:
        return Framing(Kind.TUNNEL)
    if method in NO_BODY_METHODS or head.status < 200 or head.status in {204, 304}:
        return Framing(Kind.LENGTH)
    if head.faults:
        return Framing(Kind.UNKNOWN)
    if head.told_transfers:
        return _transfer(head.told_transfers, head.told_lengths, head.version, Kind.CLOSE)
    return _length(head.told_lengths, TO_THE_END)


def _length(values: Sequence[str], absent: Framing) -> Framing:
    if not values:
        return absent
    if len(values) == 1 and len(values[0]) < 19 and _DIGITS.fullmatch(values[0]):
        return Framing(Kind.LENGTH, int(values[0]))
    members = [member.strip(" \t") for value in values for member in value.split(",")]
    for member in members:
        if not _DIGITS.fullmatch(member):
            return Framing(Kind.UNKNOWN, faults=(f"malformed: Content-Length {shown(member)}",))
        if len(member) > 19 or int(member) > MAX_LENGTH:
            return Framing(Kind.UNKNOWN, faults=(f"malformed: Content-Length {shown(member)} is over 2^63-1",))
    if len(set(map(int, members))) > 1:
        return Framing(Kind.UNKNOWN, faults=(f"malformed: different Content-Lengths {shown(', '.join(members))}",))
    notes = ("Content-Length is given more than once",) if len(members) > 1 else ()
    return Framing(Kind.LENGTH, int(members[0]), notes)


def _transfer(values: Sequence[str], lengths: Sequence[str], version: str, otherwise: Kind) -> Framing:
    """Transfer-Encoding decides over Content-Length; a message with both is suspicious and says so."""
    joined = ", ".join(values)
    names = [name for name in (part.strip(" \t").lower() for part in joined.split(",")) if name]
    if names == ["identity"]:  # RFC 2616's word for none
        framing = _length(lengths, Framing(otherwise if otherwise is Kind.CLOSE else Kind.LENGTH))
        return framing._replace(notes=(*framing.notes, "Transfer-Encoding is identity"))
    if not names or not _KNOWN_TRANSFER.issuperset(names) or names.count("chunked") > 1:
        return Framing(Kind.UNKNOWN, faults=(f"malformed: Transfer-Encoding {shown(joined)}",))
    codings = tuple(names)
    if any(ord(char) < 0x20 or ord(char) > 0x7E for char in joined):
        return Framing(Kind.UNKNOWN, faults=("malformed: control characters in Transfer-Encoding",))
    notes = []
    if lengths:
        notes.append("suspicious: both Transfer-Encoding and Content-Length; Transfer-Encoding decides")
    if version == "1.0":
        notes.append("suspicious: Transfer-Encoding in an HTTP/1.0 message")
    if len(values) > 1:
        notes.append("Transfer-Encoding is given more than once")
    if codings[-1] != "chunked":
        if otherwise is Kind.UNKNOWN or "chunked" in codings:
            fault = f"malformed: Transfer-Encoding {shown(joined)} does not end with chunked"
            return Framing(Kind.UNKNOWN, 0, tuple(notes), (fault,))
        return Framing(otherwise, 0, tuple(notes), codings=codings)
    return Framing(Kind.CHUNKED, 0, tuple(notes), codings=codings[:-1])
