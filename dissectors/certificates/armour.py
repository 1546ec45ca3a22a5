"""The outer form of certificates and signatures: binary, PEM, bare base64, each also as UTF-16 text.

Labels lie: the web enrolment of a Windows CA is said to write `BEGIN CERTIFICATE` around PKCS #7 (formats.md section
4.3). So a label is only reported, and what is inside is told by its structure.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field

from dissectors.certificates.private_keys import begins_like_key
from dissectors.errors import DissectError, LimitExceeded

MAX_SIZE = 16 << 20  # a CRL of a large CA has some megabytes
MAX_BLOCKS = 2000

_BEGIN, _END, _DASHES = "-----BEGIN ", "-----END ", "-----"
_BASE64_TEXT = re.compile(rb"[A-Za-z0-9+/\s]+=*\s*")
_ASCII_TEXT = re.compile(rb"[\x20-\x7e\s]+")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/=]")


@dataclass(frozen=True, slots=True)
class Block:
    """One binary object out of a file; `label` is that of PEM, `offset` where its text or bytes begin."""

    der: bytes = field(repr=False)
    offset: int = 0
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Armour:
    """The blocks of a file and the form they had: "DER" (any binary), "PEM", "base64", "PKCX", or "UTF-16 ...".

    `keys` are the blocks of PEM that say they are private keys: they are never decoded, and their `der` is empty.
    """

    form: str
    blocks: tuple[Block, ...]
    problems: tuple[str, ...] = ()
    keys: tuple[Block, ...] = ()


def strip(data: bytes) -> Armour:
    """Take the armour off. Raises `DissectError` where text holds no usable block and no key, `LimitExceeded`."""
    if not data:
        raise DissectError(0, "a certificate or a signature", "an empty file")
    if len(data) > MAX_SIZE:
        raise LimitExceeded(0, f"at most {MAX_SIZE} bytes", f"{len(data)}")
    if data.startswith(b"PKCX"):
        # The signature of an app package: PKCS #7 behind four letters.
        return Armour("PKCX", (Block(data[4:], 4),))
    text = _utf16(data)
    prefix = "" if text is None else "UTF-16 "
    octets = (data if text is None else text.encode("ascii", "replace")).removeprefix(b"\xef\xbb\xbf")
    if b"-----BEGIN " in octets:
        return _pem(octets.decode("latin-1"), prefix)
    if octets.lstrip()[:1] == b"M" and _BASE64_TEXT.fullmatch(octets):
        # Every DER SEQUENCE begins with an M in base64.
        return Armour(prefix + "base64", (Block(_unbase64(octets.decode("ascii"), 0)),))
    if text is not None:
        raise DissectError(0, "PEM or base64", "other UTF-16 text")
    return Armour("DER", (Block(data),))


def _utf16(data: bytes) -> str | None:
    """The text if this is UTF-16 of ASCII characters, with or without a byte order mark."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return data.decode("utf-16", "replace")
    head = data[:64]
    for codec, letters, zeros in (("utf-16-le", head[0::2], head[1::2]), ("utf-16-be", head[1::2], head[0::2])):
        if len(letters) >= 4 and not any(zeros) and _ASCII_TEXT.fullmatch(letters):
            return data.decode(codec, "replace")
    return None


def _pem(text: str, prefix: str) -> Armour:
    blocks: list[Block] = []
    keys: list[Block] = []
    problems: list[str] = []
    failure: DissectError | None = None
    start = text.find(_BEGIN)
    while start >= 0:
        if len(blocks) + len(keys) >= MAX_BLOCKS:
            raise LimitExceeded(start, f"at most {MAX_BLOCKS} PEM blocks", "more")
        name_end = text.find(_DASHES, start + len(_BEGIN))
        label = text[start + len(_BEGIN) : name_end]
        if name_end < 0 or len(label) > 64:
            raise DissectError(start, "a PEM label", repr(text[start : start + 40]))
        body = name_end + len(_DASHES)
        end = text.find(_DASHES, body)
        if end < 0 or not text.startswith(_END, end):
            problems.append(f"the PEM block at {start} has no end line")
            end = len(text) if end < 0 else end
        if "PRIVATE KEY" in label:
            keys.append(Block(b"", start, label))
        else:
            try:
                blocks.append(Block(_unbase64(_without_headers(text[body:end]), body), start, label))
            except DissectError as error:
                failure = failure or error
                problems.append(f"PEM block: {error}")
        start = text.find(_BEGIN, end)
    if not blocks and not keys:
        raise failure or DissectError(0, "a certificate or a signature", "; ".join(problems))
    return Armour(prefix + "PEM", tuple(blocks), tuple(problems), tuple(keys))


def _without_headers(body: str) -> str:
    """The body after RFC 1421 headers (`Proc-Type: ...`), which end at an empty line."""
    return "\n".join(line for line in body.splitlines() if ":" not in line)


def _unbase64(text: str, offset: int) -> bytes:
    packed = "".join(text.split()).rstrip("=")
    if (stray := _NOT_BASE64.search(packed)) is not None:
        raise DissectError(offset, "base64", repr(stray[0]))
    if not packed:
        raise DissectError(offset, "base64", "nothing")
    # A single left-over character holds no octet; it is what a cut-off text ends with.
    packed = packed[:-1] if len(packed) % 4 == 1 else packed
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DissectError(offset, "base64", str(error)) from None


def may_be_key(data: bytes) -> bool:
    """Whether this begins as a private key in the clear does, binary or in base64: then it is better not shown."""
    head = data[:256]
    text = _utf16(head)
    octets = (head if text is None else text.encode("ascii", "replace")).removeprefix(b"\xef\xbb\xbf")
    if octets.lstrip()[:1] == b"M":
        try:
            octets = _unbase64(re.split(r"[^A-Za-z0-9+/\s]", octets.decode("latin-1"), maxsplit=1)[0], 0)
        except DissectError:
            return False
    return begins_like_key(octets)


def is_ascii_text(octets: bytes) -> bool:
    """Whether these are printable characters and white space alone."""
    return _ASCII_TEXT.fullmatch(octets) is not None


def looks_like_armour(data: bytes) -> bool:
    """Whether it is worth asking `strip` and what comes after: PEM, base64 of a SEQUENCE, or a SEQUENCE that fits.

    For choosing a dissector; what this refuses may still be ASN.1 of another kind.
    """
    head = data[:4096]
    if head.startswith(b"PKCX"):
        return True
    text = _utf16(head)
    octets = (head if text is None else text.encode("ascii", "replace")).removeprefix(b"\xef\xbb\xbf").lstrip()
    if b"-----BEGIN " in octets:
        return True
    if octets[:1] == b"M" and len(octets) >= 16 and _BASE64_TEXT.fullmatch(octets):
        return octets[:2] in {b"MI", b"MH", b"MG", b"MF", b"ME", b"MD", b"MC", b"MB", b"MA"}
    # A SEQUENCE with a long or an indefinite length, and a node that may begin such a thing.
    if head[:1] != b"\x30" or len(head) < 8:
        return False
    size = head[1] & 0x7F if head[1] & 0x80 else 0
    return size <= 4 and head[2 + size] in {0x30, 0x06, 0x02}
