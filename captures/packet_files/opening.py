"""Opens a file of packets by what it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from captures.errors import CaptureError
from captures.packet_files import pcap, pcapng, snoop
from captures.packet_files.common import Packet, PacketFile, Window
from captures.packet_files.gunzip import ByteStream, Gunzip
from dissectors.errors import DissectError

GZIP = b"\x1f\x8b"


@contextlib.contextmanager
def open_packets(path: Path, progress: Callable[[int], None] | None = None) -> Iterator[PacketFile]:
    """The packets of a pcap, pcapng or snoop file, plain or in gzip; `progress` is told of bytes read from the file.

    Raises `CaptureError` where the file is none of these or has not even a whole file header.
    """
    with contextlib.ExitStack() as stack:
        try:
            plain = stack.enter_context(path.open("rb"))
            zipped = plain.read(2) == GZIP
            plain.seek(0)
        except OSError as error:
            raise CaptureError(path, error) from error
        source: ByteStream = plain if progress is None else _Watched(plain, progress)
        stream = Gunzip(source) if zipped else source
        file = PacketFile("")
        window = Window(stream, file)
        window.need(0, 24)
        kind, read = _kind(window.data, path)
        file.format = f"{kind} in gzip" if zipped else kind
        file.packets = read(window, file)
        yield file


class _Watched:
    """A stream that tells how much of it is read."""

    def __init__(self, stream: ByteStream, progress: Callable[[int], None]) -> None:
        self._stream = stream
        self._progress = progress

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._progress(len(data))
        return data


def _kind(head: bytes, path: Path) -> tuple[str, Callable[[Window, PacketFile], Iterator[Packet]]]:
    size = pcap.FILE_HEADER
    if head[:4] in pcap.MAGICS:
        found = ("pcap", pcap.packets)
    elif head.startswith(pcapng.MAGIC):
        found = ("pcapng", pcapng.packets)
    elif head.startswith(snoop.MAGIC):
        found = ("snoop", snoop.packets)
        size = snoop.FILE_HEADER
    else:
        raise CaptureError(path, DissectError(0, "a pcap, pcapng or snoop file", repr(head[:8])))
    if len(head) < size:
        raise CaptureError(path, DissectError(len(head), f"a file header of {size} bytes", "the end of the file"))
    return found
