"""LZX and Quantum by libmspack, where the system has it: the interface of our own decoders at many times their speed.

Only libmspack's public interface is used. It reads a cabinet that exists nowhere: one folder with the blocks that
`read_blocks` has already read and checked, and one member for every CHUNK of output, asked for one after the other. So
libmspack never sees an offset, count or name that came from outside, and works within its own fixed buffers; the
compressed data is all that it is trusted with. Nothing here opens a file but the library itself.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

from dissectors.cabinet.blocks import read_blocks
from dissectors.cabinet.limits import BLOCK_OUTPUT
from dissectors.cabinet.structures import DATA_INTEGERS, FILE, FOLDER, HEADER
from dissectors.cabinet.values import Folder
from dissectors.errors import DissectError, Unsupported

LIBRARIES = ("libmspack.so.0", "libmspack.0.dylib")
CHUNK = 8 * BLOCK_OUTPUT
"""Bytes of output asked for at a time."""

CAB_VERSION = 2
"""Of libmspack's decompressor interface: what MSPACK_VER_MSCABD must at least answer."""
VER_MSCABD = 2
PARAM_DECOMPBUF = 2
INPUT_BUFFER = 32768
MAX_NATIVE_BLOCKS = 65535

ERRORS = {3: "the end of the data", 6: "no memory", 8: "a wrong format", 11: "damaged compressed data"}
READ, WRITE = 1, 2  # our file handles; libmspack hands them back and never looks inside

_Pointer = ctypes.c_void_p
_Open = ctypes.CFUNCTYPE(_Pointer, _Pointer, ctypes.c_char_p, ctypes.c_int)
_Close = ctypes.CFUNCTYPE(None, _Pointer)
_Transfer = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_int)
_Seek = ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int64, ctypes.c_int)
_Tell = ctypes.CFUNCTYPE(ctypes.c_int64, _Pointer)
_Message = ctypes.CFUNCTYPE(None, _Pointer, ctypes.c_char_p)
_Alloc = ctypes.CFUNCTYPE(_Pointer, _Pointer, ctypes.c_size_t)
_Free = ctypes.CFUNCTYPE(None, _Pointer)
_Copy = ctypes.CFUNCTYPE(None, _Pointer, _Pointer, ctypes.c_size_t)


class _System(ctypes.Structure):
    """struct mspack_system of mspack.h."""

    _fields_ = (
        ("open", _Open),
        ("close", _Close),
        ("read", _Transfer),
        ("write", _Transfer),
        ("seek", _Seek),
        ("tell", _Tell),
        ("message", _Message),
        ("alloc", _Alloc),
        ("free", _Free),
        ("copy", _Copy),
        ("null_ptr", _Pointer),
    )


class _Decompressor(ctypes.Structure):
    """struct mscab_decompressor of mspack.h."""

    _fields_ = (
        ("open", ctypes.CFUNCTYPE(_Pointer, _Pointer, ctypes.c_char_p)),
        ("close", ctypes.CFUNCTYPE(None, _Pointer, _Pointer)),
        ("search", _Pointer),
        ("append", _Pointer),
        ("prepend", _Pointer),
        ("extract", ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, _Pointer, ctypes.c_char_p)),
        ("set_param", ctypes.CFUNCTYPE(ctypes.c_int, _Pointer, ctypes.c_int, ctypes.c_int)),
        ("last_error", ctypes.CFUNCTYPE(ctypes.c_int, _Pointer)),
    )


class _Cabinet(ctypes.Structure):
    """The beginning of struct mscabd_cabinet of mspack.h."""

    _fields_ = (
        ("next", _Pointer),
        ("filename", ctypes.c_char_p),
        ("base_offset", ctypes.c_int64),
        ("length", ctypes.c_uint),
        ("prevcab", _Pointer),
        ("nextcab", _Pointer),
        ("prevname", _Pointer),
        ("nextname", _Pointer),
        ("previnfo", _Pointer),
        ("nextinfo", _Pointer),
        ("files", _Pointer),
    )


