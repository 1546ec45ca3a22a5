"""What key and extensions of a certificate mean: read by `cryptography`, or from the TLV tree where that refuses."""

from __future__ import annotations

import ipaddress
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID

from dissectors.certificates import oids, tlv, values
from dissectors.certificates.names import directory_name, other_name
from dissectors.certificates.tlv import CONTEXT, Node, Tag
from dissectors.certificates.values import Fields
from dissectors.errors import DissectError

# RFC 5280 section 4.2.1.3, bit 0 first.
KEY_USAGES = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension as it stands: its identifier, its name where known, and the octets of its value."""

    oid: str
    critical: bool
    value: bytes = field(repr=False)

    @classmethod
    def read(cls, node: Node) -> Extension:
        """Read an Extension. Raises `DissectError`."""
        inside = values.fields(node, tlv.SEQUENCE, "an extension")
        kind = values.oid(inside.take(tlv.OID, "an extension's type"))
        flag = inside.optional(tlv.BOOLEAN)
        value = values.octet_string(inside.take(tlv.OCTET_STRING, "an extension's value"))
        return cls(kind, flag is not None and values.boolean(flag), value)

    def to_json(self) -> dict[str, Any]:
        """The extension as plain JSON values."""
        return {
            "oid": self.oid,
            "name": oids.EXTENSIONS.get(self.oid, self.oid),
            "critical": self.critical,
            "size": len(self.value),
        }


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a certificate is good for.

    `is_ca` and `path_length` come from the basic constraints (None: there are none). `dns_names` are the DNS names of
    the subjectAltName, `other_names` the others ("ip:192.0.2.1", "upn:amy@contoso.com"). `extended_key_usage` holds
    names ("serverAuth"), or identifiers where there is no name; None: no such extension. Locations are URLs.
    """

    key_type: str = ""
    key_bits: int | None = None
    is_ca: bool | None = None
    path_length: int | None = None
    dns_names: tuple[str, ...] = ()
    other_names: tuple[str, ...] = ()
    key_usage: tuple[str, ...] | None = None
    extended_key_usage: tuple[str, ...] | None = None
    crl_urls: tuple[str, ...] = ()
    issuer_urls: tuple[str, ...] = ()
    ocsp_urls: tuple[str, ...] = ()
    subject_key_id: bytes | None = None
    authority_key_id: bytes | None = None

    def to_json(self) -> dict[str, Any]:
        """The meaning as plain JSON values, to be merged into a certificate's."""
        return {
            "key": {"type": self.key_type, "bits": self.key_bits},
            "ca": self.is_ca,
            "path_length": self.path_length,
            "dns_names": list(self.dns_names),
            "other_names": list(self.other_names),
            "key_usage": None if self.key_usage is None else list(self.key_usage),
            "extended_key_usage": None if self.extended_key_usage is None else list(self.extended_key_usage),
            "crl_urls": list(self.crl_urls),
            "issuer_urls": list(self.issuer_urls),
            "ocsp_urls": list(self.ocsp_urls),
            "subject_key_id": None if self.subject_key_id is None else self.subject_key_id.hex(),
            "authority_key_id": None if self.authority_key_id is None else self.authority_key_id.hex(),
        }


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the library's warnings back: of what it will refuse one day, such as negative serial numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def by_cryptography(der: bytes) -> tuple[Meaning, str | None]:
    """What the library says, or why it refuses the certificate (then the meaning is empty)."""
    try:
        with quietly():
            return _of_certificate(x509.load_der_x509_certificate(der)), None
    except Exception as error:  # noqa: BLE001  it raises whatever lies on its way
        return Meaning(), f"not accepted by cryptography: {reason(error)}"


