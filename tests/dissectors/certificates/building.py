"""DER and certificates to test with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

from dissectors.certificates import Certificate, tlv
from dissectors.certificates.tlv import Tag, encode
from dissectors.certificates.x509 import read_certificate

SHA1 = hashes.SHA1()
YEAR_2010 = datetime(2010, 1, 1, tzinfo=UTC)
YEAR_2020 = datetime(2020, 1, 1, tzinfo=UTC)


def node(number: int, *contents: bytes, cls: int = tlv.UNIVERSAL, constructed: bool = True) -> bytes:
    return encode(Tag(cls, number, constructed), b"".join(contents))


def sequence(*contents: bytes) -> bytes:
    return node(tlv.SEQUENCE, *contents)


def set_of(*contents: bytes) -> bytes:
    return node(tlv.SET, *contents)


def tagged(number: int, *contents: bytes) -> bytes:
    return node(number, *contents, cls=tlv.CONTEXT)


def leaf(number: int, value: bytes, cls: int = tlv.UNIVERSAL) -> bytes:
    return node(number, value, cls=cls, constructed=False)


def oid(dotted: str) -> bytes:
    return leaf(tlv.OID, _arcs([int(arc) for arc in dotted.split(".")]))


def _arcs(arcs: Sequence[int]) -> bytes:
    out = bytearray()
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        out += bytes(reversed(groups))
    return bytes(out)


def integer(number: int) -> bytes:
    return leaf(tlv.INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def octets(value: bytes) -> bytes:
    return leaf(tlv.OCTET_STRING, value)


def algorithm(dotted: str) -> bytes:
    return sequence(oid(dotted), leaf(tlv.NULL, b""))


def utc_time(text: str) -> bytes:
    return leaf(tlv.UTC_TIME, text.encode())


def signed_data(content_type: str, content: bytes | None, certificates: Sequence[bytes] = ()) -> bytes:
    """An unsigned SignedData around some content (the whole node), in a ContentInfo."""
    held = (tagged(0, content),) if content is not None else ()
    bag = (tagged(0, *certificates),) if certificates else ()
    inner = sequence(integer(1), set_of(), sequence(oid(content_type), *held), *bag, set_of())
    return sequence(oid("1.2.840.113549.1.7.2"), tagged(0, inner))


def key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key for a name; made once, because making keys is slow."""
    return _key(name, bits)


@cache
def _key(_: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def curve_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Plan:
    """What a certificate is to be."""

    name: str
    issuer: str
    ca: bool = False
    hash: hashes.SHA1 | hashes.SHA256 = SHA1
    not_before: datetime = YEAR_2010
    not_after: datetime = YEAR_2020
    dns_names: tuple[str, ...] = ()
    server: bool = True
    bits: int = 2048
    crl: tuple[str, ...] = ("http://pki.contoso.com/ca.crl",)
    aia: tuple[str, ...] = ("http://pki.contoso.com/ca.crt",)
    curve: bool = False


def der(plan: Plan) -> bytes:
    public = curve_key().public_key() if plan.curve else key(plan.name, plan.bits).public_key()
    signer = key(plan.issuer, plan.bits if plan.issuer == plan.name else 2048)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(plan.name))
        .issuer_name(_name(plan.issuer))
        .serial_number(1 + sum(plan.name.encode()))
        .not_valid_before(plan.not_before)
        .not_valid_after(plan.not_after)
        .public_key(public)
        .add_extension(x509.BasicConstraints(ca=plan.ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if plan.ca:
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(usage, critical=True)
    else:
        purpose = ExtendedKeyUsageOID.SERVER_AUTH if plan.server else ExtendedKeyUsageOID.CODE_SIGNING
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    if plan.dns_names:
        names = [x509.DNSName(name) for name in plan.dns_names]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if plan.crl:
        points = [x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None) for url in plan.crl]
        builder = builder.add_extension(x509.CRLDistributionPoints(points), critical=False)
    if plan.aia:
        access = [
            x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier(url))
            for url in plan.aia
        ]
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
    # The library refuses to sign with SHA-1; its certificate is made with SHA-256 and signed again by hand.
    if isinstance(plan.hash, hashes.SHA1):
        return _sha1_signed(builder.sign(signer, hashes.SHA256()), signer)
    return builder.sign(signer, plan.hash).public_bytes(serialization.Encoding.DER)


def certificate(plan: Plan) -> Certificate:
    return read_certificate(tlv.parse_one(der(plan)))


def _sha1_signed(made: x509.Certificate, signer: rsa.RSAPrivateKey) -> bytes:
    sha256, sha1 = algorithm("1.2.840.113549.1.1.11"), algorithm("1.2.840.113549.1.1.5")
    whole = tlv.parse_one(made.public_bytes(serialization.Encoding.DER))
    parts = [sha1 if child.raw == sha256 else child.raw for child in whole.children[0].children]
    tbs = sequence(*parts)
    signature = signer.sign(tbs, padding.PKCS1v15(), hashes.SHA1())
    return sequence(tbs, sha1, leaf(tlv.BIT_STRING, b"\0" + signature))


def _name(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Contoso, Ltd."),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