@functools.cache
def _library() -> Any:
    """The library, or None where there is none or it is not the one described here."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
            if library.mspack_version(VER_MSCABD) < CAB_VERSION:
                continue
            if library.mspack_sys_selftest_internal(ctypes.sizeof(ctypes.c_int64)):
                continue
        except (OSError, AttributeError):
            continue
        library.mspack_create_cab_decompressor.restype = ctypes.POINTER(_Decompressor)
        library.mspack_create_cab_decompressor.argtypes = [ctypes.POINTER(_System)]
        library.mspack_destroy_cab_decompressor.restype = None
        library.mspack_destroy_cab_decompressor.argtypes = [ctypes.POINTER(_Decompressor)]
        return library
    return None


def available() -> bool:
    """Whether libmspack is there."""
    return _library() is not None


def decode(folder: Folder) -> Iterator[bytes]:
    """The decoded bytes of an LZX or Quantum folder, in chunks of at most CHUNK.

    Raises the DissectError of a block that cannot be read, otherwise one that says no more than that libmspack refused
    the folder. All that was decoded before has been yielded by then.
    """
    library = _library()
    if library is None:
        raise Unsupported(folder.offset, "libmspack", "none on this system")
    feed = _Feed(folder)
    system = feed.system()
    decompressor = library.mspack_create_cab_decompressor(ctypes.byref(system))
    if not decompressor:
        raise DissectError(folder.offset, "a decoder", "no memory for one")
    try:
        methods = decompressor.contents
        methods.set_param(decompressor, PARAM_DECOMPBUF, INPUT_BUFFER)
        cabinet = methods.open(decompressor, b"")
        if not cabinet:
            feed.refuse(methods.last_error(decompressor))
        try:
            member = ctypes.cast(cabinet, ctypes.POINTER(_Cabinet)).contents.files
            while member:
                error = methods.extract(decompressor, member, b"")
                if feed.output:
                    yield feed.take()
                if error:
                    feed.refuse(error)
                # struct mscabd_file begins with the pointer to the next one.
                member = _Pointer.from_address(member).value
        finally:
            methods.close(decompressor, cabinet)
    finally:
        library.mspack_destroy_cab_decompressor(decompressor)


class _Feed:
    """The cabinet that exists nowhere, and the memory libmspack works in."""

    def __init__(self, folder: Folder) -> None:
        sizes = [block.size for part in folder.parts for block in part.blocks if block.size]
        if not sizes or len(sizes) > MAX_NATIVE_BLOCKS:
            raise DissectError(folder.offset, f"1 to {MAX_NATIVE_BLOCKS} data blocks", str(len(sizes)))
        if any(size != BLOCK_OUTPUT for size in sizes[:-1]):
            raise DissectError(folder.offset, f"{BLOCK_OUTPUT} bytes out of every block but the last", "less")
        self._folder = folder
        self._blocks = read_blocks(folder)
        self._directory = _directory(folder.type, len(sizes), sum(sizes))
        self._length = len(self._directory) + folder.packed_size + 8 * len(sizes)
        self._position = 0
        self._pending = b""
        self._memory: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self._error: BaseException | None = None
        self.output = bytearray()

    def system(self) -> _System:
        """The callbacks. None of them lets an exception out, and the structure keeps them alive."""
        return _System(
            _Open(self._open),
            _Close(lambda _handle: None),
            _Transfer(self._guarded(self._read)),
            _Transfer(self._guarded(self._write)),
            _Seek(self._seek),
            _Tell(lambda _handle: self._position),
            _Message(lambda _handle, _format: None),
            _Alloc(self._alloc),
            _Free(lambda address: self._memory.pop(address, None) and None),
            _Copy(lambda source, target, size: ctypes.memmove(target, source, size) and None),
            None,
        )

    def take(self) -> bytes:
        """What has been written since the last time."""
        chunk = bytes(self.output)
        self.output.clear()
        return chunk

    def refuse(self, error: int) -> None:
        """Raise what stopped libmspack: the trouble of its input, if there was any, or its own error."""
        if self._error is not None:
            raise self._error
        reason = ERRORS.get(error, f"error {error}")
        raise DissectError(self._folder.offset, f"{self._folder.compression} data that libmspack accepts", reason)

    def _guarded(self, transfer: Callable[[int, int], int]) -> Callable[[int, int, int], int]:
        def call(_handle: int, address: int, size: int) -> int:
            try:
                return transfer(address, size)
            except BaseException as error:  # noqa: BLE001  (nothing may pass through C; `refuse` raises it again)
                self._error = error
                return -1

        return call

    def _open(self, _system: int, _name: bytes, mode: int) -> int:
        if mode == 0:
            self._position = 0
            return READ
        return WRITE

    def _read(self, address: int, size: int) -> int:
        # Names are read 256 bytes at a time with a seek back: reading the directory must not take from the data.
        if self._position < len(self._directory):
            piece = self._directory[self._position : self._position + size]
            ctypes.memmove(address, piece, len(piece))
            self._position += len(piece)
            return len(piece)
        done = 0
        while done < size and (self._pending or self._next_block()):
            piece, self._pending = self._pending[: size - done], self._pending[size - done :]
            ctypes.memmove(address + done, piece, len(piece))
            done += len(piece)
        return done

    def _next_block(self) -> bool:
        block = next(self._blocks, None)
        if block is None:
            return False
        self._pending = DATA_INTEGERS.pack(0, len(block.data), block.size) + block.data
        return True

    def _write(self, address: int, size: int) -> int:
        self.output += ctypes.string_at(address, size)
        return size

    def _seek(self, _handle: int, offset: int, mode: int) -> int:
        self._position = offset + (0, self._position, self._length)[mode]
        return 0

    def _alloc(self, _system: int, size: int) -> int:
        buffer = ctypes.create_string_buffer(size or 1)
        address = ctypes.addressof(buffer)
        self._memory[address] = buffer
        return address


def _directory(compression: int, blocks: int, size: int) -> bytes:
    """Header, folder and members of the cabinet that libmspack sees; the blocks follow right after."""
    files = b"".join(
        FILE.build(
            {
                "size": min(CHUNK, size - start),
                "folder_offset": start,
                "folder": 0,
                "date": 0,
                "time": 0,
                "attributes": 0,
                "name": b"x",
            }
        )
        for start in range(0, size, CHUNK)
    )
    header = {
        "cabinet_size": 0xFFFFFFFF,
        "files_offset": 44,
        "folder_count": 1,
        "file_count": -(-size // CHUNK),
        "flags": 0,
        "set_id": 0,
        "set_index": 0,
        "reserve": None,
        "previous": None,
        "next": None,
    }
    folder = {"data_offset": 44 + len(files), "block_count": blocks, "compression": compression, "reserve": b""}
    table: bytes = HEADER.build(header) + FOLDER.build(folder, reserve=0)
    return table + files
