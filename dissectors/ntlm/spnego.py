"""SPNEGO tokens (RFC 4178 section 4.2, [MS-SPNG]): what `Negotiate` wraps around NTLM or Kerberos.

Only what is needed to find the mechanisms and the token inside is read; the checksum over the list is left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from dissectors.certificates import tlv, values
from dissectors.certificates.tlv import Node
from dissectors.errors import DissectError, LimitExceeded

MAX_TOKEN = 1 << 17  # bytes; a Kerberos ticket of a user in a thousand groups has 64 KiB
MAX_MECHANISMS = 32

_SPNEGO = "1.3.6.1.5.5.2"
_MECHANISMS = {
    "1.3.6.1.4.1.311.2.2.10": "NTLM",
    "1.3.6.1.4.1.311.2.2.30": "NegoEx",
    "1.2.840.113554.1.2.2": "Kerberos",
    "1.2.840.113554.1.2.2.3": "Kerberos user-to-user",
    "1.2.840.48018.1.2.2": "Kerberos (Microsoft)",
}
_STATES = ("accept-completed", "accept-incomplete", "reject", "request-mic")
_INIT, _RESPONSE = 0, 1  # context tags of the two choices of NegotiationToken


@dataclass(frozen=True, slots=True)
class SpnegoToken:
    """NegTokenInit (`mechanisms` offered, best first) or NegTokenResp (`state`, at most one mechanism).

    `kind` is "init", "response", or "mechanism" where a mechanism's own token came without SPNEGO. `token` is what the
    mechanism itself sent.
    """

    kind: str
    mechanisms: tuple[str, ...] = ()
    state: str | None = None
    token: bytes = field(default=b"", repr=False)


def parse(data: bytes) -> SpnegoToken:
    """Read an InitialContextToken, or a NegTokenInit or NegTokenResp without that frame. Raises `DissectError`."""
    if len(data) > MAX_TOKEN:
        raise LimitExceeded(0, f"a token of at most {MAX_TOKEN} bytes", f"{len(data)} bytes")
    forest = tlv.read(data)
    if not forest.roots:
        raise forest.error or DissectError(0, "a SPNEGO token", "nothing")
    root = forest.roots[0]
    if root.is_(0, tlv.APPLICATION) and (mechanism := _framed(root)) != _SPNEGO:
        return SpnegoToken("mechanism", (_name(mechanism),), None, data)
    if forest.error:
        raise forest.error
    if root.is_(0, tlv.APPLICATION) and len(root.children) > 1:
        root = root.children[1]
    if root.is_(_INIT, tlv.CONTEXT):
        return _init(root)
    if root.is_(_RESPONSE, tlv.CONTEXT):
        return _response(root)
    raise DissectError(root.offset, "a SPNEGO token (tag 60, a0 or a1)", f"tag {data[root.offset]:02x}")


def _framed(frame: Node) -> str:
    """The identifier at the start of an InitialContextToken (RFC 2743 section 3.1).

    Read by itself: what follows it is the mechanism's own, and need not be DER.
    """
    size = 2 + frame.value[1] if len(frame.value) > 1 else 0
    try:
        return values.oid(tlv.parse_one(frame.value[:size]))
    except DissectError as error:
        raise type(error)(frame.content, error.expected, error.found) from None


def _init(choice: Node) -> SpnegoToken:
    members = _members(choice)
    mechanisms: tuple[str, ...] = ()
    if 0 in members:
        listed = members[0].children
        if len(listed) > MAX_MECHANISMS:
            raise LimitExceeded(members[0].offset, f"at most {MAX_MECHANISMS} mechanisms", f"{len(listed)}")
        mechanisms = tuple(_name(values.oid(node)) for node in listed)
    return SpnegoToken("init", mechanisms, None, _token(members))


def _response(choice: Node) -> SpnegoToken:
    members = _members(choice)
    state = None
    if 0 in members:
        number = values.integer(members[0])
        state = _STATES[number] if 0 <= number < len(_STATES) else f"{number}"
    mechanisms = (_name(values.oid(members[1])),) if 1 in members else ()
    return SpnegoToken("response", mechanisms, state, _token(members))


def _members(choice: Node) -> dict[int, Node]:
    """The members of the SEQUENCE inside, by context tag; each is wrapped in its tag (EXPLICIT TAGS)."""
    if len(choice.children) != 1 or not choice.children[0].is_(tlv.SEQUENCE):
        raise DissectError(choice.content, "a SEQUENCE", f"{len(choice.children)} nodes")
    members: dict[int, Node] = {}
    for node in choice.children[0].children:
        if node.tag.cls != tlv.CONTEXT or len(node.children) != 1:
            raise DissectError(node.offset, "a member in its context tag", f"tag {node.tag.number}")
        members[node.tag.number] = node.children[0]
    return members


def _token(members: dict[int, Node]) -> bytes:
    return values.octet_string(members[2]) if 2 in members else b""


def _name(oid: str) -> str:
    return _MECHANISMS.get(oid, oid)