def reason(error: Exception) -> str:
    """What the library said, in one line."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def crl_refusal(der: bytes) -> str | None:
    """Why the library refuses a revocation list, or None."""
    try:
        with quietly():
            x509.load_der_x509_crl(der)
    except Exception as error:  # noqa: BLE001  as above
        return f"not accepted by cryptography: {reason(error)}"
    return None


def by_tlv(
    key: Node, extensions: Iterable[Extension], problems: list[str], budget: tlv.Budget | None = None
) -> Meaning:
    """The same from a subjectPublicKeyInfo and raw extensions; what cannot be read is added to `problems`."""
    meaning = Meaning()
    try:
        meaning = _key(key, budget)
    except DissectError as error:
        problems.append(f"public key: {error}")
    for extension in extensions:
        reader = _READERS.get(extension.oid)
        if reader is None:
            continue
        try:
            meaning = replace(meaning, **reader(tlv.parse_one(extension.value, budget)))
        except DissectError as error:
            problems.append(f"{oids.EXTENSIONS[extension.oid]}: {error}")
    return meaning


def _of_certificate(certificate: x509.Certificate) -> Meaning:
    try:
        key = certificate.public_key()
    except ValueError:
        # An explicit or unknown EC curve; the rest of the certificate is readable.
        key_type, bits = oids.KEYS.get(certificate.public_key_algorithm_oid.dotted_string, ""), None
    else:
        kinds = {rsa.RSAPublicKey: "RSA", dsa.DSAPublicKey: "DSA", ec.EllipticCurvePublicKey: "EC"}
        kinds |= {ed25519.Ed25519PublicKey: "Ed25519", ed448.Ed448PublicKey: "Ed448"}
        key_type = next((name for kind, name in kinds.items() if isinstance(key, kind)), type(key).__name__)
        bits = getattr(key, "key_size", None)
    found: dict[str, Any] = {"key_type": key_type, "key_bits": bits}
    for extension in certificate.extensions:
        match extension.value:
            case x509.BasicConstraints() as value:
                found |= {"is_ca": value.ca, "path_length": value.path_length}
            case x509.SubjectAlternativeName() as value:
                found |= _names(value)
            case x509.KeyUsage() as value:
                found["key_usage"] = tuple(name for name, use in _key_usages(value) if use)
            case x509.ExtendedKeyUsage() as value:
                found["extended_key_usage"] = tuple(_purpose(use.dotted_string) for use in value)
            case x509.CRLDistributionPoints() as value:
                found["crl_urls"] = tuple(_urls(name for point in value for name in point.full_name or ()))
            case x509.AuthorityInformationAccess() as value:
                issuers = AuthorityInformationAccessOID.CA_ISSUERS
                found["issuer_urls"] = tuple(_urls(d.access_location for d in value if d.access_method == issuers))
                ocsp = AuthorityInformationAccessOID.OCSP
                found["ocsp_urls"] = tuple(_urls(d.access_location for d in value if d.access_method == ocsp))
            case x509.SubjectKeyIdentifier() as value:
                found["subject_key_id"] = value.digest
            case x509.AuthorityKeyIdentifier() as value:
                found["authority_key_id"] = value.key_identifier
    return Meaning(**found)


def _names(value: x509.SubjectAlternativeName) -> dict[str, Any]:
    dns, others = [], []
    for name in value:
        match name:
            case x509.DNSName():
                dns.append(name.value)
            case x509.IPAddress():
                others.append(f"ip:{name.value}")
            case x509.RFC822Name():
                others.append(f"email:{name.value}")
            case x509.UniformResourceIdentifier():
                others.append(f"uri:{name.value}")
            case x509.DirectoryName():
                others.append(directory_name(name.value.public_bytes()))
            case x509.RegisteredID():
                others.append(f"oid:{name.value.dotted_string}")
            case x509.OtherName():
                others.append(other_name(name.type_id.dotted_string, name.value))
    return {"dns_names": tuple(dns), "other_names": tuple(others)}


def _key_usages(value: x509.KeyUsage) -> Iterable[tuple[str, bool]]:
    agreement = value.key_agreement
    flags = (
        *(value.digital_signature, value.content_commitment, value.key_encipherment, value.data_encipherment),
        *(agreement, value.key_cert_sign, value.crl_sign),
        *(agreement and value.encipher_only, agreement and value.decipher_only),
    )
    return zip(KEY_USAGES, flags, strict=True)


def _urls(names: Iterable[x509.GeneralName]) -> Iterable[str]:
    return (name.value for name in names if isinstance(name, x509.UniformResourceIdentifier))


def _purpose(kind: str) -> str:
    return oids.PURPOSES.get(kind, kind)


def _key(node: Node, budget: tlv.Budget | None) -> Meaning:
    inside = values.fields(node, tlv.SEQUENCE, "a public key")
    algorithm = values.fields(inside.take(tlv.SEQUENCE, "its algorithm"), tlv.SEQUENCE, "its algorithm")
    kind = values.oid(algorithm.take(tlv.OID, "its algorithm"))
    name = oids.KEYS.get(kind, kind)
    bits = values.bit_string(inside.take(tlv.BIT_STRING, "the key's bits"))
    if name != "RSA":
        return Meaning(key_type=name)
    modulus = values.fields(tlv.parse_one(bits, budget), tlv.SEQUENCE, "an RSA key").take(tlv.INTEGER, "a modulus")
    return Meaning(key_type=name, key_bits=values.integer(modulus).bit_length())


def _read_basic_constraints(node: Node) -> dict[str, Any]:
    inside = values.fields(node, tlv.SEQUENCE, "basic constraints")
    flag = inside.optional(tlv.BOOLEAN)
    length = inside.optional(tlv.INTEGER)
    return {
        "is_ca": flag is not None and values.boolean(flag),
        "path_length": None if length is None else values.integer(length),
    }


def _read_alternative_names(node: Node) -> dict[str, Any]:
    dns, others = [], []
    for name in values.fields(node, tlv.SEQUENCE, "names"):
        octets = values.octets_of(name) if name.tag.cls == CONTEXT else b""
        match name.tag.number:
            case 0 if name.tag.cls == CONTEXT:
                inside = Fields(name)
                kind = values.oid(inside.take(tlv.OID, "the kind of a name"))
                held = Fields(inside.take(0, "a name", CONTEXT)).peek()
                others.append(other_name(kind, held.raw if held else b""))
            case 4 if name.tag.cls == CONTEXT:
                held = Fields(name).peek()
                others.append(directory_name(held.raw if held else b""))
            case 8 if name.tag.cls == CONTEXT:
                others.append(f"oid:{values.oid(replace(name, tag=Tag(tlv.UNIVERSAL, tlv.OID)))}")
            case 1:
                others.append("email:" + octets.decode("ascii", "backslashreplace"))
            case 2:
                dns.append(octets.decode("ascii", "backslashreplace"))
            case 6:
                others.append("uri:" + octets.decode("ascii", "backslashreplace"))
            case 7 if len(octets) in {4, 16}:
                others.append(f"ip:{ipaddress.ip_address(octets)}")
    return {"dns_names": tuple(dns), "other_names": tuple(others)}


def _read_key_usage(node: Node) -> dict[str, Any]:
    octets = values.bit_string(node)
    bits = [octet >> shift & 1 for octet in octets[:2] for shift in range(7, -1, -1)]
    return {"key_usage": tuple(name for name, bit in zip(KEY_USAGES, bits, strict=False) if bit)}


def _read_extended_key_usage(node: Node) -> dict[str, Any]:
    uses = values.fields(node, tlv.SEQUENCE, "key purposes")
    return {"extended_key_usage": tuple(_purpose(values.oid(use)) for use in uses)}


def _read_crl_points(node: Node) -> dict[str, Any]:
    urls: list[str] = []
    for point in values.fields(node, tlv.SEQUENCE, "distribution points"):
        name = Fields(point).optional(0, CONTEXT)
        full = name and Fields(name).optional(0, CONTEXT)
        urls += [_url(child) for child in (full.children if full else ()) if child.is_(6, CONTEXT)]
    return {"crl_urls": tuple(urls)}


def _read_authority_access(node: Node) -> dict[str, Any]:
    found: dict[str, list[str]] = {"issuer_urls": [], "ocsp_urls": []}
    methods = {"1.3.6.1.5.5.7.48.2": "issuer_urls", "1.3.6.1.5.5.7.48.1": "ocsp_urls"}
    for description in values.fields(node, tlv.SEQUENCE, "access descriptions"):
        inside = values.fields(description, tlv.SEQUENCE, "an access description")
        method = methods.get(values.oid(inside.take(tlv.OID, "an access method")))
        location = inside.optional(6, CONTEXT)
        if method and location:
            found[method].append(_url(location))
    return {name: tuple(urls) for name, urls in found.items()}


def _read_subject_key_id(node: Node) -> dict[str, Any]:
    return {"subject_key_id": values.octet_string(node)}


def _read_authority_key_id(node: Node) -> dict[str, Any]:
    key_id = values.fields(node, tlv.SEQUENCE, "an authority key identifier").optional(0, CONTEXT)
    return {"authority_key_id": None if key_id is None else values.octets_of(key_id)}


def _url(node: Node) -> str:
    return values.octets_of(node).decode("ascii", "backslashreplace")


_READERS: dict[str, Callable[[Node], dict[str, Any]]] = {
    oids.BASIC_CONSTRAINTS: _read_basic_constraints,
    oids.SUBJECT_ALT_NAME: _read_alternative_names,
    oids.KEY_USAGE: _read_key_usage,
    oids.EXTENDED_KEY_USAGE: _read_extended_key_usage,
    oids.CRL_DISTRIBUTION_POINTS: _read_crl_points,
    oids.AUTHORITY_INFO_ACCESS: _read_authority_access,
    oids.SUBJECT_KEY_ID: _read_subject_key_id,
    oids.AUTHORITY_KEY_ID: _read_authority_key_id,
}
