"""PKCS #7 and CMS (RFC 2315, RFC 5652): SignedData with its certificates and signers.

Microsoft's signatures follow PKCS #7: the content of catalogs and Authenticode signatures is the SEQUENCE itself, not
an OCTET STRING around it, and what is hashed is that SEQUENCE's value without its tag and length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from dissectors.certificates import oids, tlv, values
from dissectors.certificates.authenticode import SpcIndirectData, opus_info
from dissectors.certificates.catalog import Catalog
from dissectors.certificates.names import Name
from dissectors.certificates.tlv import CONTEXT, Node
from dissectors.certificates.values import Fields
from dissectors.certificates.x509 import (
    Certificate,
    digest_algorithm,
    json_time,
    read_certificate,
    signature_algorithm,
)
from dissectors.errors import DissectError

MAX_CERTIFICATES = 2000  # Microsoft's whole root programme is a quarter of that
MAX_SIGNERS = 64
MAX_NESTED_SIGNERS = 4  # countersignatures inside countersignatures

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Signer:
    """One SignerInfo.

    `signed_attributes` is the DER of the signed attributes as they are hashed (tagged SET; None: there are none, the
    signature covers the content itself). `program` and `url` are the words of an Authenticode signer. A timestamp is
    a countersignature, or a whole SignedData over TSTInfo whose time is `timestamp`.
    """

    issuer: Name | None
    serial: int | None
    subject_key_id: bytes | None
    digest_algorithm: str
    signature_algorithm: str
    signature: bytes = field(repr=False)
    signed_attributes: bytes | None = field(default=None, repr=False)
    content_type: str = ""
    message_digest: bytes | None = None
    signing_time: datetime | None = None
    program: str = ""
    url: str = ""
    countersigners: tuple[Signer, ...] = ()
    timestamp: datetime | None = None
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The signer as plain JSON values."""
        shown: dict[str, Any] = {
            "issuer": None if self.issuer is None else str(self.issuer),
            "serial": None if self.serial is None else values.hex_text(self.serial),
            "subject_key_id": None if self.subject_key_id is None else self.subject_key_id.hex(),
            "digest_algorithm": self.digest_algorithm,
            "signature_algorithm": self.signature_algorithm,
            "message_digest": None if self.message_digest is None else self.message_digest.hex(),
            "signing_time": json_time(self.signing_time),
            "timestamp": json_time(self.timestamp),
            "countersigners": [signer.to_json() for signer in self.countersigners],
        }
        if self.program or self.url:
            shown |= {"program": self.program, "url": self.url}
        if self.problems:
            shown["problems"] = list(self.problems)
        return shown


@dataclass(frozen=True, slots=True)
class SignedData:
    """A SignedData. `content_type` is an identifier; `content` the octets that the signers hash, None if detached."""

    version: int
    digest_algorithms: tuple[str, ...]
    content_type: str
    content: bytes | None = field(repr=False)
    certificates: tuple[Certificate, ...] = ()
    crls: tuple[bytes, ...] = field(default=(), repr=False)
    signers: tuple[Signer, ...] = ()
    indirect_data: SpcIndirectData | None = None
    catalog: Catalog | None = field(default=None, repr=False)
    problems: tuple[str, ...] = ()

    @property
    def certs_only(self) -> bool:
        """Whether this is only a vehicle for certificates, as `certnew.p7b` is: nobody signed anything."""
        return not self.signers and self.content is None

    def signer_certificate(self, signer: Signer) -> Certificate | None:
        """The certificate of a signer among the ones enclosed."""
        for certificate in self.certificates:
            if signer.issuer is not None:
                if certificate.issuer == signer.issuer and certificate.serial == signer.serial:
                    return certificate
            elif signer.subject_key_id and certificate.meaning.subject_key_id == signer.subject_key_id:
                return certificate
        return None

    def to_json(self) -> dict[str, Any]:
        """The content of a "pkcs7" or "ctl" line, without what only the file knows."""
        shown: dict[str, Any] = {
            "content_type": "signedData",
            "version": self.version,
            "digest_algorithms": list(self.digest_algorithms),
            "econtent_type": oids.SIGNED_CONTENT_TYPES.get(self.content_type, self.content_type),
            "econtent_oid": self.content_type,
            "econtent_size": None if self.content is None else len(self.content),
            "certs_only": self.certs_only,
            "certificates": [certificate.to_json() for certificate in self.certificates],
            "crls": len(self.crls),
            "signers": [signer.to_json() for signer in self.signers],
        }
        if self.indirect_data:
            shown["indirect_data"] = self.indirect_data.to_json()
        if self.catalog:
            shown |= self.catalog.to_json()
        return shown


