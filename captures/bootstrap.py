"""What leads a phone to its update server before HTTP: DHCP, DNS and SIP, as observations.

SIP is read where it is text: over UDP, and over TCP through the reassembled streams. The dissectors are imported when
their first message comes: together they take longer than reading a small capture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from captures.exchange import endpoint
from captures.items import Observation
from captures.open_exchange import moment
from dissectors.errors import DissectError

if TYPE_CHECKING:
    from captures.tcp import Connection, Sink
    from dissectors.dhcp_message import DhcpMessage
    from dissectors.sip import SipMessage

MAX_CLIENTS = 10_000  # whose vendor class is remembered
MAX_WAITING = 1 << 20  # bytes of an unfinished SIP message

DHCP_PORTS = frozenset((67, 68))
DNS_PORT = 53
_SIP = re.compile(rb"(?:SIP/2\.0 [1-6]\d\d[ \r]|[A-Z]{2,20} (?:sips?|tel):[^\r\n ]{1,4096} SIP/2\.0)")
# protocol.md section 7: the names these phones ask for
_NAMES = re.compile(
    r"(?:ucupdates(?:-r2)?|sip(?:internal|external)?|lyncdiscover(?:internal)?|autodiscover|time\.windows)\."
    r"|_(?:sip(?:internal(?:tls)?|external(?:tls)?|federationtls|s)?|ntp|autodiscover)\._(?:tcp|tls|udp)\.",
    re.IGNORECASE,
)


class Datagram(NamedTuple):
    """A UDP payload; `time` in nanoseconds since 1970, addresses as raw bytes."""

    time: int
    source: bytes
    target: bytes
    source_port: int
    target_port: int
    payload: bytes
    source_mac: str


class Bootstrap:
    """Reads datagrams, and claims the TCP connections that carry SIP. `observe` takes what TCP brings."""

    def __init__(self, capture: str, *, secrets: bool = False) -> None:
        self.observe: Callable[[Observation], None]
        self._capture = capture
        self._secrets = secrets
        self._classes: dict[str, str] = {}

    def datagram(self, datagram: Datagram) -> Iterator[Observation]:
        """What a datagram says."""
        ports = {datagram.source_port, datagram.target_port}
        try:
            if ports & DHCP_PORTS:
                from dissectors.dhcp_message import DhcpMessage  # noqa: PLC0415

                dhcp = DhcpMessage.parse(datagram.payload)
                yield self._of(datagram, dhcp.from_client, self._dhcp(dhcp), dhcp.client_mac, dhcp.problems)
            elif DNS_PORT in ports:
                from dissectors.dns_message import DnsMessage  # noqa: PLC0415

                dns = DnsMessage.parse(datagram.payload)
                relevant = any(_NAMES.match(question.name) for question in dns.questions)
                yield self._of(datagram, not dns.is_answer, dns.to_json() | {"relevant": relevant})
            elif _SIP.match(datagram.payload.lstrip(b"\r\n")):
                message = _parsed(datagram.payload)
                yield self._of(datagram, message.status is None, self.sip(message))
        except DissectError as error:
            name = "DHCP" if ports & DHCP_PORTS else "DNS" if DNS_PORT in ports else "SIP"
            yield self._of(datagram, datagram.target_port in (67, 53), None, problems=(f"{name}: {error}",))

    def claim(self, connection: Connection, _side: int, data: bytes) -> tuple[Sink, Sink] | None:
        """Take a connection that begins with SIP."""
        if not _SIP.match(data.lstrip(b"\r\n")):
            return None
        return _SipStream(self, connection, 0), _SipStream(self, connection, 1)

    def sip(self, message: SipMessage) -> dict[str, Any]:
        """The fact of a SIP message."""
        from dissectors import sip  # noqa: PLC0415

        return sip.to_json(message, secrets=self._secrets)

    def tell(
        self, time: int, source: str, target: str, fact: dict[str, Any] | None, mac: str, problems: tuple[str, ...]
    ) -> Observation:
        """An observation of one message."""
        facts = () if fact is None else (fact,)
        return Observation(self._capture, moment(time), source, target, facts, problems, mac)

    def _dhcp(self, message: DhcpMessage) -> dict[str, Any]:
        known = self._classes.get(message.client_mac)
        if message.from_client and message.vendor_class:
            if len(self._classes) >= MAX_CLIENTS:
                self._classes.clear()
            self._classes[message.client_mac] = known = message.vendor_class
        return message.to_json(known)

    def _of(
        self,
        datagram: Datagram,
        asks: bool,
        fact: dict[str, Any] | None,
        mac: str | None = None,
        problems: tuple[str, ...] = (),
    ) -> Observation:
        there = (
            endpoint(str(ip_address(datagram.source)), datagram.source_port),
            endpoint(str(ip_address(datagram.target)), datagram.target_port),
        )
        client, server = there if asks else there[::-1]
        mac = mac or (datagram.source_mac if asks else "")
        return self.tell(datagram.time, client, server, fact, mac, problems)


def _parsed(message: bytes) -> SipMessage:
    from dissectors.sip import SipMessage  # noqa: PLC0415

    return SipMessage.parse(message)


class _SipStream:
    """One direction of a SIP connection; the stream is cut into messages by their Content-Length."""

    def __init__(self, bootstrap: Bootstrap, connection: Connection, side: int) -> None:
        self._bootstrap = bootstrap
        ends = connection.endpoints
        there = (
            endpoint(str(ip_address(ends.source)), ends.source_port),
            endpoint(str(ip_address(ends.target)), ends.target_port),
        )
        self._sender, self._peer = there if side == 0 else there[::-1]
        self._mac = ends.macs[side]
        self._buffer = bytearray()
        self._searched = 0
        self._needed = 0

    def data(self, data: bytes, time: int, _ack: int) -> None:
        self._buffer += data
        while len(self._buffer) >= max(self._needed, 1) and self._message(time):
            self._searched = self._needed = 0
        if len(self._buffer) > MAX_WAITING:
            self._lose(time, f"a SIP message over {MAX_WAITING} bytes")

    def hole(self, size: int, time: int) -> None:
        self._lose(time, f"gap: {size} bytes of SIP missing")

    def conflict(self, _size: int) -> None:
        """It is counted."""

    def end(self, _how: str, time: int) -> None:
        if self._buffer.strip(b"\r\n"):
            self._lose(time, f"{len(self._buffer)} bytes of an unfinished SIP message")

    def _message(self, time: int) -> bool:
        """Take one whole message off the buffer."""
        kept = self._buffer.lstrip(b"\r\n")
        if len(kept) != len(self._buffer):
            self._buffer, self._searched = kept, 0
        blank = self._buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if blank < 0:
            self._searched = len(self._buffer)
            return False
        start = _SIP.match(self._buffer)
        if start is None:  # behind a gap: the next message begins at a line of its own
            following = re.compile(rb"\r\n(?=" + _SIP.pattern + rb")").search(self._buffer)
            del self._buffer[: following.end() if following else blank + 4]
            return True
        try:
            head = _parsed(bytes(self._buffer[: blank + 4]))
            self._needed = blank + 4 + (head.declared_length or 0)
            if len(self._buffer) < self._needed <= MAX_WAITING:
                return False
            message = _parsed(bytes(self._buffer[: self._needed]))
        except DissectError as error:
            del self._buffer[: blank + 4]
            self._problem(time, f"SIP: {error}")
            return True
        del self._buffer[: self._needed]
        client, server = (self._sender, self._peer) if message.status is None else (self._peer, self._sender)
        mac = self._mac if message.status is None else ""
        self._bootstrap.observe(self._bootstrap.tell(time, client, server, self._bootstrap.sip(message), mac, ()))
        return True

    def _lose(self, time: int, why: str) -> None:
        self._buffer.clear()
        self._searched = self._needed = 0
        self._problem(time, why)

    def _problem(self, time: int, why: str) -> None:
        self._bootstrap.observe(self._bootstrap.tell(time, self._sender, self._peer, None, self._mac, (why,)))
