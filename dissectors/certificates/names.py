"""Distinguished names (RFC 5280 section 4.1.2.4), and the names of other kinds that a subjectAltName holds."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from dissectors.certificates import oids, tlv, values
from dissectors.certificates.tlv import Node
from dissectors.errors import DissectError


@dataclass(frozen=True, slots=True)
class Name:
    """A distinguished name: (type, value) pairs in the order of the certificate, compared by its encoding.

    `text` is that of RFC 4514, most specific part first; pairs that make up one part are joined by `+`.
    """

    raw: bytes = field(repr=False)
    parts: tuple[tuple[str, str], ...] = field(compare=False)
    text: str = field(compare=False, repr=False)

    @classmethod
    def read(cls, node: Node) -> Name:
        """Read a Name. Values of a type that is not text are shown as `#` and the hexadecimal encoding."""
        parts = []
        texts: list[str] = []
        for rdn in values.fields(node, tlv.SEQUENCE, "a distinguished name"):
            together: list[str] = []
            for pair in values.fields(rdn, tlv.SET, "a relative distinguished name"):
                inside = values.fields(pair, tlv.SEQUENCE, "a type and a value")
                kind = values.oid(inside.take(tlv.OID, "an attribute type"))
                value = inside.any("an attribute value")
                try:
                    shown = values.text(value)
                    escaped = _escaped(shown)
                except DissectError:
                    shown = escaped = "#" + value.raw.hex()
                name = oids.NAME_TYPES.get(kind, kind)
                parts.append((name, shown))
                together.append(f"{name}={escaped}")
            texts.append("+".join(reversed(together)))
        return cls(node.raw, tuple(parts), ",".join(reversed(texts)))

    @property
    def common_name(self) -> str:
        """The last CN, which is the most specific one, or an empty string."""
        return next((value for kind, value in reversed(self.parts) if kind == "CN"), "")

    def __str__(self) -> str:
        """The name as RFC 4514 writes it."""
        return self.text


def directory_name(octets: bytes) -> str:
    """A name of a directory, `directory:CN=...`; without the name where it cannot be read."""
    try:
        return f"directory:{Name.read(tlv.parse_one(octets))}"
    except DissectError:
        return "directory:"


def other_name(kind: str, octets: bytes) -> str:
    """A name of another kind: `upn:amy@contoso.com` for Microsoft's (KB 281245), of which only the kind otherwise."""
    if kind == oids.USER_PRINCIPAL_NAME:
        try:
            return f"upn:{values.text(tlv.parse_one(octets))}"
        except DissectError:
            pass
    return f"other:{kind}"


def _escaped(value: str) -> str:
    """A value as RFC 4514 section 2.4 writes it."""
    shown = re.sub(r'[,+"\\<>;]', r"\\\g<0>", value).replace("\0", "\\00")
    if shown[-1:] == " " and len(shown) > 1:
        shown = shown[:-1] + "\\ "
    return "\\" + shown if shown[:1] in ("#", " ") and shown else shown
