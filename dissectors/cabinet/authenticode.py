"""The Authenticode signature of a cabinet: where it is, its DER bytes, and the digest it must have signed.

A signed cabinet has a header reserve of 20 bytes: u32 0x00100000, u32 offset and u32 length of the signature, 8 zero
bytes. The PKCS#7 SignedData is appended behind the cabinet and ends the file. The digest covers the file up to the
signature without reserved1 (offset 4) and without what lies between the flags and the end of that reserve (34 to 56).
What the PKCS#7 says is read elsewhere.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from construct import Bytes, Const, Int32ul, Struct

from dissectors.cabinet.limits import MAX_SIGNATURE
from dissectors.cabinet.values import Header
from dissectors.errors import DissectError
from dissectors.source import Source

RESERVE_OFFSET = 40
SIGNATURE_RESERVE = Struct(
    "magic" / Const(0x00100000, Int32ul),
    "offset" / Int32ul,
    "length" / Int32ul,
    "zeros" / Bytes(8),
)
COVERED = ((0, 4), (8, 34))
"""Stretches of the header that the digest covers; a third goes from the end of the reserve to the signature."""
COVERED_FROM = 56
STEP = 1 << 18


@dataclass(frozen=True, slots=True)
class Signature:
    """An appended signature: offset and length in bytes."""

    offset: int
    length: int
    _source: Source = field(repr=False, compare=False)

    @property
    def der(self) -> bytes:
        """The PKCS#7 SignedData."""
        return self._source.read_at(self.offset, self.length)

    def digest(self, algorithm: str) -> str:
        """The digest of what is signed, in hex, by hashlib's name of the algorithm (`sha1`, `sha256`)."""
        return self.digests(algorithm)[algorithm]

    def digests(self, *algorithms: str) -> dict[str, str]:
        """Several at once; reads the cabinet once from start to end."""
        hashes = [hashlib.new(name, usedforsecurity=False) for name in algorithms]
        steps = ((start, min(STEP, self.offset - start)) for start in range(COVERED_FROM, self.offset, STEP))
        for start, size in [*((start, end - start) for start, end in COVERED), *steps]:
            data = self._source.read_at(start, size)
            for each in hashes:
                each.update(data)
        return {name: each.hexdigest() for name, each in zip(algorithms, hashes, strict=True)}

    def to_json(self) -> dict[str, Any]:
        """Plain values for `decode --json`; whether the signature holds is added by who reads PKCS#7."""
        return {"offset": self.offset, "length": self.length, "digests": self.digests("sha1", "sha256")}


def find_signature(source: Source, header: Header) -> tuple[Signature | None, list[str]]:
    """The signature, and what is wrong around it. Bytes behind the cabinet that are no signature are an overlay."""
    after = source.size - header.cabinet_size
    overlay = [f"{after} bytes after the cabinet"] if after > 0 else []
    if len(header.reserve) != SIGNATURE_RESERVE.sizeof() or header.reserve[:4] != b"\0\0\x10\0":
        return None, overlay
    reserve = SIGNATURE_RESERVE.parse(header.reserve)
    if not reserve.length:
        return None, overlay
    if header.folder_reserve or header.data_reserve:
        return None, [*overlay, "signature reserve beside folder or data reserves: not read as a signature"]
    if reserve.length > MAX_SIGNATURE:
        return None, [*overlay, f"signature of {reserve.length} bytes: over the limit of {MAX_SIGNATURE}"]
    if reserve.offset != header.cabinet_size or reserve.offset + reserve.length != source.size:
        wrong = DissectError(
            RESERVE_OFFSET + 4,
            f"a signature from {header.cabinet_size} to the end at {source.size}",
            f"{reserve.offset} to {reserve.offset + reserve.length}",
        )
        return None, [*overlay, str(wrong)]
    return Signature(reserve.offset, reserve.length, source), []
