"""Private keys, told by their shape so that nothing of them is ever shown but what they are.

| form | SEQUENCE of | source |
|---|---|---|
| PKCS #8 | version 0 or 1, algorithm, OCTET STRING | RFC 5958 section 2 |
| encrypted PKCS #8 | algorithm with a password, OCTET STRING | RFC 5958 section 3 |
| PKCS #1 | version 0 or 1, n, e, d, p, q ... | RFC 8017 appendix A.1.2 |
| SEC 1 | version 1, OCTET STRING, [0] curve, [1] public key | RFC 5915 section 3 |
| DSA | version 0, p, q, g, y, x | what OpenSSL writes; no standard has it |
| PKCS #12 | version 3, ContentInfo, MacData | RFC 7292 section 4 |

A key that is cut off or damaged is still one: as soon as there may be anything secret in it, it is told as such.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from dissectors.certificates import oids, tlv, values
from dissectors.certificates.tlv import CONTEXT, Node
from dissectors.errors import DissectError

NOT_SHOWN = "not shown"

_MIN_NUMBER = 8  # octets of the first number of RSA and DSA; whatever is shorter hides nothing
_DSA_NUMBERS = 6
_CURVE_KEY = range(14, 73)  # octets of a key, for curves from 112 to 571 bits
# Identifiers of encryption with a password: PKCS #5 (RFC 8018 appendix A) and PKCS #12 (RFC 7292 appendix C).
_WITH_PASSWORD = re.compile(r"1\.2\.840\.113549\.1\.(5\.(1|3|4|6|10|11|13)|12\.1\.[1-6])")
# RFC 7468 sections 10 and 11, and what OpenSSL writes besides.
_LABELS: dict[str, tuple[str, str, bool | None]] = {
    "PRIVATE KEY": ("PKCS #8", "", False),
    "ENCRYPTED PRIVATE KEY": ("PKCS #8", "", True),
    "RSA PRIVATE KEY": ("PKCS #1", "RSA", None),
    "EC PRIVATE KEY": ("SEC 1", "EC", None),
    "DSA PRIVATE KEY": ("DSA", "DSA", None),
}
_BEGINNING = re.compile(
    rb"\x30(?:[\x00-\x80]|\x81.|\x82..|\x83...|\x84....)\x02\x01[\x00\x01\x03][\x02\x04\x30]", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """That there is one: its form ("PKCS #8") and its algorithm ("RSA", blank where it is not told).

    `encrypted` is None where the form does not tell.
    """

    form: str
    algorithm: str = ""
    encrypted: bool | None = False

    def to_json(self) -> dict[str, Any]:
        """The key as plain JSON values; `octets` says that they are not among them."""
        return {
            "key_format": self.form,
            "algorithm": self.algorithm or None,
            "encrypted": self.encrypted,
            "octets": NOT_SHOWN,
        }


def private_key(node: Node) -> PrivateKey | None:
    """The key that a node is, None where it is none."""
    children = node.children
    if not node.is_(tlv.SEQUENCE) or len(children) < 2:
        return None
    if children[0].is_(tlv.SEQUENCE):
        scheme = _algorithm(children[0])
        protected = children[1].is_(tlv.OCTET_STRING) and _WITH_PASSWORD.fullmatch(scheme)
        return PrivateKey("PKCS #8", encrypted=True) if protected else None
    if not children[0].is_(tlv.INTEGER) or len(children[0].value) != 1:
        return None
    version, second = children[0].value[0], children[1]
    if version == 3:
        held = second.is_(tlv.SEQUENCE) and _algorithm(second) in {oids.DATA, oids.SIGNED_DATA}
        return PrivateKey("PKCS #12", encrypted=None) if held else None
    if version > 1:
        return None
    if second.is_(tlv.SEQUENCE):
        if len(children) < 3 or not children[2].is_(tlv.OCTET_STRING):
            return None
        scheme = _algorithm(second)
        return PrivateKey("PKCS #8", oids.KEYS.get(scheme, scheme))
    if second.is_(tlv.INTEGER):
        return _numbers(node)
    return PrivateKey("SEC 1", "EC") if version == 1 and _is_curve_key(node) else None


def private_key_of_label(label: str) -> PrivateKey:
    """The key that a PEM block holds, by the label alone ("EC PRIVATE KEY")."""
    form, algorithm, encrypted = _LABELS.get(label, (label, "", None))
    return PrivateKey(form, algorithm, encrypted)


def begins_like_key(octets: bytes) -> bool:
    """Whether octets begin as those of keys do that are not encrypted, whatever follows: better not shown."""
    return _BEGINNING.match(octets) is not None


def _numbers(node: Node) -> PrivateKey | None:
    """A version and numbers: RSA has nine, DSA six; with four the secret one may be there already."""
    numbers = [child for child in node.children if child.is_(tlv.INTEGER)]
    if len(numbers) < 4 or len(numbers[1].value) < _MIN_NUMBER:
        return None
    if len(numbers) == _DSA_NUMBERS and not node.truncated:
        return PrivateKey("DSA", "DSA")
    return PrivateKey("PKCS #1", "RSA")


def _is_curve_key(node: Node) -> bool:
    _version, key, *rest = node.children
    if not key.is_(tlv.OCTET_STRING) or len(values.octets_of(key)) not in _CURVE_KEY:
        return False
    # [0] with an INTEGER first is another protocol's, SNMP's for one.
    return all(
        one.is_(1, CONTEXT) or (one.is_(0, CONTEXT) and not (one.children and one.children[0].is_(tlv.INTEGER)))
        for one in rest
    )


def _algorithm(node: Node) -> str:
    """The identifier that a SEQUENCE begins with, blank for none."""
    try:
        return values.oid(node.children[0]) if node.children else ""
    except DissectError:
        return ""
