"""What of a certificate chain matters to a UC phone (protocol.md section 8.1).

`CHECKS` is the whole list. Each check is a small function of the chain and the circumstances that yields findings; it
knows nothing of the others. A date is given, never taken: the same chain is judged as of a capture or as of today.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dissectors.certificates import tlv, values
from dissectors.certificates.chain import Chain, build_chain
from dissectors.certificates.signature import signed_by
from dissectors.certificates.x509 import Certificate, json_time
from dissectors.errors import DissectError

SOON = timedelta(days=30)
MIN_RSA_BITS = 1024  # the least in use when this firmware was made
ADVISED_RSA_BITS = 2048
UNUSUAL_RSA_BITS = 4096

ERROR, WARNING, INFO = "error", "warning", "info"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a chain is judged by.

    `at` is the time of the judgement (aware). `host_names` must be covered by the server's certificate; `domain` adds
    `ucupdates-r2.<domain>` to them. `sha2` tells whether the phone's firmware accepts SHA-2 signatures: that of the
    OCS 2007 R2 era (up to 3.5.6907.x) does not.
    """

    at: datetime
    domain: str = ""
    host_names: tuple[str, ...] = ()
    sha2: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that the server's certificate has to cover."""
        update = (f"ucupdates-r2.{self.domain.strip('.')}",) if self.domain else ()
        return tuple(dict.fromkeys(name.lower().rstrip(".") for name in update + self.host_names))


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: a stable code, a severity ("error": the phone will fail, "warning", "info"), words, evidence."""

    code: str
    severity: str
    words: str
    evidence: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The finding as plain JSON values."""
        return {"code": self.code, "severity": self.severity, "words": self.words, "evidence": dict(self.evidence)}


Check = Callable[[Chain, Circumstances], Iterator[Finding]]


def examine(certificates: Sequence[Certificate], circumstances: Circumstances) -> tuple[Finding, ...]:
    """Run every check over the chain that these certificates make, the server's or the lowest one first."""
    if not certificates:
        return (Finding("chain-empty", ERROR, "There is no certificate."),)
    chain = build_chain(certificates)
    return tuple(finding for check in CHECKS for finding in check(chain, circumstances))


def completeness(chain: Chain, _: Circumstances) -> Iterator[Finding]:
    """Does the chain reach a root, and which one?"""
    top = chain.path[-1]
    if top.self_issued:
        words = f"The chain ends in the root {_title(top)}."
        yield Finding("chain-root", INFO, words, {"root": str(top.subject), "sha1": top.sha1})
        return
    missing: dict[str, Any] = {"certificate": str(top.subject), "missing_issuer": str(top.issuer)}
    if top.meaning.authority_key_id:
        missing["authority_key_id"] = top.meaning.authority_key_id.hex()
    if top.meaning.issuer_urls:
        missing["issuer_urls"] = list(top.meaning.issuer_urls)
    words = f"The chain is incomplete: {_title(top)} is not a root, and its issuer {top.issuer} is not here."
    yield Finding("chain-incomplete", ERROR, words, missing)


def order(chain: Chain, _: Circumstances) -> Iterator[Finding]:
    """Does each certificate come right before its issuer?"""
    positions = [chain.given.index(certificate) for certificate in chain.path]
    if positions != sorted(positions):
        words = "The certificates are not in order (each before its issuer); TLS asks for that, PKCS #7 does not."
        yield Finding("chain-order", WARNING, words, {"order": [str(c.subject) for c in chain.given]})


def extras(chain: Chain, _: Circumstances) -> Iterator[Finding]:
    """Is there anything that does not belong to the chain, or comes twice?"""
    if chain.others:
        words = f"{len(chain.others)} certificates do not belong to the chain of {_title(chain.path[0])}."
        yield Finding("chain-extra", INFO, words, {"subjects": [str(c.subject) for c in chain.others]})
    if len(set(chain.given)) < len(chain.given):
        yield Finding("chain-duplicate", INFO, "A certificate comes more than once.")