def content_info(node: Node) -> tuple[str, Node | None] | None:
    """Content type and content of a ContentInfo, or None where the shape is another one."""
    if not node.is_(tlv.SEQUENCE) or not node.children or not node.children[0].is_(tlv.OID):
        return None
    try:
        kind = values.oid(node.children[0])
    except DissectError:
        return None
    if kind not in oids.CONTENT_TYPES:
        return None
    content = node.children[1] if len(node.children) > 1 else None
    return kind, content.children[0] if content and content.is_(0, CONTEXT) and content.children else None


def read_signed_data(node: Node, budget: tlv.Budget | None = None) -> SignedData:
    """Read a SignedData. What is wrong inside is left out and named in `problems`; raises where the frame is wrong."""
    inside = values.fields(node, tlv.SEQUENCE, "SignedData")
    version = values.integer(inside.take(tlv.INTEGER, "a version"))
    problems: list[str] = []
    digests = _each(inside.take(tlv.SET, "the digest algorithms").children, digest_algorithm, problems)
    encapsulated = values.fields(inside.take(tlv.SEQUENCE, "the content"), tlv.SEQUENCE, "a type and content")
    content_type = values.oid(encapsulated.take(tlv.OID, "a content type"))
    tagged = encapsulated.optional(0, CONTEXT)
    held = tagged.children[0] if tagged and tagged.children else None
    certificates = inside.optional(0, CONTEXT)
    crls = inside.optional(1, CONTEXT)
    signers = inside.optional(tlv.SET)
    if signers is None:
        problems.append("the set of signers is missing")
    found = _each(_plain_certificates(certificates, problems), lambda child: read_certificate(child, budget), problems)
    signed_by = signers.children if signers else ()
    if len(signed_by) > MAX_SIGNERS:
        problems.append(f"only {MAX_SIGNERS} of {len(signed_by)} signers are read")
        signed_by = signed_by[:MAX_SIGNERS]
    indirect = catalog = None
    if held is not None:
        try:
            if content_type == oids.SPC_INDIRECT_DATA:
                indirect = SpcIndirectData.read(held)
            elif content_type == oids.CTL:
                catalog = Catalog.read(held, budget)
                problems += catalog.problems
        except DissectError as error:
            problems.append(f"content: {error}")
    return SignedData(
        *(version, tuple(digests), content_type, None if held is None else _hashed(held), tuple(found)),
        crls=tuple(child.raw for child in (crls.children if crls else ()) if not child.truncated),
        signers=tuple(_each(signed_by, lambda child: read_signer(child, budget), problems)),
        indirect_data=indirect,
        catalog=catalog,
        problems=tuple(problems),
    )


def read_signer(node: Node, budget: tlv.Budget | None = None, depth: int = 0) -> Signer:
    """Read a SignerInfo. Raises `DissectError`."""
    inside = values.fields(node, tlv.SEQUENCE, "a signer")
    inside.take(tlv.INTEGER, "a version")
    issuer = serial = key_id = None
    if (tagged := inside.optional(0, CONTEXT)) is not None:
        key_id = values.octets_of(tagged)
    else:
        pair = values.fields(inside.take(tlv.SEQUENCE, "issuer and serial number"), tlv.SEQUENCE, "a pair")
        issuer = Name.read(pair.take(tlv.SEQUENCE, "the issuer's name"))
        serial = values.integer(pair.take(tlv.INTEGER, "a serial number"))
    digest = digest_algorithm(inside.take(tlv.SEQUENCE, "a digest algorithm"))
    signed = inside.optional(0, CONTEXT)
    algorithm = inside.take(tlv.SEQUENCE, "a signature algorithm")
    signature = values.octet_string(inside.take(tlv.OCTET_STRING, "a signature"))
    unsigned = inside.optional(1, CONTEXT)
    problems: list[str] = []
    extra: dict[str, Any] = {}
    countersigners: list[Signer] = []
    for attributes in (signed, unsigned):
        for kind, value in _attributes(attributes, problems):
            try:
                if kind == oids.COUNTERSIGNATURE and depth < MAX_NESTED_SIGNERS:
                    countersigners.append(read_signer(value, budget, depth + 1))
                elif kind in _SIGNER_ATTRIBUTES:
                    extra |= _SIGNER_ATTRIBUTES[kind](value, budget)
            except DissectError as error:
                problems.append(f"attribute {kind}: {error}")
    return Signer(
        *(issuer, serial, key_id, digest, _signature_name(algorithm), signature),
        signed_attributes=None if signed is None else _as_set(signed),
        countersigners=tuple(countersigners),
        problems=tuple(problems),
        **extra,
    )


