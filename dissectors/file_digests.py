"""The digests by which a catalog may know a file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from dissectors.errors import DissectError
from dissectors.source import STEP, Readable, as_source


@dataclass(frozen=True, slots=True)
class FileDigests:
    """The digests of a file by which catalogs may know it; the Authenticode ones are empty for what is no PE image."""

    sha1: bytes = b""
    sha256: bytes = b""
    pe_sha1: bytes = b""
    pe_sha256: bytes = b""

    @classmethod
    def of(cls, data: Readable, sha1: str = "", sha256: str = "") -> FileDigests:
        """Compute them all, but for those (in hex) that are known already."""
        source = as_source(data)
        if not (sha1 and sha256):
            sha1, sha256 = digests(source.read_at(start, STEP) for start in range(0, source.size, STEP))
        if source.read_at(0, 2) != b"MZ":
            return cls.from_hex(sha1, sha256)
        from dissectors.firmware.pe import authenticode_digests  # noqa: PLC0415 - few files are executables

        try:
            hashed = authenticode_digests(source, "sha1", "sha256")
        except DissectError:
            return cls.from_hex(sha1, sha256)
        return cls(bytes.fromhex(sha1), bytes.fromhex(sha256), *hashed)

    @classmethod
    def from_hex(cls, sha1: str, sha256: str) -> FileDigests:
        """The digests of what was hashed elsewhere and is no PE image, such as a cabinet's member."""
        return cls(bytes.fromhex(sha1), bytes.fromhex(sha256))


def digests(chunks: Iterable[bytes]) -> tuple[str, str]:
    """SHA-1 and SHA-256 in hex of what comes in pieces."""
    sha1, sha256 = hashlib.sha1(usedforsecurity=False), hashlib.sha256()
    for chunk in chunks:
        sha1.update(chunk)
        sha256.update(chunk)
    return sha1.hexdigest(), sha256.hexdigest()
