"""A file of certificates, signatures or lists: what it is, whatever its form and its name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from dissectors.certificates import armour, oids, tlv, values
from dissectors.certificates.catalog import Catalog
from dissectors.certificates.meaning import Meaning, by_tlv, crl_refusal
from dissectors.certificates.names import Name
from dissectors.certificates.pkcs7 import SignedData, content_info, read_signed_data
from dissectors.certificates.private_keys import (
    NOT_SHOWN,
    PrivateKey,
    begins_like_key,
    private_key,
    private_key_of_label,
)
from dissectors.certificates.signature import verify
from dissectors.certificates.tlv import CONTEXT, Node
from dissectors.certificates.x509 import (
    Certificate,
    json_time,
    looks_like_certificate,
    read_certificate,
    signature_algorithm,
)
from dissectors.errors import DissectError, LimitExceeded

MAX_PROBLEMS = 200
MAX_OUTLINE = 64  # nodes shown of a structure that has no name here
MAX_PADDING = 8  # zero bytes that follow a signature to align it
SHOWN_OCTETS = 32
MIN_DAMAGED = 32  # bytes of a damaged encoding, of which a printable character for each would be text

_TYPES = {
    tlv.BOOLEAN: "BOOLEAN",
    tlv.INTEGER: "INTEGER",
    tlv.BIT_STRING: "BIT STRING",
    tlv.OCTET_STRING: "OCTET STRING",
    tlv.NULL: "NULL",
    tlv.OID: "OBJECT IDENTIFIER",
    tlv.ENUMERATED: "ENUMERATED",
    tlv.UTF8_STRING: "UTF8String",
    tlv.SEQUENCE: "SEQUENCE",
    tlv.SET: "SET",
    tlv.PRINTABLE_STRING: "PrintableString",
    tlv.T61_STRING: "T61String",
    tlv.IA5_STRING: "IA5String",
    tlv.UTC_TIME: "UTCTime",
    tlv.GENERALIZED_TIME: "GeneralizedTime",
    tlv.VISIBLE_STRING: "VisibleString",
    tlv.BMP_STRING: "BMPString",
}
_CLASSES = ("UNIVERSAL ", "APPLICATION ", "", "PRIVATE ")  # as ASN.1 writes tags


@dataclass(frozen=True, slots=True)
class OtherContent:
    """A ContentInfo of another type than SignedData ("envelopedData"): known by name, not opened."""

    content_type: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """The content as plain JSON values."""
        return {"content_type": oids.CONTENT_TYPES[self.content_type], "size": self.size}


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A CRL (RFC 5280 section 5)."""

    issuer: Name
    this_update: datetime | None
    next_update: datetime | None
    signature_algorithm: str
    revoked: int
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The list as plain JSON values; `revoked` is the number of entries."""
        return {
            "issuer": str(self.issuer),
            "this_update": json_time(self.this_update),
            "next_update": json_time(self.next_update),
            "signature_algorithm": self.signature_algorithm,
            "revoked": self.revoked,
        }


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """A PKCS #10 request (RFC 2986), what a phone sends to have its certificate made."""

    subject: Name
    meaning: Meaning
    signature_algorithm: str
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The request as plain JSON values."""
        return {
            "subject": str(self.subject),
            "key": self.meaning.to_json()["key"],
            "signature_algorithm": self.signature_algorithm,
        }


@dataclass(frozen=True, slots=True)
class Structure:
    """ASN.1 without a known meaning: the TLV view. Where a private key is in it, that is said and no more."""

    roots: tuple[Node, ...]
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The first nodes as plain JSON values, in file order."""
        every = (pair for root in self.roots for pair in _walk(root))
        return {"nodes": [_outline(depth, node) for depth, node in islice(every, MAX_OUTLINE)]}


def _walk(root: Node) -> Iterator[tuple[int, Node]]:
    """`Node.walk`, but nothing that is inside of a private key."""
    hidden = 0
    for depth, node in root.walk():
        if node.offset >= hidden:
            yield depth, node
            if node.children and private_key(node) is not None:
                hidden = node.stop


def _outline(depth: int, node: Node) -> dict[str, Any]:
    named = _TYPES.get(node.tag.number) if node.tag.cls == tlv.UNIVERSAL else None
    shown: dict[str, Any] = {
        "offset": node.offset,
        "depth": depth,
        "tag": named or f"[{_CLASSES[node.tag.cls]}{node.tag.number}]",
        "size": node.end - node.content,
    }
    if key := private_key(node):
        shown["value"] = f"a private key ({key.form}), {NOT_SHOWN}"
    elif begins_like_key(node.source[node.content : node.content + SHOWN_OCTETS]):
        shown["value"] = NOT_SHOWN
    elif not node.children and node.end > node.content:
        shown["value"] = node.source[node.content : min(node.end, node.content + SHOWN_OCTETS)].hex()
    return shown


