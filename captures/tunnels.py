"""Frames that travel inside of IP packets: GRE with IP, Ethernet or ERSPAN in it, and VXLAN.

Mirror ports that send over a network, and networks laid over others, are captured like this. Sources: RFC 2784 and
RFC 2890 (GRE), draft-foschiano-erspan (types I and II), RFC 7348 (VXLAN). IP in IP is read in `ip`.
"""

from __future__ import annotations

from typing import NamedTuple

from captures.ip import UDP, Segment
from captures.link import ETHERNET, IP_TYPES, IPV4

GRE = 47
VXLAN_PORT = 4789
MAX_DEPTH = 4  # tunnels in each other
UNREAD_PORTS = {1701: "L2TP", 2152: "GTP", 5247: "CAPWAP", 6081: "Geneve"}

ETHERNET_IN_GRE, ERSPAN = 0x6558, 0x88BE
_CHECKSUM, _ROUTING, _KEY, _SEQUENCE, _VERSION = 0x8000, 0x4000, 0x2000, 0x1000, 0x0007


class Inner(NamedTuple):
    """A frame inside of a segment: its link type, where it starts, and what tells its network from others."""

    link_type: int
    start: int
    network: bytes = b""


def inner_frame(segment: Segment) -> Inner | None:
    """The frame that a segment carries; None where it carries none, or in a form that is not read."""
    if segment.protocol == GRE:
        return _gre(segment.data, segment.start, segment.end)
    if segment.protocol == UDP:
        return _vxlan(segment.data, segment.start, segment.end)
    return None


def unread_tunnel(segment: Segment) -> str | None:
    """The name of the tunnel that a UDP datagram goes through, if it is one of those that are not read."""
    if segment.end - segment.start < 8:
        return None
    return UNREAD_PORTS.get(_number(segment.data, segment.start + 2))


def _gre(data: bytes, start: int, end: int) -> Inner | None:
    if end - start < 4:
        return None
    flags, protocol = _number(data, start), _number(data, start + 2)
    if flags & (_VERSION | _ROUTING):
        return None
    position = start + 4 + 4 * bool(flags & _CHECKSUM)
    network = data[position : position + 4] if flags & _KEY else b""
    position += len(network) + 4 * bool(flags & _SEQUENCE)
    if protocol in IP_TYPES:
        return Inner(IPV4, position, network)
    if protocol == ETHERNET_IN_GRE:
        return Inner(ETHERNET, position, network)
    if protocol != ERSPAN:
        return None
    # Type I has no sequence number and no header of its own, type II has both.
    if not flags & _SEQUENCE:
        return Inner(ETHERNET, position)
    return Inner(ETHERNET, position + 8) if position + 8 < end and data[position] >> 4 == 1 else None


def _vxlan(data: bytes, start: int, end: int) -> Inner | None:
    """Behind the UDP header: flags and what they are about, the number of the network. All else is zero."""
    if end - start < 16 or _number(data, start + 2) != VXLAN_PORT or data[start + 15]:
        return None
    plain = data[start + 8 : start + 12] == b"\x08\0\0\0"
    if not plain and data[start + 8] != 0x88:  # with the group policy extension
        return None
    return Inner(ETHERNET, start + 16, data[start + 12 : start + 15])


def _number(data: bytes, at: int) -> int:
    return data[at] << 8 | data[at + 1]