def validity(chain: Chain, circumstances: Circumstances) -> Iterator[Finding]:
    """Is every certificate valid at the given time?"""
    at = circumstances.at
    for certificate in chain.path:
        evidence = {
            "certificate": str(certificate.subject),
            "not_before": json_time(certificate.not_before),
            "not_after": json_time(certificate.not_after),
            "at": json_time(at),
        }
        if certificate.not_before is None or certificate.not_after is None:
            yield Finding("validity-unreadable", WARNING, f"{_title(certificate)} has no readable validity.", evidence)
        elif at < certificate.not_before:
            since = json_time(certificate.not_before)
            words = f"{_title(certificate)} is not valid before {since}: a phone whose clock is behind refuses it."
            yield Finding("not-yet-valid", ERROR, words, evidence)
        elif at > certificate.not_after:
            words = f"{_title(certificate)} expired on {json_time(certificate.not_after)}."
            yield Finding("expired", ERROR, words, evidence)
        elif at + SOON > certificate.not_after:
            words = f"{_title(certificate)} expires on {json_time(certificate.not_after)}."
            yield Finding("expires-soon", WARNING, words, evidence)


def signature_hash(chain: Chain, circumstances: Circumstances) -> Iterator[Finding]:
    """Can the firmware check the signatures? That of the R2 era knows no SHA-2 (protocol.md section 8.1)."""
    for certificate in chain.path:
        evidence = {"certificate": str(certificate.subject), "signature_algorithm": certificate.signature_algorithm}
        digest = certificate.signature_hash or ""
        if digest in {"sha224", "sha256", "sha384", "sha512"} and not circumstances.sha2:
            words = f"{_title(certificate)} is signed with SHA-2, which R2-era firmware does not support."
            if not certificate.self_issued:
                yield Finding("sha2-signature", ERROR, words, evidence)
            elif certificate is chain.path[0]:
                # A phone that holds it as trusted need not check its signature, but no source says that it does not.
                yield Finding("sha2-signature", WARNING, words, evidence)
            else:
                words = f"The root {_title(certificate)} is signed with SHA-2: nobody has to check a root's signature."
                yield Finding("sha2-signature", INFO, words, evidence)
        elif digest in {"md2", "md5"}:
            yield Finding(
                "weak-signature", WARNING, f"{_title(certificate)} is signed with {digest.upper()}.", evidence
            )
        elif not certificate.signature_algorithm.endswith(("WithRSAEncryption", "WithRSA")):
            words = (
                f"{_title(certificate)} is signed with {certificate.signature_algorithm or 'an unreadable algorithm'}"
            )
            yield Finding(
                "signature-algorithm", WARNING, f"{words}, which nobody has seen such a phone accept.", evidence
            )


def key_size(chain: Chain, _: Circumstances) -> Iterator[Finding]:
    """Is the key one that old firmware handles, and not weak?"""
    for certificate in chain.path:
        kind, bits = certificate.meaning.key_type, certificate.meaning.key_bits
        evidence = {"certificate": str(certificate.subject), "key_type": kind, "key_bits": bits}
        if kind != "RSA":
            words = (
                f"{_title(certificate)} has a key of type {kind or 'unknown'}; nobody has seen such a phone accept it."
            )
            yield Finding("key-type", WARNING, words, evidence)
        elif bits is None:
            yield Finding("key-size", WARNING, f"{_title(certificate)} has an unreadable RSA key.", evidence)
        elif bits < MIN_RSA_BITS:
            yield Finding("key-size", ERROR, f"{_title(certificate)} has an RSA key of only {bits} bits.", evidence)
        elif bits < ADVISED_RSA_BITS:
            words = f"{_title(certificate)} has an RSA key of {bits} bits; less than {ADVISED_RSA_BITS} is weak today."
            yield Finding("key-size", INFO, words, evidence)
        elif bits > UNUSUAL_RSA_BITS:
            words = f"{_title(certificate)} has an RSA key of {bits} bits, more than old firmware was made for."
            yield Finding("key-size", WARNING, words, evidence)


