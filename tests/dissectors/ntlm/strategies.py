"""Messages as hypothesis draws them, and SPNEGO tokens around them."""

from __future__ import annotations

from hypothesis import strategies as st

from dissectors.certificates import tlv
from dissectors.ntlm import Authenticate, AvPair, Challenge, Flags, Negotiate, OsVersion

NTLM_OID = bytes.fromhex("2b06010401823702020a")
SPNEGO_OID = bytes.fromhex("2b0601050502")
_CONTEXT = 2

FLAGS = st.integers(0, 0xFFFF_FFFF)
OEM = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF), max_size=20)
WIDE = st.text(max_size=20)
BYTES = st.binary(max_size=80)
VERSIONS = st.builds(OsVersion, st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFF), st.integers(0, 255))
AV_PAIRS = st.lists(st.builds(AvPair, st.integers(1, 0xFFFF), BYTES), max_size=8).map(tuple)


@st.composite
def negotiates(draw: st.DrawFn) -> Negotiate:
    flags = Flags(draw(FLAGS)) | Flags.NEGOTIATE_OEM_DOMAIN_SUPPLIED | Flags.NEGOTIATE_OEM_WORKSTATION_SUPPLIED
    version = draw(VERSIONS) if Flags.NEGOTIATE_VERSION in flags else None
    return Negotiate(flags, draw(OEM), draw(OEM), version)


@st.composite
def challenges(draw: st.DrawFn) -> Challenge:
    flags = Flags(draw(FLAGS))
    name = draw(WIDE if Flags.NEGOTIATE_UNICODE in flags else OEM)
    version = draw(VERSIONS) if Flags.NEGOTIATE_VERSION in flags else None
    return Challenge(flags, draw(st.binary(min_size=8, max_size=8)), name, draw(AV_PAIRS), version)


@st.composite
def authenticates(draw: st.DrawFn) -> Authenticate:
    flags = Flags(draw(FLAGS))
    text = WIDE if Flags.NEGOTIATE_UNICODE in flags else OEM
    version = draw(VERSIONS) if Flags.NEGOTIATE_VERSION in flags else None
    mic = draw(st.none() | st.binary(min_size=16, max_size=16))
    return Authenticate(
        flags, draw(text), draw(text), draw(text), draw(BYTES), draw(BYTES), draw(BYTES), version=version, mic=mic
    )


def _wrap(number: int, content: bytes, cls: int = _CONTEXT) -> bytes:
    return tlv.encode(tlv.Tag(cls, number, constructed=True), content)


def _plain(number: int, content: bytes) -> bytes:
    return tlv.encode(tlv.Tag(0, number), content)


def neg_token_init(token: bytes, mechanisms: tuple[bytes, ...] = (NTLM_OID,), *, framed: bool = True) -> bytes:
    """RFC 4178 section 4.2.1."""
    offered = b"".join(_plain(tlv.OID, oid) for oid in mechanisms)
    members = _wrap(0, _wrap(tlv.SEQUENCE, offered, 0)) + _wrap(2, _plain(tlv.OCTET_STRING, token))
    choice = _wrap(0, _wrap(tlv.SEQUENCE, members, 0))
    return _wrap(0, _plain(tlv.OID, SPNEGO_OID) + choice, 1) if framed else choice


def neg_token_resp(token: bytes, state: int = 1) -> bytes:
    """RFC 4178 section 4.2.2."""
    members = (
        _wrap(0, _plain(tlv.ENUMERATED, bytes([state])))
        + _wrap(1, _plain(tlv.OID, NTLM_OID))
        + _wrap(2, _plain(tlv.OCTET_STRING, token))
    )
    return _wrap(1, _wrap(tlv.SEQUENCE, members, 0))
