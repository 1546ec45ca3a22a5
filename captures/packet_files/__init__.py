"""Files of packets: pcap, pcapng and snoop, plain or in gzip, read in one pass over a bounded buffer."""

from __future__ import annotations

from captures.packet_files.common import Packet, PacketFile
from captures.packet_files.opening import open_packets

__all__ = ["Packet", "PacketFile", "open_packets"]
