"""Which decoder reads which compression method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from dissectors.cabinet.blocks import PackedBlock, read_blocks
from dissectors.cabinet.mszip import decode_mszip
from dissectors.cabinet.structures import DATA_FIXED
from dissectors.cabinet.values import Compression, Folder
from dissectors.errors import DissectError, Unsupported


def decode_stored(blocks: Iterable[PackedBlock]) -> Iterator[bytes]:
    """The data as it is; the declared size must be its own."""
    for offset, data, size in blocks:
        if len(data) != size:
            raise DissectError(offset + DATA_FIXED, f"{size} stored bytes", str(len(data)))
        yield data


def decode_folder(folder: Folder, *, native: bool = True) -> Iterator[bytes]:
    """The decoded bytes of a folder, in chunks of at most `accelerate.CHUNK` bytes.

    LZX goes through libmspack where that is installed, unless `native` is False; when libmspack refuses the data, our
    own decoder, which is the reference, says where and why. Raises Unsupported for what nothing here can decode.
    """
    match folder.method:
        case Compression.STORED:
            return decode_stored(read_blocks(folder))
        case Compression.MSZIP:
            return decode_mszip(read_blocks(folder))
        case Compression.LZX if folder.window is not None and 15 <= folder.window <= 21:
            return _decode_lzx(folder, folder.window, native)
        case Compression.QUANTUM if folder.window is not None and 10 <= folder.window <= 21:
            from dissectors.cabinet import accelerate  # noqa: PLC0415

            if native and accelerate.available():
                return accelerate.decode(folder)
            raise Unsupported(folder.offset, "stored, MSZIP or LZX data", f"{folder.compression} (needs libmspack)")
    raise Unsupported(folder.offset, "stored, MSZIP or LZX data", folder.compression)


def _decode_lzx(folder: Folder, window: int, native: bool) -> Iterator[bytes]:
    # Tables and library are for those who have such a folder.
    from dissectors.cabinet import accelerate  # noqa: PLC0415
    from dissectors.cabinet.lzx import decode_lzx  # noqa: PLC0415

    if not native or not accelerate.available():
        yield from decode_lzx(read_blocks(folder), window)
        return
    had = 0
    try:
        for chunk in accelerate.decode(folder):
            had += len(chunk)
            yield chunk
        return
    except DissectError:
        pass
    for chunk in decode_lzx(read_blocks(folder), window):
        if had < len(chunk):
            yield chunk[had:]
        had = max(had - len(chunk), 0)
