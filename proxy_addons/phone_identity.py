"""The key and certificates phones are shown: read from one PEM file, checked, and made ready for OpenSSL."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL, crypto

MAX_FILE = 1 << 20
SOON = timedelta(days=30)
OLDEST = {"1.0": SSL.TLS1_VERSION, "1.1": SSL.TLS1_1_VERSION, "1.2": SSL.TLS1_2_VERSION}

# What OpenSSL prefers, and then what is left of the ciphers phones offer. Level 0 lets SHA-1 and small keys be.
CIPHERS = b"@SECLEVEL=0:ECDHE+AESGCM:ECDHE+AES:AESGCM:AES128-SHA:AES256-SHA:DES-CBC3-SHA:RC4-SHA:RC4-MD5"
SHA2 = ("sha224", "sha256", "sha384", "sha512")

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\r?\n.*?-----END \1-----", re.DOTALL)


class IdentityError(ValueError):
    """The file cannot be used; one line that names it."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key, its certificate, and those above it, the nearest first."""

    file: Path
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]

    def covers(self, name: str) -> bool:
        """Whether the certificate is for this DNS name."""
        names = self.names()
        lower = name.lower().rstrip(".")
        return lower in names or f"*.{lower.partition('.')[2]}" in names

    def names(self) -> set[str]:
        """The DNS names it is for, in small letters; phones look at the common name too."""
        found = [str(one.value) for one in self.leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        try:
            alternative = self.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            found += alternative.value.get_values_for_type(x509.DNSName)
        except (x509.ExtensionNotFound, ValueError):
            pass  # none, or one that cannot be read
        return {name.lower().rstrip(".") for name in found}

    def concerns(self, now: datetime) -> list[str]:
        """What will not work for phones, or not for long."""
        leaf, found = self.leaf, []
        if now > leaf.not_valid_after_utc:
            found.append(f"its certificate expired on {leaf.not_valid_after_utc:%Y-%m-%d}: phones refuse it")
        elif now + SOON > leaf.not_valid_after_utc:
            found.append(f"its certificate expires on {leaf.not_valid_after_utc:%Y-%m-%d}")
        if now < leaf.not_valid_before_utc:
            found.append(f"its certificate is not valid before {leaf.not_valid_before_utc:%Y-%m-%d}: phones refuse it")
        found += [
            f"{one.subject.rfc4514_string()} is signed with {digest_of(one)}: old phones know no SHA-2"
            for one in (leaf, *self.chain)
            # Nobody has to check the signature of a root, which phones hold; what a server shows as its own is no root.
            if (one is leaf or one.subject != one.issuer) and digest_of(one) in SHA2
        ]
        above = leaf
        for one in self.chain:
            if above.issuer != one.subject:
                found.append(f"{above.subject.rfc4514_string()} is not issued by the certificate after it")
                break
            above = one
        if not isinstance(self.key, rsa.RSAPrivateKey):
            found.append("its key is not RSA: Windows CE knows no other")
        return found

    def summary(self) -> str:
        """What it is, in a line."""
        kind = f"RSA {self.key.key_size}" if isinstance(self.key, rsa.RSAPrivateKey) else f"EC {self.key.key_size}"
        until = f"{self.leaf.not_valid_after_utc:%Y-%m-%d}"
        return f"{self.leaf.subject.rfc4514_string()}, {kind}, signed with {digest_of(self.leaf)}, until {until}"

    def context(self, oldest: str) -> SSL.Context:
        """What OpenSSL needs to serve it. Raises `IdentityError` where it does not take it."""
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        try:
            context.set_min_proto_version(OLDEST[oldest])
            context.set_cipher_list(CIPHERS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # newer ones take cryptography's values as they are
                context.use_certificate(crypto.X509.from_cryptography(self.leaf))
                context.use_privatekey(crypto.PKey.from_cryptography_key(self.key))
                for one in self.chain:
                    context.add_extra_chain_cert(crypto.X509.from_cryptography(one))
            context.check_privatekey()
        except SSL.Error as error:
            raise IdentityError(f"{self.file}: OpenSSL does not take it: {error}") from error
        return context


def load_identity(file: Path) -> Identity:
    """Read a file that holds a key, its certificate and those above it, in any order. Raises `IdentityError`."""
    try:
        with file.expanduser().open("rb") as opened:
            data = opened.read(MAX_FILE)
    except OSError as error:
        raise IdentityError(f"{file}: {error.strerror or error}") from error
    keys, certificates = [], []
    for block in _BLOCK.finditer(data):
        try:
            if block[1].endswith(b"PRIVATE KEY"):
                keys.append(load_pem_private_key(block[0], None))
            elif block[1] == b"CERTIFICATE":
                certificates.append(x509.load_pem_x509_certificate(block[0]))
        except TypeError as error:
            raise IdentityError(f"{file}: offset {block.start()}: expected a key without passphrase") from error
        except (ValueError, UnsupportedAlgorithm) as error:
            what = block[1].decode().lower()
            raise IdentityError(f"{file}: offset {block.start()}: expected a {what}, found what is none") from error
    if len(keys) != 1:
        found = f"{len(keys)} of them" if keys else "none"
        raise IdentityError(f"{file}: expected one private key (PEM), found {found}")
    key = keys[0]
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{file}: expected an RSA key, found another kind")
    if not certificates:
        raise IdentityError(f"{file}: expected the certificate of the key (PEM), found none")
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    ours = key.public_key().public_bytes(*form)
    matching = [one for one in certificates if one.public_key().public_bytes(*form) == ours]
    if not matching:
        raise IdentityError(f"{file}: expected a certificate of the private key in it, found those of other keys")
    leaf = matching[0]
    rest = [one for one in certificates if one != leaf]
    return Identity(file, key, leaf, tuple(rest))


def digest_of(certificate: x509.Certificate) -> str:
    """The digest a certificate is signed with; blank where it is an unknown one."""
    try:
        algorithm = certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return ""
    return algorithm.name if algorithm is not None else ""


def utc_now() -> datetime:
    """The time certificates are held against."""
    return datetime.now(UTC)
