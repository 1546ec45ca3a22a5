"""A packet capture that grows beside a recording: each exchange is added once it is committed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from captures.bodies import BodyFiles
from captures.exchange import Exchange
from captures.growing_capture import growing_capture
from captures.pcap_writer import PcapWriter


class PcapMirror:
    """An observer of a recording that writes the phones' side of it as packets."""

    def __init__(self, path: Path) -> None:
        """Start the file, or go on with it; `path` is where that is. Raises `OSError`."""
        stream, self.path = growing_capture(path)
        self._writer = PcapWriter(stream)

    def recorded(self, bodies: BodyFiles, exchange: Exchange) -> None:
        """Write one exchange; bodies come from the recording."""

        def chunks(sha256: str) -> Iterable[bytes] | None:
            return bodies.chunks(sha256) if bodies.has(sha256) else None

        self._writer.write(exchange, chunks)

    def close(self) -> None:
        """End every connection in the file."""
        self._writer.close()
