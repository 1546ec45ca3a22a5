"""Catalog proof: which catalog lists which file, and by which of its digests.

A catalog says of a plain file its SHA-1 or SHA-256, and of a PE image its Authenticode hash, which leaves out the parts
that signing changes (formats.md section 4.2). Being listed proves something only as far as the catalog's own signature
holds (`signature.verify`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dissectors.certificates.catalog import Catalog, Listing
from dissectors.file_digests import FileDigests


@dataclass(frozen=True, slots=True)
class Proof:
    """Whether one catalog lists one file; `listing` is None where it does not."""

    file: str
    catalog: str
    listing: Listing | None

    @property
    def listed(self) -> bool:
        """Whether the catalog lists the file."""
        return self.listing is not None

    def to_json(self) -> dict[str, Any]:
        """The proof as plain JSON values; `hash` and `digest` name what matched."""
        shown: dict[str, Any] = {"file": self.file, "catalog": self.catalog, "listed": self.listed}
        if self.listing:
            shown |= {"hash": self.listing.hash, "digest": self.listing.digest.hex(), "by": self.listing.by}
            if self.listing.member.file_name:
                shown["listed_as"] = self.listing.member.file_name
        return shown


def prove(file: str, digests: FileDigests, catalogs: Iterable[tuple[str, Catalog]]) -> tuple[Proof, ...]:
    """What each of the named catalogs says of a file; lists of other things than files say nothing."""
    asked = {"pe_sha1": digests.pe_sha1, "pe_sha256": digests.pe_sha256}
    return tuple(
        Proof(file, name, catalog.lists(digests.sha1, digests.sha256, **asked))
        for name, catalog in catalogs
        if catalog.is_catalog
    )


def unmatched(catalog: Catalog, files: Iterable[FileDigests]) -> int:
    """How many entries of a catalog belong to none of these files: what a package should also hold, and does not."""
    held = {digest for file in files for digest in (file.sha1, file.sha256, file.pe_sha1, file.pe_sha256)}
    return sum(
        member.tag_digest not in held and not any(claim.digest in held for claim in member.digests)
        for member in catalog.members
    )
