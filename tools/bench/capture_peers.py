"""Python peers of the captures bench: `python -m tools.bench.capture_peers dpkt|scapy FILE`."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path


def with_dpkt(path: Path) -> None:
    """The usual loop: segments in order, one hash per direction, no gaps, no HTTP."""
    import dpkt  # type: ignore[import-not-found]  # noqa: PLC0415 - an optional peer

    streams: dict[tuple[bytes, bytes, int, int], tuple[int, object]] = {}
    with path.open("rb") as file:
        for _, data in dpkt.pcap.Reader(file):
            ip = dpkt.ethernet.Ethernet(data).data
            segment = ip.data
            if not segment.data:
                continue
            key = ip.src, ip.dst, segment.sport, segment.dport
            expected, digest = streams.get(key, (segment.seq, hashlib.sha256()))
            if segment.seq == expected:
                digest.update(segment.data)
                expected = (expected + len(segment.data)) & 0xFFFFFFFF
            streams[key] = expected, digest


def with_scapy(path: Path) -> None:
    """scapy's own session reassembly."""
    from scapy.layers.http import HTTPResponse  # noqa: PLC0415
    from scapy.sendrecv import sniff  # noqa: PLC0415
    from scapy.sessions import TCPSession  # noqa: PLC0415

    def look(packet: object) -> None:
        if HTTPResponse in packet:  # type: ignore[operator]
            hashlib.sha256(bytes(packet[HTTPResponse].payload)).hexdigest()  # type: ignore[index]

    sniff(offline=str(path), session=TCPSession, prn=look, store=False)


PEERS = {"dpkt": with_dpkt, "scapy": with_scapy}


if __name__ == "__main__":
    PEERS[sys.argv[1]](Path(sys.argv[2]))
