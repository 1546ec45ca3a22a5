"""TLS with secrets: tshark decrypts, and the plain bytes go the same way as those of any other connection.

The secrets are a key log file, a secrets block inside of the capture, or an RSA key (for RSA key exchange); tshark
reads them where they are, and those that stand behind the packets, where it looks for none, it gets through memory.
Its output comes through a pipe. Streams, bytes and time are bounded, and what fails is a problem of the capture: what
was decrypted until then is shown.

The decrypted streams are connections of their own. They are put among the packets by time, so that what was said in
TLS stands in order with everything else. What tshark does not tell of them is taken from the encrypted connections:
their holes, and how they ended.
"""

from __future__ import annotations

import binascii
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from captures.exchange import endpoint
from captures.packet_files import Packet
from captures.tcp import Endpoints, TcpTable
from captures.tls_look import Pair, TlsLook
from captures.tls_plain import Call, Fate, Piece, calls, fate_of

MAX_STREAMS = 2000
STREAMS_PER_RUN = 200  # every packet is held against each of them
MAX_BYTES = 128 << 20  # of tshark's output
MAX_LINE = 4096
MAX_NAMED = 5  # connections in one problem
TIMEOUT = 300.0  # seconds for one capture
PROGRAM = "tshark"

_FIELDS = (
    "tcp.stream", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport", "eth.src", "eth.dst",
    "frame.number", "frame.time_epoch", "tls.alert_message.desc", "tls.record.content_type", "tls.record.length",
)  # fmt: skip
_APPLICATION_DATA = "23"
_CLOSE_NOTIFY = "0"

T = TypeVar("T")


class DecryptionError(Exception):
    """Why nothing, or not all, was decrypted: one line."""


class _Stream(NamedTuple):
    """One decrypted connection; side 0 is at `first`. It is not `whole` where tshark's output broke off in it."""

    first: tuple[bytes, int]
    pieces: list[Piece]
    whole: bool = True


@dataclass
class _Seen:
    """The packets of a TLS connection. Side 0 is the sender of the first one; `ways` are its addresses and the
    other's, from the outermost tunnel to the innermost, IPv4 before IPv6.
    """

    ways: list[tuple[bytes, bytes]]
    ports: tuple[int, int]
    macs: tuple[str, str]
    closed: dict[int, int] = field(default_factory=dict)  # when a side said that it would say no more
    latest: dict[int, int] = field(default_factory=dict)  # the last packet in which a side said something

    @property
    def pairs(self) -> list[Pair]:
        """Who may be its two ends, the innermost first."""
        return [frozenset(zip(way, self.ports, strict=True)) for way in reversed(self.ways)]

    def endpoints(self, end: tuple[bytes, int]) -> Endpoints | None:
        """The two ends, one of which is this one."""
        for way in reversed(self.ways):
            if end in zip(way, self.ports, strict=True):
                return Endpoints(*way, *self.ports, b"", self.macs)
        return None

    def side(self, end: tuple[bytes, int]) -> int:
        """The side that sends from there."""
        return int(end not in [(way[0], self.ports[0]) for way in self.ways])