Item = Certificate | SignedData | OtherContent | RevocationList | CertificateRequest | PrivateKey | Structure

_KINDS: dict[type[Item], str] = {
    Certificate: "certificate",
    SignedData: "pkcs7",
    OtherContent: "pkcs7",
    RevocationList: "crl",
    CertificateRequest: "certificate-request",
    PrivateKey: "private-key",
    Structure: "der",
}


@dataclass(frozen=True, slots=True)
class Document:
    """What a file holds.

    `form` is that of `armour.Armour`; `ber` tells that lengths are indefinite somewhere, which DER forbids; `trailing`
    counts bytes after the last item (zero padding up to eight bytes and white space are not worth a problem).
    """

    form: str
    items: tuple[Item, ...]
    ber: bool = False
    trailing: int = 0
    labels: tuple[str, ...] = ()
    problems: tuple[str, ...] = field(default=())

    @property
    def kind(self) -> str:
        """ "certificate", "certificates", "pkcs7", "ctl", "crl", "certificate-request", "der", "pki" (a mixture).

        "private-key" only where there is nothing else: servers keep their chain beside the key.
        """
        kinds = {_kind(item) for item in self._shown}
        if len(kinds) > 1:
            return "pki"
        (kind,) = kinds
        return kind + "s" if kind == "certificate" and len(self._shown) > 1 else kind

    @property
    def private_keys(self) -> tuple[PrivateKey, ...]:
        """That there are keys, and of which kind; nothing of what they hold."""
        return tuple(item for item in self.items if isinstance(item, PrivateKey))

    @property
    def _shown(self) -> tuple[Item, ...]:
        """What the file is about: keys only where there is nothing else."""
        return tuple(item for item in self.items if not isinstance(item, PrivateKey)) or self.items

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """Every certificate of the file, in its order."""
        found: list[Certificate] = []
        for item in self.items:
            if isinstance(item, Certificate):
                found.append(item)
            elif isinstance(item, SignedData):
                found += item.certificates
        return tuple(found)

    @property
    def catalog(self) -> Catalog | None:
        """The catalog or root list of the file, if it is one."""
        return next((item.catalog for item in self.items if isinstance(item, SignedData) and item.catalog), None)

    def to_json(self) -> dict[str, Any]:
        """The line of `decode --json`, without the file's name.

        One item's fields stand beside `kind` and `form`; of several certificates or items there is a list.
        """
        shown: dict[str, Any] = {"kind": self.kind, "form": self.form, "ber": self.ber}
        if self.labels:
            shown["labels"] = list(self.labels)
        items = self._shown
        if len(items) == 1:
            shown |= _item_json(items[0])
        elif self.kind == "certificates":
            shown["certificates"] = [certificate.to_json() for certificate in self.certificates]
        else:
            shown["items"] = [{"kind": _kind(item), **_item_json(item)} for item in items]
        if len(items) < len(self.items):
            shown["private_keys"] = [key.to_json() for key in self.private_keys]
        return shown | {"trailing": self.trailing, "problems": list(self.problems)}


def dissect(data: bytes) -> Document:
    """Tell what a file of certificates, signatures or lists holds.

    Damage that leaves something readable is named in `problems`. Raises `DissectError` where nothing is.
    """
    bare = armour.strip(data)
    items: list[Item] = []
    problems = list(bare.problems)
    failure: DissectError | None = None
    ber = False
    trailing = 0
    budget = tlv.Budget()
    for block in bare.blocks:
        try:
            found = _block(block, budget)
        except DissectError as error:
            failure = failure or error
            problems.append(f"block at offset {block.offset}: {error}")
            continue
        items += found.items
        problems += found.problems
        ber = ber or found.ber
        trailing += found.trailing
    items += (private_key_of_label(block.label or "") for block in bare.keys)
    if not items:
        raise failure or DissectError(0, "a certificate or a signature", "neither")
    for item in items:
        problems += item.problems if not isinstance(item, OtherContent | PrivateKey) else ()
        for certificate in item.certificates if isinstance(item, SignedData) else ():
            problems += (f"certificate {certificate.subject}: {problem}" for problem in certificate.problems)
    if len(problems) > MAX_PROBLEMS:
        problems[MAX_PROBLEMS:] = [f"and {len(problems) - MAX_PROBLEMS} more problems"]
    labels = tuple(dict.fromkeys(block.label for block in (*bare.blocks, *bare.keys) if block.label))
    return Document(bare.form, tuple(items), ber, trailing, labels, tuple(problems))


