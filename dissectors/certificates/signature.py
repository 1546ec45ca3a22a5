"""Whether a signature fits: the content's digest against the signed attribute, then the signer's key over those.

This says that the content is what the holder of the enclosed certificate signed. It does not say that the certificate
is to be trusted: see `findings` for its chain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from dissectors.certificates.meaning import quietly, reason
from dissectors.certificates.pkcs7 import SignedData, Signer
from dissectors.certificates.x509 import Certificate
from dissectors.errors import Unsupported

_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What could be checked of one signer. `verified` is None where something needed for the answer is missing.

    `digest_matches`: the content has the digest that was signed (None: no content, or nothing signed it).
    """

    signer: str
    digest_matches: bool | None
    verified: bool | None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain JSON values; "not verified" is `verified: null` with a reason."""
        return {
            "signer": self.signer,
            "digest_matches": self.digest_matches,
            "verified": self.verified,
            "reason": self.reason,
        }


def signed_by(issuer: Certificate, signature: bytes, message: bytes, digest: str, algorithm: str) -> bool:
    """Whether a signature over `message` was made with the issuer's key.

    `digest` is the hash ("sha1"; old ones are checked too), `algorithm` the name of the signature algorithm. Raises
    `Unsupported` where the key or the algorithm cannot be handled.
    """
    if digest not in _HASHES:
        raise Unsupported(0, "a known hash algorithm", f"hash algorithm {digest or 'unknown'}")
    try:
        with quietly():
            key = x509.load_der_x509_certificate(issuer.der).public_key()
        if isinstance(key, rsa.RSAPublicKey) and algorithm != "rsassaPss":
            key.verify(signature, message, padding.PKCS1v15(), _HASHES[digest]())
        elif isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(_HASHES[digest]()))
        else:
            raise Unsupported(0, "an RSA or EC signature", f"signature algorithm {algorithm}")
    except InvalidSignature:
        return False
    except Unsupported:
        raise
    except Exception as error:  # noqa: BLE001  the library raises whatever lies on its way
        raise Unsupported(0, "a certificate that cryptography accepts", reason(error)) from None
    return True


def verify(signed: SignedData, content: bytes | None = None) -> tuple[Verdict, ...]:
    """Check every signer; `content` is what a detached signature was made over."""
    held = signed.content if content is None else content
    names = {signer.digest_algorithm for signer in signed.signers} & _HASHES.keys()
    digests = {} if held is None else {name: hashlib.new(name, held, usedforsecurity=False).digest() for name in names}
    return tuple(_verify(signed, signer, held, digests) for signer in signed.signers)


def _verify(signed: SignedData, signer: Signer, content: bytes | None, digests: Mapping[str, bytes]) -> Verdict:
    certificate = signed.signer_certificate(signer)
    name = str(certificate.subject if certificate else signer.issuer or "")
    matches: bool | None = None
    if signer.signed_attributes is not None and signer.digest_algorithm in digests:
        matches = digests[signer.digest_algorithm] == signer.message_digest
    message = signer.signed_attributes if signer.signed_attributes is not None else content
    if matches is False:
        return Verdict(name, matches, verified=False, reason="the content is not what was signed")
    if message is None:
        return Verdict(name, matches, None, "the signed content is not in the file")
    if certificate is None:
        return Verdict(name, matches, None, "the signer's certificate is not in the file")
    try:
        fits = signed_by(certificate, signer.signature, message, signer.digest_algorithm, signer.signature_algorithm)
    except Unsupported as error:
        return Verdict(name, matches, None, f"not checked: {error.found}")
    if not fits:
        return Verdict(name, matches, verified=False, reason="the signature does not fit the signer's key")
    if matches is None and signer.signed_attributes is not None:
        return Verdict(name, matches, None, "the attributes are signed, but the content is not in the file")
    return Verdict(name, matches, verified=True)