class Decryption:
    """What was decrypted of one capture. `problems` say what was not; `failed` that it should have been."""

    def __init__(
        self, capture: Path, keylog: Path | None, key: Path | None, tls: TlsLook, late: Iterable[bytes] = ()
    ) -> None:
        self.connections: dict[str, str] = {}  # by their numbers in the table: why not all is known, or nothing
        self.problems: list[str] = []
        self._waiting: list[tuple[int, Call]] = []  # in order of time
        self._tls = tls
        self.tunnels = tls.tunnels  # TLS connections that were not counted as such
        self._in_part: list[str] = []
        self._left = MAX_BYTES
        self._deadline = time.monotonic() + TIMEOUT
        options: list[str] = []
        self._memory = _in_memory(late)
        self._behind = self._memory is not None
        if self._memory is not None:
            options += ["-o", f"tls.keylog_file:/dev/fd/{self._memory.fileno()}"]
        if keylog is not None:
            options += ["-o", f"tls.keylog_file:{keylog.absolute()}"]
        if key is not None:
            options += ["-o", f'uat:rsa_keys:"{key.absolute()}",""']
        for port in sorted(tls.ports - tls.proxies):
            options += ["-d", f"tcp.port=={port},tls"]
        if tls.tunnels:  # what is in them is known by the port that the proxy was told; this looks at it first
            options += ["-o", "tcp.try_heuristic_first:TRUE"]
        program = shutil.which(PROGRAM)
        if program is None:
            self.problems.append(f"{PROGRAM} is not installed: TLS connections are not decrypted")
            return
        # Bodies in plain HTTP are nothing it should put together: that takes longer with the square of their size.
        options += ["-o", "http.desegment_body:FALSE"]
        # Otherwise segments that come out of order are lost to it, and with them all that is said later.
        options += ["-o", "tcp.reassemble_out_of_order:TRUE"]
        self._command = [program, "-n", *options, "-r", str(capture.absolute())]
        try:
            self._decrypt()
        finally:
            if self._memory is not None:
                self._memory.close()
        if not self._waiting and not self.problems and (keylog or key):
            self.problems.append(f"with these secrets none of {tls.connections} TLS connections can be decrypted")

    @property
    def failed(self) -> bool:
        """Whether not all was decrypted that should have been."""
        return bool(self.problems)

    def among(self, packets: Iterable[Packet], table: TcpTable) -> Iterator[Packet]:
        """The packets; what was decrypted goes into `table` when its time has come, or at the end if its secrets do."""
        if self._behind:
            yield from packets
            packets = ()
        waiting = iter(self._waiting)
        due = next(waiting, None)
        for packet in packets:
            while due is not None and due[0] <= packet[0]:
                due[1](table)
                due = next(waiting, None)
            yield packet
        while due is not None:
            due[1](table)
            due = next(waiting, None)

    def _decrypt(self) -> None:
        seen = self._guarded(self._seen(), {})
        wanted = list(seen)[:MAX_STREAMS]
        if len(seen) > MAX_STREAMS:
            self.problems.append(f"only the first {MAX_STREAMS} of {len(seen)} TLS connections were decrypted")
        found: list[tuple[int, Call]] = []
        # Each run takes the whole capture; one that fails is the last.
        for start in range(0, len(wanted), STREAMS_PER_RUN):
            batch = wanted[start : start + STREAMS_PER_RUN]
            failures = len(self.problems)
            # tshark prints its statistics in the opposite order, and fewer of them where it fails.
            streams = self._guarded(zip(batch[::-1], self._follow(batch), strict=False), {})
            for number, stream in streams.items():
                if stream.pieces:
                    found += self._calls(number, seen[number], stream)
            if len(self.problems) > failures:
                break
        self._waiting = sorted(found, key=lambda one: one[0])
        if self._in_part:
            more = ", ..." if len(self._in_part) > MAX_NAMED else ""
            named = ", ".join(self._in_part[:MAX_NAMED]) + more
            self.problems.append(f"{len(self._in_part)} TLS connections are decrypted in part only: {named}")

    def _guarded(self, found: Iterable[tuple[int, T]], into: dict[int, T]) -> dict[int, T]:
        """What comes until something fails, which is noted."""
        try:
            for number, one in found:
                into.setdefault(number, one)
        except DecryptionError as error:
            self.problems.append(str(error))
        except (ValueError, IndexError, binascii.Error) as error:
            self.problems.append(f"{PROGRAM}'s output cannot be read: {error}")
        return into

    def _seen(self) -> Iterator[tuple[int, _Seen]]:
        """The TLS connections by tshark's number, each as often as it has packets."""
        fields = [word for name in _FIELDS for word in ("-e", name)]
        known: dict[int, _Seen] = {}
        for line in self._run(["-Y", "tls", "-T", "fields", "-E", "occurrence=a", *fields]):
            row = [value.split(",") if value else [] for value in line.rstrip("\n").split("\t")]
            numbers, from4, from6, sport, to4, to6, dport, mac, other, (packet,), (time,), alerts, types, sizes = row
            ways = [(_packed(one), _packed(two)) for one, two in zip(from4 + from6, to4 + to6, strict=False)]
            if not numbers or not ways:
                continue
            number, ports = int(numbers[-1]), (int(sport[-1]), int(dport[-1]))
            seen = known.get(number)
            if seen is None:
                macs = mac[0] if mac else "", other[0] if other else ""
                seen = known[number] = _Seen(ways, ports, macs)
            side = seen.side((ways[-1][0], ports[0]))
            # In TLS 1.3 only what is decrypted has a type, and may be another than data.
            if _APPLICATION_DATA in types or len(types) < len(sizes):
                seen.latest[side] = int(packet)
            if _CLOSE_NOTIFY in alerts:
                seen.closed.setdefault(side, _nanoseconds(time))
            yield number, seen

    def _follow(self, wanted: list[int]) -> Iterator[_Stream]:
        """The plain bytes of the connections, each with its ends as tshark shows them."""
        follow = [word for number in wanted for word in ("-z", f"follow,tls,yaml,{number}")]
        host, port, begun = "", 0, False
        pieces: list[Piece] = []
        encoded: list[str] = []
        peer = packet = moment = 0

        def piece() -> None:
            if encoded:
                pieces.append(Piece(peer, packet, moment, binascii.a2b_base64("".join(encoded))))
                encoded.clear()

        def stream(*, whole: bool = True) -> _Stream:
            piece()
            return _Stream((_packed(host) if host else b"", port), pieces, whole)

        failure = None
        try:
            for line in self._run(["-q", *follow]):
                if line.startswith("      ") and begun:
                    encoded.append(line.strip())
                    continue
                name, _, value = line.strip().lstrip("- ").partition(": ")
                if name == "peers:":
                    if begun:
                        yield stream()
                    host, port, begun, pieces = "", 0, True, []
                elif name == "host" and not host:
                    host = value
                elif name == "port" and not port:
                    port = int(value or 0)
                elif name == "packet":
                    piece()
                    packet = int(value)
                elif name == "peer" and line.startswith("    "):
                    piece()
                    peer = int(value)
                elif name == "timestamp":
                    moment = _nanoseconds(value)
        except DecryptionError as error:  # what came before stands
            failure = error
            encoded[:] = encoded[:-1] if len("".join(encoded)) % 4 else encoded
        if begun:
            yield stream(whole=failure is None)
        if failure is not None:
            raise failure

    def _calls(self, number: int, seen: _Seen, stream: _Stream) -> Iterator[tuple[int, Call]]:
        """What puts a decrypted connection into a table."""
        carrier = self._tls.carrier(seen.pairs, stream.pieces[0].time)
        ends = carrier.endpoints._replace(network=b"") if carrier else seen.endpoints(stream.first)
        both = [(ends.source, ends.source_port), (ends.target, ends.target_port)] if ends else []
        if ends is None or stream.first not in both:
            self.problems.append(f"{PROGRAM}'s output cannot be read: connection {number} has other ends")
            return
        turned = both.index(stream.first)
        pieces = [piece._replace(side=piece.side ^ turned) for piece in stream.pieces]
        fates: list[Fate] = []
        for side, end in enumerate(both if stream.whole else ()):
            theirs, wire = seen.side(end), carrier.wires[side] if carrier else None
            said = next((piece for piece in reversed(pieces) if piece.side == side), None)
            fates.append(fate_of(wire, said, seen.closed.get(theirs), seen.latest.get(theirs, 0)))
        if any(fate.in_part for fate in fates):
            self._in_part.append(" - ".join(endpoint(str(ip_address(address)), port) for address, port in both))
        remark = next((fate.remark for fate in fates if fate.remark), "")

        def opened(table: TcpTable) -> None:
            self.connections[str(table.counts["TCP connections"])] = remark
            table.counts["TLS connections decrypted"] += 1

        yield from calls(number, ends, pieces, fates, opened)

    def _run(self, arguments: list[str]) -> Iterator[str]:
        """The lines tshark prints. Raises `DecryptionError` at their end, if it was not a good one."""
        with (
            tempfile.TemporaryFile() as complaints,
            subprocess.Popen(  # noqa: S603 - our own words, and names of files that exist
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints,
                pass_fds=() if self._memory is None else (self._memory.fileno(),),
            ) as process,
        ):  # fmt: skip
            late = threading.Event()

            def stop() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(max(self._deadline - time.monotonic(), 0), stop)
            timer.start()
            try:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                begins = True  # of a line that is too long, the rest is left out
                while line := process.stdout.readline(MAX_LINE):
                    self._left -= len(line)
                    if self._left < 0:
                        raise DecryptionError(f"more than {MAX_BYTES} bytes from {PROGRAM}: the rest was not decrypted")
                    if begins:
                        yield line.decode("utf-8", "replace")
                    begins = line.endswith(b"\n")
                code = process.wait()
            finally:
                timer.cancel()
                process.kill()
            if late.is_set():
                raise DecryptionError(f"{PROGRAM} took longer than {TIMEOUT:g} s: what follows was not decrypted")
            if code:
                raise DecryptionError(f"{PROGRAM} failed (exit code {code}): {_last_line(complaints)}")


def _packed(address: str) -> bytes:
    return ip_address(address).packed


def _nanoseconds(seconds: str) -> int:
    whole, _, fraction = seconds.strip().partition(".")
    return int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))


def _in_memory(secrets: Iterable[bytes]) -> IO[bytes] | None:
    """A file of these secrets that is on no disk; None without secrets, or where the system has no such files."""
    content = b"\n".join(secrets)
    if not content or not hasattr(os, "memfd_create"):
        return None
    file = os.fdopen(os.memfd_create("secrets"), "wb")
    file.write(content)
    file.flush()
    return file


def _last_line(complaints: IO[bytes]) -> str:
    complaints.seek(0, 2)
    complaints.seek(max(complaints.tell() - MAX_LINE, 0))
    lines = complaints.read().decode("utf-8", "replace").split("\n")
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "it does not say why")
