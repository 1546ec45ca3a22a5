"""An X.509 certificate (RFC 5280): what it says, read leniently, and what that means.

The frame (names, times, algorithms) comes from the TLV tree, because certificates of the wild break rules that have
nothing to do with their use. The meaning of key and extensions comes from the `cryptography` library, and where that
refuses the certificate, from the tree as well (module `meaning`); `problems` then says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from dissectors.certificates import oids, tlv, values
from dissectors.certificates.meaning import Extension, Meaning, by_cryptography, by_tlv
from dissectors.certificates.names import Name
from dissectors.certificates.tlv import CONTEXT, Node
from dissectors.certificates.values import Fields
from dissectors.errors import DissectError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate; `der` is its exact encoding and what equality and fingerprints go by.

    Times are aware and in UTC, None where the certificate holds no readable time. `signature_hash` is the hash of the
    signature algorithm ("sha1", "sha256"), None where it has none or names it in its parameters unreadably.
    """

    der: bytes = field(repr=False)
    version: int = field(compare=False)
    serial: int = field(compare=False)
    issuer: Name = field(compare=False)
    subject: Name = field(compare=False)
    not_before: datetime | None = field(compare=False)
    not_after: datetime | None = field(compare=False)
    signature_algorithm: str = field(compare=False)
    signature_hash: str | None = field(compare=False)
    extensions: tuple[Extension, ...] = field(compare=False, repr=False)
    meaning: Meaning = field(compare=False, repr=False)
    problems: tuple[str, ...] = field(default=(), compare=False)

    @property
    def self_issued(self) -> bool:
        """Whether subject and issuer are the same name, as in every root."""
        return self.subject == self.issuer

    @property
    def sha1(self) -> str:
        """The SHA-1 fingerprint (what Windows shows as thumbprint), in hexadecimal."""
        return hashlib.sha1(self.der, usedforsecurity=False).hexdigest()

    @property
    def sha256(self) -> str:
        """The SHA-256 fingerprint, in hexadecimal."""
        return hashlib.sha256(self.der).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """The certificate as plain JSON values."""
        return {
            "subject": str(self.subject),
            "issuer": str(self.issuer),
            "serial": values.hex_text(self.serial),
            "version": self.version,
            "not_before": json_time(self.not_before),
            "not_after": json_time(self.not_after),
            "signature_algorithm": self.signature_algorithm,
            "signature_hash": self.signature_hash,
            "self_issued": self.self_issued,
            **self.meaning.to_json(),
            "extensions": [extension.to_json() for extension in self.extensions],
            "size": len(self.der),
            "sha1": self.sha1,
            "sha256": self.sha256,
            "problems": list(self.problems),
        }


def json_time(moment: datetime | None) -> str | None:
    """A time of a certificate as UTC RFC 3339; they have whole seconds."""
    return None if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def looks_like_certificate(node: Node) -> bool:
    """Whether the shape fits: SEQUENCE of (SEQUENCE with a serial number, algorithm, names...), algorithm, bits."""
    if not node.is_(tlv.SEQUENCE) or not node.children or not node.children[0].is_(tlv.SEQUENCE):
        return False
    tags = [child.tag[:2] for child in node.children[0].children]
    if tags[:1] == [(CONTEXT, 0)]:
        tags = tags[1:]
    wanted = [tlv.INTEGER, tlv.SEQUENCE, tlv.SEQUENCE, tlv.SEQUENCE, tlv.SEQUENCE, tlv.SEQUENCE]
    return tags[: len(wanted)] == [(tlv.UNIVERSAL, number) for number in wanted]


def read_certificate(node: Node, budget: tlv.Budget | None = None) -> Certificate:
    """Read the certificate in a node of any tree; `budget` is that of its file.

    Raises `DissectError` where its frame does not fit.
    """
    outer = values.fields(node, tlv.SEQUENCE, "a certificate")
    tbs = values.fields(outer.take(tlv.SEQUENCE, "a to-be-signed certificate"), tlv.SEQUENCE, "its fields")
    problems: list[str] = []

    def attempt(what: str, step: Callable[[], T], otherwise: T) -> T:
        try:
            return step()
        except DissectError as error:
            problems.append(f"{what}: {error}")
            return otherwise

    version = tbs.optional(0, CONTEXT)
    number = attempt("version", lambda: 0 if version is None else _inside_integer(version), 0)
    serial = values.integer(tbs.take(tlv.INTEGER, "a serial number"))
    tbs.take(tlv.SEQUENCE, "the signature algorithm")
    issuer = Name.read(tbs.take(tlv.SEQUENCE, "the issuer's name"))
    validity = values.fields(tbs.take(tlv.SEQUENCE, "the validity"), tlv.SEQUENCE, "two times")
    not_before = attempt("not before", lambda: values.time(validity.any("a time")), None)
    not_after = attempt("not after", lambda: values.time(validity.any("a time")), None)
    subject = Name.read(tbs.take(tlv.SEQUENCE, "the subject's name"))
    key = tbs.take(tlv.SEQUENCE, "the public key")
    tbs.optional(1, CONTEXT)
    tbs.optional(2, CONTEXT)
    tagged = tbs.optional(3, CONTEXT)
    none: tuple[Extension, ...] = ()
    extensions = attempt("extensions", lambda: none if tagged is None else _extensions(tagged), none)
    algorithm = outer.take(tlv.SEQUENCE, "the signature algorithm")
    unnamed: tuple[str, str | None] = ("", None)
    name, digest = attempt("signature algorithm", lambda: signature_algorithm(algorithm), unnamed)
    outer.take(tlv.BIT_STRING, "the signature")
    if number not in {0, 1, 2}:
        problems.append(f"version {number + 1} does not exist")
    if serial < 0:
        problems.append("the serial number is negative")
    meaning, refusal = by_cryptography(node.raw)
    if refusal:
        problems.append(refusal)
        meaning = by_tlv(key, extensions, problems, budget)
    return Certificate(
        *(node.raw, number + 1, serial, issuer, subject, not_before, not_after),
        *(name, digest, extensions, meaning, tuple(problems)),
    )


def signature_algorithm(node: Node) -> tuple[str, str | None]:
    """Name and hash of a signature algorithm; of RSASSA-PSS the hash is in the parameters (RFC 4055)."""
    inside = values.fields(node, tlv.SEQUENCE, "an algorithm")
    kind = values.oid(inside.take(tlv.OID, "an algorithm"))
    name, digest = oids.SIGNATURES.get(kind, (kind, None))
    if kind == oids.RSASSA_PSS:
        digest = "sha1"
        parameters = inside.optional(tlv.SEQUENCE)
        chosen = parameters and Fields(parameters).optional(0, CONTEXT)
        if chosen and chosen.children:
            digest = digest_algorithm(chosen.children[0])
    return name, digest


def digest_algorithm(node: Node) -> str:
    """Name of a hash algorithm ("sha1"), or its identifier where it has none here."""
    kind = values.oid(values.fields(node, tlv.SEQUENCE, "an algorithm").take(tlv.OID, "an algorithm"))
    return oids.DIGESTS.get(kind, kind)


def _inside_integer(node: Node) -> int:
    return values.integer(Fields(node).take(tlv.INTEGER, "a version"))


def _extensions(node: Node) -> tuple[Extension, ...]:
    sequence = Fields(node).take(tlv.SEQUENCE, "extensions")
    return tuple(Extension.read(child) for child in sequence.children)
