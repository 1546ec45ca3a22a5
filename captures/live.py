"""Packets of a network interface, as they pass: scapy's listening socket without its per-packet dissection.

Needs the right to open a packet socket (root, or CAP_NET_RAW). Nothing is sent.
"""

from __future__ import annotations

import contextlib
import logging
import select
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from captures.errors import CaptureError
from captures.link import ETHERNET, RAW
from captures.packet_files import Packet, PacketFile
from captures.packets import full_reader, item_of

if TYPE_CHECKING:
    from captures.items import Item
    from captures.read_options import ReadOptions

LONGEST = 1 << 18  # bytes of one packet
WAIT = 0.5  # seconds between looks at the clock while nothing comes
LOOPBACK = 772  # ARPHRD_LOOPBACK
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23  # packet(7); the last since Linux 4.20
# The kernel's name for the link (ARPHRD_*) -> link type: Ethernet and loopback; tunnels and PPP, which show bare IP.
LINK_TYPES = {1: ETHERNET, LOOPBACK: ETHERNET, 65534: RAW[-1], 512: RAW[-1], 776: RAW[-1], 768: RAW[-1]}


def read_live(interface: str, options: ReadOptions, seconds: float | None, packets: int | None) -> Iterator[Item]:
    """The exchanges seen on an interface, each as soon as it is over, then the account.

    Ends after so many seconds or packets, or when interrupted from the keyboard. Raises `CaptureError`.
    """
    file = PacketFile("live")
    reader = full_reader(interface, options, ordered=False)
    try:
        yield from map(item_of, reader.read(_until_interrupted(listen(interface, seconds, packets, file.problems))))
        yield from map(item_of, reader.finish(file))
    finally:
        reader.close()


def listen(interface: str, seconds: float | None, packets: int | None, problems: list[str]) -> Iterator[Packet]:
    """Packets of an interface; what the kernel had to drop goes to `problems` at the end.

    Raises `CaptureError` where it cannot be listened on.
    """
    kind = _kind(interface)
    import scapy.arch  # noqa: PLC0415 - slow to import, and only needed here; it chooses the socket
    from scapy.config import conf  # noqa: PLC0415
    from scapy.error import Scapy_Exception  # noqa: PLC0415

    # It warns of links it would not dissect; nothing is dissected.
    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    if conf.L2listen is None:
        raise CaptureError(interface, f"{scapy.arch.__name__} has no packet socket for this system")
    try:
        listening = conf.L2listen(iface=interface)
    except (OSError, Scapy_Exception) as error:
        raise CaptureError(interface, str(error)) from error
    if kind == LOOPBACK:  # every packet would be seen twice, going out and coming in
        with contextlib.suppress(OSError):  # an older kernel: TCP counts the second copy as repeated
            listening.ins.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end = None if seconds is None else time.monotonic() + seconds
    left = -1 if packets is None else packets
    try:
        while left != 0:
            wait = WAIT if end is None else min(WAIT, end - time.monotonic())
            if wait <= 0:
                return
            if not select.select([listening], [], [], wait)[0]:
                continue
            _, data, moment = listening.recv_raw(LONGEST)
            if data is None:
                continue
            yield int((moment or time.time()) * 1e9), LINK_TYPES[kind], data, 0, len(data), len(data)
            left -= 1
    except OSError as error:
        raise CaptureError(interface, error) from error
    finally:
        with contextlib.suppress(OSError, struct.error):  # other systems do not tell
            _, dropped = struct.unpack("II", listening.ins.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
            if dropped:
                problems.append(f"{dropped} packets came faster than they were read, and were dropped")
        listening.close()


def _kind(interface: str) -> int:
    """The kernel's number for the interface's link, one that is read."""
    known = Path("/sys/class/net", interface, "type")
    try:
        number = int(known.read_text())
    except (OSError, ValueError):
        raise CaptureError(interface, "no such network interface") from None
    if number not in LINK_TYPES:
        raise CaptureError(interface, f"links of the kernel's type {number} are not read")
    return number


def _until_interrupted(packets: Iterator[Packet]) -> Iterator[Packet]:
    """An interrupt from the keyboard ends the packets, so that what was seen is still told."""
    try:
        yield from packets
    except KeyboardInterrupt:
        return
