"""Certificate trust lists ([MS-CAESO] section 4.4.5.3.1): security catalogs (`.cat`) and root lists (`.stl`).

A catalog lists files by digest. A member's tag is the digest itself, as octets in new catalogs and as hexadecimal
UTF-16LE text in old ones; an SpcIndirectData attribute repeats it with its algorithm and says whether it is a plain
hash of the file or the Authenticode hash of a PE image (formats.md section 4.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from dissectors.certificates import oids, tlv, values
from dissectors.certificates.authenticode import SpcIndirectData
from dissectors.certificates.tlv import CONTEXT, Node
from dissectors.certificates.values import Fields
from dissectors.certificates.x509 import json_time
from dissectors.errors import DissectError

_HEX_TAG = re.compile(r"(?:[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})")
_DIGEST_SIZES = {20, 32}


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: its tag, the digests it claims, and its name/value attributes ("File", "OSAttr")."""

    tag: bytes
    digests: tuple[SpcIndirectData, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def tag_text(self) -> str | None:
        """The tag as text where it is UTF-16LE text, as in old catalogs."""
        if len(self.tag) < 4 or len(self.tag) % 2 or self.tag[1::2].strip(b"\0"):
            return None
        shown = self.tag.decode("utf-16-le", "backslashreplace").rstrip("\0")
        return shown if shown.isprintable() else None

    @property
    def tag_digest(self) -> bytes:
        """The digest that the tag is, in either form; empty where the tag is something else, such as a name."""
        if len(self.tag) in _DIGEST_SIZES:
            return self.tag
        shown = self.tag_text
        return bytes.fromhex(shown) if shown and _HEX_TAG.fullmatch(shown) else b""

    @property
    def file_name(self) -> str:
        """The file's name where the catalog gives one, or an empty string."""
        return next((value for name, value in self.attributes.items() if name.lower() == "file"), "")

    def to_json(self) -> dict[str, Any]:
        """The entry as plain JSON values; the tag is text or the hexadecimal digest."""
        return {
            "tag": self.tag_text or self.tag.hex(),
            "file": self.file_name or None,
            "digests": [digest.to_json() for digest in self.digests],
            "attributes": dict(self.attributes),
        }


@dataclass(frozen=True, slots=True)
class Listing:
    """Where a catalog lists a file: the entry, the digest that matched, and what of the entry said so.

    `hash` is "sha1", "sha256", "authenticode-sha1" or "authenticode-sha256"; `by` is "tag" or "digest".
    """

    member: Member
    hash: str
    digest: bytes
    by: str


@dataclass(frozen=True, slots=True)
class Catalog:
    """A trust list. `usage` is "catalog" for a security catalog, "rootListSigner" for Microsoft's root list.

    `list_id` is the list's identifier, or its sequence number, in hexadecimal. `index` leads from a digest to the
    positions in `members` that claim it.
    """

    usage: str
    list_id: str
    this_update: datetime | None
    next_update: datetime | None
    algorithm: str
    members: tuple[Member, ...]
    attributes: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    index: Mapping[bytes, tuple[int, str]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, node: Node, budget: tlv.Budget | None = None) -> Catalog:
        """Read a CertificateTrustList. Raises `DissectError`."""
        inside = values.fields(node, tlv.SEQUENCE, "a certificate trust list")
        first = inside.peek()
        if first is not None and first.is_(tlv.INTEGER):
            inside.any("a version")
        usages = [values.oid(use) for use in inside.take(tlv.SEQUENCE, "the list's usage").children]
        identifier = inside.optional(tlv.OCTET_STRING)
        sequence = inside.optional(tlv.INTEGER)
        list_id = values.octet_string(identifier).hex() if identifier else ""
        if sequence is not None:
            list_id = list_id or values.hex_text(values.integer(sequence)).lower()
        problems: list[str] = []
        this_update = _time(inside, problems)
        following = inside.peek()
        timed = following is not None and (following.is_(tlv.UTC_TIME) or following.is_(tlv.GENERALIZED_TIME))
        next_update = _time(inside, problems) if timed else None
        algorithm = values.fields(inside.take(tlv.SEQUENCE, "the subject algorithm"), tlv.SEQUENCE, "an algorithm")
        kind = values.oid(algorithm.take(tlv.OID, "an algorithm"))
        subjects = inside.optional(tlv.SEQUENCE)
        members = tuple(_members(subjects, problems)) if subjects else ()
        tagged = inside.optional(0, CONTEXT)
        attributes = _list_attributes(tagged, problems, budget) if tagged else {}
        usage = ",".join(oids.LISTS.get(use, use) for use in usages)
        index: dict[bytes, tuple[int, str]] = {}
        for position, member in enumerate(members):
            for claim in member.digests:
                index.setdefault(claim.digest, (position, "digest"))
            if member.tag_digest:
                index.setdefault(member.tag_digest, (position, "tag"))
        return cls(
            *(usage, list_id, this_update, next_update, oids.SUBJECT_ALGORITHMS.get(kind, kind)),
            *(members, attributes, tuple(problems), index),
        )

    @property
    def is_catalog(self) -> bool:
        """Whether this lists files (a `.cat`), not certificates."""
        return self.usage == "catalog"

    def lists(
        self, sha1: bytes = b"", sha256: bytes = b"", *, pe_sha1: bytes = b"", pe_sha256: bytes = b""
    ) -> Listing | None:
        """The entry that claims one of these digests of a file, or None.

        `pe_sha1` and `pe_sha256` are the Authenticode hashes of a PE image (`dissectors.firmware.pe`); a root list is
        asked the same way for the digests of a certificate.
        """
        asked = {"sha1": sha1, "sha256": sha256, "authenticode-sha1": pe_sha1, "authenticode-sha256": pe_sha256}
        for name, digest in asked.items():
            found = self.index.get(digest) if digest else None
            if found is not None:
                return Listing(self.members[found[0]], name, digest, found[1])
        return None

    def to_json(self) -> dict[str, Any]:
        """The list as plain JSON values."""
        return {
            "usage": self.usage,
            "list_id": self.list_id,
            "this_update": json_time(self.this_update),
            "next_update": json_time(self.next_update),
            "algorithm": self.algorithm,
            "attributes": dict(self.attributes),
            "members": [member.to_json() for member in self.members],
        }


def _time(inside: Fields, problems: list[str]) -> datetime | None:
    try:
        return values.time(inside.any("a time"))
    except DissectError as error:
        problems.append(f"list time: {error}")
        return None


def _members(subjects: Node, problems: list[str]) -> Iterator[Member]:
    for child in subjects.children:
        try:
            inside = values.fields(child, tlv.SEQUENCE, "a list entry")
            tag = values.octet_string(inside.take(tlv.OCTET_STRING, "an entry's tag"))
            attributes = inside.optional(tlv.SET)
            digests: list[SpcIndirectData] = []
            named: dict[str, str] = {}
            for attribute in attributes.children if attributes else ():
                _attribute(attribute, digests, named)
        except DissectError as error:
            problems.append(f"list entry: {error}")
        else:
            yield Member(tag, tuple(digests), named)


def _attribute(attribute: Node, digests: list[SpcIndirectData], named: dict[str, str]) -> None:
    inside = values.fields(attribute, tlv.SEQUENCE, "an attribute")
    kind = values.oid(inside.take(tlv.OID, "an attribute's type"))
    for value in inside.take(tlv.SET, "an attribute's values").children:
        if kind == oids.SPC_INDIRECT_DATA:
            digests.append(SpcIndirectData.read(value))
        elif kind == oids.CATALOG_NAME_VALUE:
            name, shown = _name_value(value)
            named[name] = shown


def _list_attributes(tagged: Node, problems: list[str], budget: tlv.Budget | None) -> dict[str, str]:
    """The catalog's own name/value pairs, each an extension whose octets are a name/value node."""
    named: dict[str, str] = {}
    try:
        for extension in Fields(tagged).take(tlv.SEQUENCE, "list extensions").children:
            inside = values.fields(extension, tlv.SEQUENCE, "an extension")
            if values.oid(inside.take(tlv.OID, "an extension's type")) == oids.CATALOG_NAME_VALUE:
                inside.optional(tlv.BOOLEAN)
                value = values.octet_string(inside.take(tlv.OCTET_STRING, "an extension's value"))
                name, shown = _name_value(tlv.parse_one(value, budget))
                named[name] = shown
    except DissectError as error:
        problems.append(f"list extensions: {error}")
    return named


def _name_value(node: Node) -> tuple[str, str]:
    """CatalogNameValue: BMPString name, INTEGER flags, OCTET STRING of UTF-16LE text with its NUL."""
    inside = values.fields(node, tlv.SEQUENCE, "a name and a value")
    name = values.text(inside.take(tlv.BMP_STRING, "a name"))
    inside.take(tlv.INTEGER, "flags")
    value = values.octet_string(inside.take(tlv.OCTET_STRING, "a value"))
    return name, value.decode("utf-16-le", "backslashreplace").rstrip("\0")