def names(chain: Chain, circumstances: Circumstances) -> Iterator[Finding]:
    """Does the server's certificate cover the names that the phone will ask for?"""
    server = chain.path[0]
    if server.meaning.is_ca and not server.meaning.dns_names:
        return  # a chain of authorities alone, as certnew.p7b is
    offered = [name.lower() for name in server.meaning.dns_names or (server.subject.common_name,) if name]
    for wanted in circumstances.names:
        evidence = {"certificate": str(server.subject), "wanted": wanted, "names": offered[:50]}
        wildcard = "*." + wanted.partition(".")[2]
        if wanted in offered:
            yield Finding("name-covered", INFO, f"{_title(server)} covers {wanted}.", evidence)
        elif wildcard in offered:
            words = f"{_title(server)} covers {wanted} only by the wildcard {wildcard}, which phones may not honour."
            yield Finding("name-wildcard", WARNING, words, evidence)
        else:
            yield Finding("name-not-covered", ERROR, f"{_title(server)} does not cover {wanted}.", evidence)


def key_purpose(chain: Chain, _: Circumstances) -> Iterator[Finding]:
    """May the server's certificate be used by a server, and may the others issue certificates?"""
    server = chain.path[0]
    uses = server.meaning.extended_key_usage
    if not server.meaning.is_ca and uses is not None and not {"serverAuth", "anyExtendedKeyUsage"} & set(uses):
        evidence = {"certificate": str(server.subject), "extended_key_usage": list(uses)}
        yield Finding("not-for-servers", ERROR, f"{_title(server)} is not meant for servers (no serverAuth).", evidence)
    for issuer in chain.path[1:]:
        usage = issuer.meaning.key_usage
        if issuer.meaning.is_ca is False or (issuer.meaning.is_ca is None and issuer.version >= 3):
            words = f"{_title(issuer)} issued a certificate, but is not a certification authority."
            yield Finding("issuer-not-ca", ERROR, words, {"certificate": str(issuer.subject)})
        elif usage is not None and "keyCertSign" not in usage:
            words = f"{_title(issuer)} issued a certificate, but its key usage does not allow that."
            evidence = {"certificate": str(issuer.subject), "key_usage": list(usage)}
            yield Finding("issuer-not-ca", ERROR, words, evidence)


def links(chain: Chain, _: Circumstances) -> Iterator[Finding]:
    """Is each certificate really signed by the next one's key, and the root by its own?"""
    issuers = (*chain.path[1:], chain.path[-1])
    for certificate, issuer in zip(chain.path, issuers, strict=True):
        if certificate.issuer != issuer.subject:
            continue
        evidence = {"certificate": str(certificate.subject), "issuer": str(issuer.subject)}
        try:
            whole = tlv.parse_one(certificate.der)
            signature = values.bit_string(whole.children[2])
            signed = whole.children[0].raw
            digest, algorithm = certificate.signature_hash or "", certificate.signature_algorithm
            fits = signed_by(issuer, signature, signed, digest, algorithm)
        except DissectError as error:
            words = f"The signature of {_title(certificate)} is not checked: {error.found}."
            yield Finding("signature-not-checked", WARNING, words, evidence)
        else:
            if not fits:
                words = f"{_title(certificate)} is not signed with the key of {_title(issuer)}."
                yield Finding("bad-signature", ERROR, words, evidence)


def locations(chain: Chain, _: Circumstances) -> Iterator[Finding]:
    """Are revocation lists and issuers to be had by plain http? A phone has no LDAP account and no TLS yet."""
    for certificate in chain.path:
        if certificate.self_issued:
            continue
        for code, what, urls in (
            ("crl-location", "revocation list", certificate.meaning.crl_urls),
            ("issuer-location", "issuer's certificate", certificate.meaning.issuer_urls),
        ):
            plain = [url for url in urls if url.lower().startswith("http://")]
            evidence = {"certificate": str(certificate.subject), "urls": list(urls)}
            if plain:
                words = f"The {what} of {_title(certificate)} is at {plain[0]}."
                yield Finding(code, INFO, words, evidence)
            elif urls:
                words = f"The {what} of {_title(certificate)} is not to be had by plain http."
                yield Finding(code, WARNING, words, evidence)


CHECKS: tuple[Check, ...] = (
    completeness,
    order,
    extras,
    validity,
    signature_hash,
    key_size,
    names,
    key_purpose,
    links,
    locations,
)


def _title(certificate: Certificate) -> str:
    return f'"{certificate.subject.common_name or certificate.subject}"'
