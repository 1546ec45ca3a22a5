"""From a captured frame to its IP packet: the link layers phones and servers are captured on.

Sources: the pcap link-type registry; IEEE 802.1Q/802.1ad; RFC 1042 (LLC and SNAP); RFC 1661 and 2516 (PPP, PPPoE);
RFC 3032 (MPLS).
"""

from __future__ import annotations

from collections.abc import Callable

NULL, ETHERNET, PPP, LINUX_SLL, LOOP, IPV4, IPV6, NFLOG, LINUX_SLL2 = 0, 1, 9, 113, 108, 228, 229, 239, 276
RAW = (12, 14, 101)  # LINKTYPE_RAW, and the two numbers BSDs wrote for it
VLAN_TYPES = frozenset((0x8100, 0x88A8, 0x9100, 0x9200))
MPLS_TYPES = frozenset((0x8847, 0x8848))
PPPOE_SESSION = 0x8864
PPP_IP = (0x0021, 0x0057)
IP_TYPES = frozenset((0x0800, 0x86DD))
LARGEST_LENGTH = 1500  # larger numbers in the place of an EtherType are one
SNAP = bytes.fromhex("aaaa03000000")  # an EtherType follows
MAX_VLANS = 4  # tags on one frame; two are usual at most
MAX_LABELS = 16
NFLOG_PAYLOAD = 9

# (where the IP packet starts, where it ends, the VLAN tags as bytes), or None where there is none.
Found = tuple[int, int, bytes]


def find_ip(link_type: int, data: bytes, start: int, end: int) -> Found | None:
    """The IP packet inside a frame. Whether it is IPv4 or IPv6 is told by its own first half byte."""
    reader = _READERS.get(link_type)
    if reader is None:
        return None
    found = reader(data, start, end)
    return found if found is not None and found[0] < found[1] else None


def is_read(link_type: int) -> bool:
    """Whether frames of this link type are read at all."""
    return link_type in _READERS


def mac_addresses(link_type: int, data: bytes, start: int, end: int) -> tuple[str, str]:
    """The source and destination MAC address of an Ethernet frame, empty where the link has none."""
    if link_type == ETHERNET and end - start >= 12:
        return data[start + 6 : start + 12].hex(":"), data[start : start + 6].hex(":")
    if link_type == LINUX_SLL and end - start >= 12 and data[start + 4 : start + 6] == b"\0\6":
        return data[start + 6 : start + 12].hex(":"), ""
    return "", ""


def _raw(_data: bytes, start: int, end: int) -> Found:
    return start, end, b""


def _ethernet(data: bytes, start: int, end: int) -> Found | None:
    return _ethertype(data, start + 12, end)


def _ethertype(data: bytes, position: int, end: int) -> Found | None:
    """Read from an EtherType field on, through VLAN tags, SNAP, MPLS labels and PPPoE."""
    vlans = b""
    for _ in range(MAX_VLANS + 1):
        if position + 2 > end:
            return None
        ethertype = data[position] << 8 | data[position + 1]
        position += 2
        if ethertype in IP_TYPES:
            return position, end, vlans
        if ethertype in VLAN_TYPES and position + 4 <= end:
            # The priority bits differ between packets of one connection; only the identifier tells networks apart.
            vlans += bytes((data[position] & 0x0F, data[position + 1]))
            position += 2
        elif ethertype == PPPOE_SESSION:
            return _ppp_protocol(data, position + 6, end, vlans)
        elif ethertype in MPLS_TYPES:
            return _mpls(data, position, end, vlans)
        elif ethertype <= LARGEST_LENGTH and data[position : position + 6] == SNAP:
            position += 6
        else:
            return None
    return None


def _mpls(data: bytes, position: int, end: int, vlans: bytes) -> Found | None:
    """Labels of four bytes up to the one that says it is the last; what follows is told by its first half byte."""
    for _ in range(MAX_LABELS):
        if position + 4 >= end:
            return None
        last = data[position + 2] & 1
        position += 4
        if last:
            return (position, end, vlans) if data[position] >> 4 in (4, 6) else None
    return None


def _null(_data: bytes, start: int, end: int) -> Found:
    # Four bytes of address family, in the byte order and numbering of the machine that captured: not needed.
    return start + 4, end, b""


def _ppp(data: bytes, start: int, end: int) -> Found | None:
    if data[start : start + 2] == b"\xff\x03":  # address and control of HDLC framing
        start += 2
    return _ppp_protocol(data, start, end, b"")


def _ppp_protocol(data: bytes, position: int, end: int, vlans: bytes) -> Found | None:
    """The protocol field has two bytes, of which the first may be left out if it is zero: the last one is odd."""
    size = 1 if data[position : position + 1] and data[position] & 1 else 2
    protocol = int.from_bytes(data[position : position + size], "big")
    return (position + size, end, vlans) if protocol in PPP_IP else None


def _sll(data: bytes, start: int, end: int) -> Found | None:
    return _ethertype(data, start + 14, end)


def _sll2(data: bytes, start: int, end: int) -> Found | None:
    if start + 20 > end:
        return None
    ethertype = data[start] << 8 | data[start + 1]
    if ethertype in IP_TYPES:
        return start + 20, end, b""
    if ethertype in VLAN_TYPES and start + 24 <= end:
        found = _ethertype(data, start + 22, end)
        return found and (found[0], found[1], bytes((data[start + 20] & 0x0F, data[start + 21])) + found[2])
    return None


def _nflog(data: bytes, start: int, end: int) -> Found | None:
    """Four bytes of header, then length-type-value records in host byte order, the packet in one of them."""
    position = start + 4
    while position + 4 <= end:
        little = data[position + 2] | data[position + 3] << 8
        order = "little" if little & 0x7FFF <= 0xFF else "big"
        size = int.from_bytes(data[position : position + 2], order)  # type: ignore[arg-type]
        kind = int.from_bytes(data[position + 2 : position + 4], order) & 0x7FFF  # type: ignore[arg-type]
        if size < 4:
            return None
        if kind == NFLOG_PAYLOAD:
            return position + 4, min(position + size, end), b""
        position += (size + 3) & ~3
    return None


_READERS: dict[int, Callable[[bytes, int, int], Found | None]] = {
    ETHERNET: _ethernet,
    NULL: _null,
    LOOP: _null,
    PPP: _ppp,
    LINUX_SLL: _sll,
    LINUX_SLL2: _sll2,
    NFLOG: _nflog,
    IPV4: _raw,
    IPV6: _raw,
    **dict.fromkeys(RAW, _raw),
}
