"""The cabinets that `bench dissect` measures with, made once in a process of their own.

The payload is what this Python has installed (programs, libraries, byte code, text): as near to a firmware image as is
at hand everywhere. Run as `python -m tools.bench.cabinets DIRECTORY MEGABYTES`.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from dissectors.cabinet import Cabinet, Compression, NewFolder, NewMember
from tools.bench.lzx_encoder import Kind, encode_lzx

LZX_FOLDER = 2 * 1024**2
LZX_DISTINCT = 8
"""Folders really compressed; the rest of an LZX cabinet repeats their frames, for the encoder is slow."""
MEGABYTE = 1024**2


def payload(size: int) -> bytes:
    """`size` bytes of installed files, in the order of their names."""
    root = Path(sysconfig.get_path("stdlib"))
    content = bytearray(Path(sys.executable).read_bytes())
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    while len(content) < size:
        for path in files:
            content += path.read_bytes()
            if len(content) >= size:
                break
    return bytes(content[:size])


def lzx_folders(content: bytes) -> list[NewFolder]:
    """Folders of LZX_FOLDER bytes each, with the E8 translation on, verbatim and aligned blocks alternating."""
    pieces = [content[start : start + LZX_FOLDER] for start in range(0, len(content), LZX_FOLDER)]
    kinds = [(Kind.ALIGNED if number % 2 else Kind.VERBATIM, 65536) for number in range(LZX_FOLDER // 65536)]
    made = [
        NewFolder(
            [NewMember(f"part{number}.bin", piece)],
            Compression.LZX,
            21,
            frames=encode_lzx(piece, 21, kinds, len(piece)),
        )
        for number, piece in enumerate(pieces[:LZX_DISTINCT])
    ]
    return [
        NewFolder(
            [NewMember(f"part{number}.bin", made[number % len(made)].members[0].data)],
            Compression.LZX,
            21,
            frames=made[number % len(made)].frames,
        )
        for number in range(len(pieces))
    ]


def write_cabinets(directory: Path, megabytes: int) -> None:
    """stored.cab, mszip.cab, lzx.cab of so many MiB of content each, and tiny.cab to know what starting costs."""
    content = payload(megabytes * MEGABYTE)
    content = content[: len(content) // LZX_FOLDER * LZX_FOLDER] or content
    folders = {
        "tiny": [NewFolder.of({"tiny.txt": b"tiny"})],
        "stored": [NewFolder.of({"image.bin": content}, Compression.STORED)],
        "mszip": [NewFolder.of({"image.bin": content}, Compression.MSZIP)],
        "lzx": lzx_folders(content),
    }
    for name, each in folders.items():
        (directory / f"{name}.cab").write_bytes(Cabinet.build(each))


if __name__ == "__main__":
    write_cabinets(Path(sys.argv[1]), int(sys.argv[2]))