def _block(block: armour.Block, budget: tlv.Budget) -> Document:
    """The items in one block, which follow one another."""
    forest = tlv.read(block.der, budget)
    items: list[Item] = []
    problems: list[str] = []
    for root in forest.roots:
        try:
            item = _item(root, budget)
        except DissectError as error:
            problems.append(str(error))
            break
        if item is None:
            break
        items.append(item)
    told = forest.roots[: len(items)]
    end = told[-1].stop if told else 0
    if not items:
        if forest.error and (isinstance(forest.error, LimitExceeded) or not _mostly_readable(forest, block.der)):
            raise forest.error
        if not forest.roots:
            raise DissectError(0, "a certificate or a signature", "nothing")
        items.append(Structure(forest.roots))
        told, end = forest.roots, len(block.der)
    rest = block.der[end:]
    if rest.strip() and (rest.strip(b"\0") or len(rest) >= MAX_PADDING):
        problems.append(f"{len(rest)} bytes follow at offset {end}")
    if forest.error and (forest.error.offset < end or any(root.truncated for root in told)):
        problems.append(f"cut off or damaged: {forest.error}")
    for root, item in zip(told, items, strict=False):
        # PKCS #7 and CMS may be BER (RFC 5652 section 2); what an authority signs by itself may not.
        if forest.first_indefinite is not None and isinstance(item, Certificate | RevocationList | CertificateRequest):
            found = (node.offset for _, node in root.walk() if node.indefinite)
            problems += (f"BER, not DER: indefinite length at offset {offset}" for offset in islice(found, 1))
    if block.label == "CERTIFICATE" and not isinstance(items[0], Certificate):
        problems.append(f"labelled CERTIFICATE, but holds {_kind(items[0])}")
    return Document("", tuple(items), forest.first_indefinite is not None, len(rest), (), tuple(problems))


def _mostly_readable(forest: tlv.Forest, der: bytes) -> bool:
    """Whether a damaged encoding is worth its TLV view: not what only happens to begin like one."""
    return forest.reached * 2 >= len(der) and len(der) > MIN_DAMAGED and not armour.is_ascii_text(der[:MIN_DAMAGED])


def _item(root: Node, budget: tlv.Budget) -> Item | None:
    """The item in one node, None where its shape is not known. Raises `DissectError` where a known one is not kept."""
    info = content_info(root)
    if info is not None:
        kind, content = info
        if kind != oids.SIGNED_DATA:
            return OtherContent(kind, root.stop - root.offset)
        if content is None:
            raise DissectError(root.stop, "SignedData", "nothing")
        return read_signed_data(content, budget)
    if (key := private_key(root)) is not None:
        return key
    if root.truncated:
        return None
    if looks_like_certificate(root):
        return read_certificate(root, budget)
    return _revocation_list(root) or _request(root, budget)


def _revocation_list(root: Node) -> RevocationList | None:
    if not _signed_triple(root):
        return None
    try:
        inside = values.Fields(root.children[0])
        inside.optional(tlv.INTEGER)
        inside.take(tlv.SEQUENCE, "a signature algorithm")
        issuer = Name.read(inside.take(tlv.SEQUENCE, "the issuer's name"))
    except DissectError:
        return None
    problems = []
    if (refusal := crl_refusal(root.raw)) is not None:
        problems.append(refusal)
    times: list[datetime | None] = []
    while (node := inside.peek()) is not None and (node.is_(tlv.UTC_TIME) or node.is_(tlv.GENERALIZED_TIME)):
        inside.any("a time")
        try:
            times.append(values.time(node))
        except DissectError as error:
            problems.append(f"time: {error}")
            times.append(None)
    if not times and not problems:
        return None
    revoked = inside.optional(tlv.SEQUENCE)
    this_update, next_update = (*times, None, None)[:2]
    count = len(revoked.children) if revoked else 0
    return RevocationList(issuer, this_update, next_update, _algorithm(root), count, tuple(problems))


def _request(root: Node, budget: tlv.Budget) -> CertificateRequest | None:
    if not _signed_triple(root):
        return None
    problems: list[str] = []
    try:
        inside = values.Fields(root.children[0])
        inside.take(tlv.INTEGER, "a version")
        subject = Name.read(inside.take(tlv.SEQUENCE, "the subject's name"))
        key = inside.take(tlv.SEQUENCE, "the public key")
        inside.take(0, "attributes", CONTEXT)
    except DissectError:
        return None
    return CertificateRequest(subject, by_tlv(key, (), problems, budget), _algorithm(root), tuple(problems))


def _signed_triple(root: Node) -> bool:
    """Whether this is a signed thing: content, algorithm, bits."""
    tags = [child.tag.number for child in root.children if child.tag.cls == tlv.UNIVERSAL]
    return root.is_(tlv.SEQUENCE) and tags == [tlv.SEQUENCE, tlv.SEQUENCE, tlv.BIT_STRING]


def _algorithm(root: Node) -> str:
    try:
        return signature_algorithm(root.children[1])[0]
    except DissectError:
        return ""


def _kind(item: Item) -> str:
    return "ctl" if isinstance(item, SignedData) and item.catalog else _KINDS[type(item)]


def _item_json(item: Item) -> dict[str, Any]:
    shown = item.to_json()
    if isinstance(item, SignedData) and item.signers:
        shown["signatures"] = [verdict.to_json() for verdict in verify(item)]
    return shown