def _each(nodes: Any, step: Callable[[Node], T], problems: list[str]) -> list[T]:
    """`step` of each node; what it raises is a problem, and the node is left out."""
    done = []
    for node in nodes:
        try:
            done.append(step(node))
        except DissectError as error:
            problems.append(str(error))
    return done


def _plain_certificates(tagged: Node | None, problems: list[str]) -> Iterator[Node]:
    """The X.509 certificates of a CertificateSet; the obsolete and attribute kinds are tagged."""
    children = tagged.children if tagged else ()
    if len(children) > MAX_CERTIFICATES:
        problems.append(f"only {MAX_CERTIFICATES} of {len(children)} certificates are read")
    for child in children[:MAX_CERTIFICATES]:
        if child.truncated:
            problems.append(f"a certificate is cut off at offset {child.end}")
        elif not child.is_(tlv.SEQUENCE):
            problems.append(f"a certificate of another kind (tag {child.tag.number}) at offset {child.offset}")
        else:
            yield child


def _attributes(tagged: Node | None, problems: list[str]) -> Iterator[tuple[str, Node]]:
    for attribute in tagged.children if tagged else ():
        try:
            inside = values.fields(attribute, tlv.SEQUENCE, "an attribute")
            kind = values.oid(inside.take(tlv.OID, "an attribute's type"))
            children = inside.take(tlv.SET, "an attribute's values").children
        except DissectError as error:
            problems.append(f"attribute: {error}")
        else:
            yield from ((kind, child) for child in children)


def _signature_name(node: Node) -> str:
    kind = values.oid(Fields(node).take(tlv.OID, "a signature algorithm"))
    return "rsaEncryption" if kind == oids.RSA_ENCRYPTION else signature_algorithm(node)[0]


def _as_set(signed: Node) -> bytes:
    """Signed attributes as they are hashed: in DER, and tagged SET in place of [0] (RFC 5652 section 5.4)."""
    content = b"".join(tlv.definite(child) for child in signed.children)
    return tlv.encode(tlv.Tag(tlv.UNIVERSAL, tlv.SET, constructed=True), content)


def _hashed(node: Node) -> bytes:
    """What a signer hashes of the content: the octets of an OCTET STRING, the value of anything else."""
    return values.octets_of(node) if node.is_(tlv.OCTET_STRING) else node.value


def _opus(node: Node, _: tlv.Budget | None) -> dict[str, Any]:
    program, url = opus_info(node)
    return {"program": program, "url": url}


def _timestamp(node: Node, budget: tlv.Budget | None) -> dict[str, Any]:
    """The time of an RFC 3161 token: TSTInfo is version, policy, imprint, serial number, time."""
    info = content_info(node)
    if info is None or info[0] != oids.SIGNED_DATA or info[1] is None:
        return {}
    inside = Fields(info[1])
    inside.take(tlv.INTEGER, "a version")
    inside.take(tlv.SET, "the digest algorithms")
    encapsulated = Fields(inside.take(tlv.SEQUENCE, "the content"))
    encapsulated.take(tlv.OID, "a content type")
    held = Fields(encapsulated.take(0, "the content", CONTEXT)).take(tlv.OCTET_STRING, "TSTInfo")
    fields = values.fields(tlv.parse_one(values.octet_string(held), budget), tlv.SEQUENCE, "TSTInfo")
    fields.take(tlv.INTEGER, "a version")
    fields.take(tlv.OID, "a policy")
    fields.take(tlv.SEQUENCE, "an imprint")
    fields.take(tlv.INTEGER, "a serial number")
    return {"timestamp": values.time(fields.take(tlv.GENERALIZED_TIME, "a time"))}


_SIGNER_ATTRIBUTES: dict[str, Callable[[Node, tlv.Budget | None], dict[str, Any]]] = {
    oids.CONTENT_TYPE: lambda node, _: {"content_type": values.oid(node)},
    oids.MESSAGE_DIGEST: lambda node, _: {"message_digest": values.octet_string(node)},
    oids.SIGNING_TIME: lambda node, _: {"signing_time": values.time(node)},
    oids.SPC_OPUS_INFO: _opus,
    oids.TIMESTAMPED: _timestamp,
    oids.TIMESTAMPED_CMS: _timestamp,
}
