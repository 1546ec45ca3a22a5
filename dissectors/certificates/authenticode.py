"""SpcIndirectDataContent: the digest of something signed elsewhere (Authenticode, [MS-OSHARED] section 2.3.2.4.3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dissectors.certificates import oids, tlv, values
from dissectors.certificates.tlv import Node
from dissectors.certificates.values import Fields
from dissectors.certificates.x509 import digest_algorithm


@dataclass(frozen=True, slots=True)
class SpcIndirectData:
    """A digest and what it was taken over.

    `subject_type` is "pe" (then the digest is the Authenticode hash of a PE image), "file" (a plain file in a
    catalog, or a cabinet signed inside itself), or an identifier. `digest_algorithm` is a name such as "sha1".
    """

    digest_algorithm: str
    digest: bytes
    subject_type: str = "file"

    @classmethod
    def read(cls, node: Node) -> SpcIndirectData:
        """Read the SEQUENCE of subject and digest. Raises `DissectError`."""
        inside = values.fields(node, tlv.SEQUENCE, "SpcIndirectDataContent")
        subject = values.fields(inside.take(tlv.SEQUENCE, "what was signed"), tlv.SEQUENCE, "a type and a value")
        kind = values.oid(subject.take(tlv.OID, "the type of what was signed"))
        info = values.fields(inside.take(tlv.SEQUENCE, "a digest"), tlv.SEQUENCE, "an algorithm and a digest")
        algorithm = digest_algorithm(info.take(tlv.SEQUENCE, "a digest algorithm"))
        digest = values.octet_string(info.take(tlv.OCTET_STRING, "a digest"))
        return cls(algorithm, digest, oids.SUBJECT_TYPES.get(kind, kind))

    def to_json(self) -> dict[str, Any]:
        """The digest as plain JSON values."""
        return {"algorithm": self.digest_algorithm, "digest": self.digest.hex(), "subject": self.subject_type}


def opus_info(node: Node) -> tuple[str, str]:
    """Program name and URL of an SpcSpOpusInfo, the words a signer adds; empty where absent."""
    inside = values.fields(node, tlv.SEQUENCE, "SpcSpOpusInfo")
    name = inside.optional(0, tlv.CONTEXT)
    more = inside.optional(1, tlv.CONTEXT)
    program = url = ""
    if name is not None and name.children:
        program = _string(name.children[0])
    if more is not None and more.children:
        link = more.children[0]
        if link.is_(0, tlv.CONTEXT):
            url = values.octets_of(link).decode("ascii", "backslashreplace")
        elif link.is_(2, tlv.CONTEXT) and (file := Fields(link).peek()) is not None:
            url = _string(file)
    return program, url


def _string(node: Node) -> str:
    """An SpcString: [0] UTF-16, [1] ASCII."""
    encoding = "utf-16-be" if node.tag.number == 0 else "ascii"
    return values.octets_of(node).decode(encoding, "backslashreplace")
