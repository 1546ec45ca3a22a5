"""Certificates, signatures and catalogs as records: what they are, and what of them matters to a phone."""

from __future__ import annotations

import hashlib
from typing import Any, Protocol

from dissectors.certificates import Circumstances, SignedData, dissect, examine, verify
from dissectors.certificates.findings import ERROR
from dissectors.errors import DissectError
from dissectors.firmware.pe import find_signature
from dissectors.source import Source
from tools.decode.settings import Settings


def certificate_record(data: bytes, settings: Settings) -> dict[str, Any]:
    """The record of a file of certificates or signatures. Raises `DissectError`.

    A chain is judged as a phone would judge it; what would make it fail is a problem. A signature that is wrong is one
    too, one that cannot be checked is not.
    """
    document = dissect(data)
    record = document.to_json()
    problems = record["problems"]
    for item in document.items:
        if isinstance(item, SignedData):
            problems += (
                f"signature of {verdict.signer}: {verdict.reason}"
                for verdict in verify(item)
                if verdict.verified is False
            )
    signed = any(isinstance(item, SignedData) and (item.signers or item.catalog) for item in document.items)
    if document.certificates and not signed:
        findings = examine(document.certificates, Circumstances(settings.date, settings.domain))
        record["findings"] = [finding.to_json() for finding in findings]
        problems += (finding.words for finding in findings if finding.severity == ERROR)
    return record


class Embedded(Protocol):
    """An Authenticode signature in the file that it signs."""

    @property
    def offset(self) -> int:
        """Where it begins."""

    @property
    def length(self) -> int:
        """Its bytes."""

    @property
    def der(self) -> bytes:
        """The PKCS #7."""

    def digest(self, algorithm: str) -> str:
        """The digest of what is signed, in hex."""


def program_signature(source: Source) -> tuple[dict[str, Any] | None, list[str]]:
    """The record of a program's Authenticode signature, None where it has none; and what is wrong with it."""
    try:
        signature = find_signature(source)
        return signature_record(signature) if signature is not None else (None, [])
    except DissectError as error:
        return None, [f"signature: {error}"]


def signature_record(signature: Embedded) -> tuple[dict[str, Any], list[str]]:
    """The Authenticode signature of a cabinet or a program, its digest computed anew; and what is wrong with it.

    `verified`: the file has the digest that was signed, and the signer's key made the signature. Whether the signer
    is to be trusted is another question.
    """
    record: dict[str, Any] = {
        "offset": signature.offset,
        "length": signature.length,
        "signer": None,
        "digest_algorithm": None,
        "digest": None,
        "computed": None,
        "verified": False,
    }
    try:
        document = dissect(signature.der)
    except DissectError as error:
        return record, [f"signature: {error}"]
    problems = [f"signature: {problem}" for problem in document.problems]
    signed = next((item for item in document.items if isinstance(item, SignedData)), None)
    if signed is None or signed.indirect_data is None or not signed.signers:
        return record, [*problems, "signature: it signs no digest of a file"]
    declared = signed.indirect_data
    verdict, signer = verify(signed)[0], signed.signers[0]
    times = (signer.timestamp, *(other.signing_time for other in signer.countersigners))
    stamped = next((time for time in times if time is not None), None)
    record |= {
        "signer": verdict.signer,
        "digest_algorithm": declared.digest_algorithm,
        "digest": declared.digest.hex().upper(),
        "program": signer.program or None,
        "timestamp": stamped.strftime("%Y-%m-%dT%H:%M:%SZ") if stamped else None,
        "certificates": [str(certificate.subject) for certificate in signed.certificates],
    }
    if declared.digest_algorithm not in hashlib.algorithms_guaranteed:
        record["verified"] = None
        return record, [*problems, f"signature: digest algorithm {declared.digest_algorithm} is not known here"]
    computed = signature.digest(declared.digest_algorithm)
    record["computed"] = computed.upper()
    matches = bytes.fromhex(computed) == declared.digest
    record["verified"] = verdict.verified if matches else False
    if not matches:
        problems.append(f"signature: the file was changed: {record['digest']} was signed, it has {record['computed']}")
    elif not verdict.verified:
        problems.append(f"signature: {verdict.reason}")
    return record, problems
