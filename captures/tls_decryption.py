"""TLS with secrets: tshark decrypts, and the plain bytes go the same way as those of any other connection.

The secrets are a key log file, a secrets block inside of the capture, or an RSA key (for RSA key exchange); tshark
reads them where they are, and those that stand behind the packets, where it looks for none, it gets through memory.
Its output comes through a pipe. Streams, bytes and time are bounded, and what fails is a problem of the capture: what
was decrypted until then is shown.

The decrypted streams are connections of their own. They are put among the packets by time, so that what was said in
TLS stands in order with everything else.
"""

from __future__ import annotations

import binascii
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import IO, NamedTuple, TypeVar

from captures.packet_files import Packet
from captures.tcp import FIN, NOBODY, SYN, Connection, Endpoints, Sink, TcpSegment, TcpTable

MAX_STREAMS = 2000
STREAMS_PER_RUN = 200  # every packet is held against each of them
MAX_BYTES = 128 << 20  # of tshark's output
MAX_LINE = 4096
MAX_PORTS = 100  # that are named to tshark as TLS
TIMEOUT = 300.0  # seconds for one capture
PROGRAM = "tshark"

_FIELDS = ("tcp.stream", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport", "eth.src", "eth.dst")
_CLIENT_HELLO = 1

T = TypeVar("T")


class TlsPorts:
    """Finds TLS: a claim on connections for a first look at a capture. `ports` are those of the servers."""

    def __init__(self) -> None:
        self.ports: set[int] = set()
        self.connections = 0

    def claim(self, connection: Connection, side: int, data: bytes) -> tuple[Sink, Sink]:
        """Look at the first bytes of a connection, and take it off its reader."""
        hello = data[0] == 0x16 and data[1:2] == b"\3"
        old_hello = data[0] & 0x80 and data[2:4] == b"\1\3"  # RFC 5246 appendix E.2
        if hello or old_hello or (data[0] in range(0x14, 0x18) and data[1:2] == b"\3"):
            self.connections += 1
            asks = bool(old_hello) or data[5:6] == bytes((_CLIENT_HELLO,))
            ends = connection.endpoints
            ports = ends.source_port, ends.target_port
            if len(self.ports) < MAX_PORTS and (hello or old_hello):
                self.ports.add(ports[1 - side] if asks else ports[side])
        return NOBODY, NOBODY


class DecryptionError(Exception):
    """Why nothing, or not all, was decrypted: one line."""


class _Stream(NamedTuple):
    """One decrypted connection; `pieces` are (0 for the side at `first`, time in nanoseconds since 1970, bytes)."""

    first: tuple[bytes, int]
    pieces: list[tuple[int, int, bytes]]


class Decryption:
    """What was decrypted of one capture. `problems` say what was not; `failed` that it should have been."""

    def __init__(
        self, capture: Path, keylog: Path | None, key: Path | None, tls: TlsPorts, late: Iterable[bytes] = ()
    ) -> None:
        self.connections: set[str] = set()  # the numbers under which they went into the table
        self.problems: list[str] = []
        self._waiting: list[tuple[int, Callable[[TcpTable], None]]] = []  # in order of time
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
        for port in sorted(tls.ports):
            options += ["-d", f"tcp.port=={port},tls"]
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
        ends = self._guarded(self._ends(), {})
        wanted = list(ends)[:MAX_STREAMS]
        if len(ends) > MAX_STREAMS:
            self.problems.append(f"only the first {MAX_STREAMS} of {len(ends)} TLS connections were decrypted")
        found: list[tuple[int, Callable[[TcpTable], None]]] = []
        # Each run takes the whole capture; one that fails is the last.
        for start in range(0, len(wanted), STREAMS_PER_RUN):
            batch = wanted[start : start + STREAMS_PER_RUN]
            failures = len(self.problems)
            # tshark prints its statistics in the opposite order, and fewer of them where it fails.
            streams = self._guarded(zip(batch[::-1], self._follow(batch), strict=False), {})
            for number, stream in streams.items():
                if stream.pieces:
                    found += self._segments(number, ends[number], stream)
            if len(self.problems) > failures:
                break
        self._waiting = sorted(found, key=lambda one: one[0])

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

    def _ends(self) -> Iterator[tuple[int, Endpoints]]:
        """The TLS connections by tshark's number, each as often as it has packets."""
        fields = [word for name in _FIELDS for word in ("-e", name)]
        for line in self._run(["-Y", "tls", "-T", "fields", "-E", "occurrence=f", *fields]):
            number, source, source6, sport, target, target6, dport, mac, other = line.rstrip("\n").split("\t")
            if number:
                addresses = ip_address(source or source6).packed, ip_address(target or target6).packed
                yield int(number), Endpoints(*addresses, int(sport), int(dport), b"", (mac, other))

    def _follow(self, wanted: list[int]) -> Iterator[_Stream]:
        """The plain bytes of the connections, each with its ends as tshark shows them."""
        follow = [word for number in wanted for word in ("-z", f"follow,tls,yaml,{number}")]
        host, port, begun = "", 0, False
        pieces: list[tuple[int, int, bytes]] = []
        encoded: list[str] = []
        peer = moment = 0

        def piece() -> None:
            if encoded:
                pieces.append((peer, moment, binascii.a2b_base64("".join(encoded))))
                encoded.clear()

        def stream() -> _Stream:
            piece()
            return _Stream((ip_address(host).packed if host else b"", port), pieces)

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
                elif name == "peer" and line.startswith("    "):
                    piece()
                    peer = int(value)
                elif name == "timestamp":
                    seconds, _, fraction = value.partition(".")
                    moment = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
        except DecryptionError as error:  # what came before stands
            failure = error
            encoded[:] = encoded[:-1] if len("".join(encoded)) % 4 else encoded
        if begun:
            yield stream()
        if failure is not None:
            raise failure

    def _segments(
        self, number: int, ends: Endpoints, stream: _Stream
    ) -> Iterator[tuple[int, Callable[[TcpTable], None]]]:
        """The segments of a decrypted connection, as calls that put them into a table."""
        if stream.first == (ends.target, ends.target_port):
            turned = (ends.target, ends.source, ends.target_port, ends.source_port)
            ends = Endpoints(*turned, b"", ends.macs[::-1])
        elif stream.first != (ends.source, ends.source_port):
            self.problems.append(f"{PROGRAM}'s output cannot be read: connection {number} has other ends")
            return
        there, back = b"tls>%d" % number, b"tls<%d" % number
        keys = ((there, back), (back, there))
        first, last = stream.pieces[0][1], stream.pieces[-1][1]

        def put(side: int, segment: TcpSegment) -> Callable[[TcpTable], None]:
            return lambda table: table.segment(keys[side], segment, lambda: ends)

        def open_it(table: TcpTable) -> None:
            for side in (0, 1):
                put(side, TcpSegment(0, 0, SYN, b"", 0, first))(table)
            self.connections.add(str(table.counts["TCP connections"]))
            table.counts["TLS connections decrypted"] += 1

        yield first, open_it
        at = [1, 1]
        for side, moment, data in stream.pieces:
            yield moment, put(side, TcpSegment(at[side], at[1 - side], 0, data, 0, moment))
            at[side] += len(data)
        for side in (0, 1):
            yield last, put(side, TcpSegment(at[side], 0, FIN, b"", 0, last))

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
                while line := process.stdout.readline(MAX_LINE):
                    self._left -= len(line)
                    if self._left < 0:
                        raise DecryptionError(f"more than {MAX_BYTES} bytes from {PROGRAM}: the rest was not decrypted")
                    yield line.decode("utf-8", "replace")
                code = process.wait()
            finally:
                timer.cancel()
                process.kill()
            if late.is_set():
                raise DecryptionError(f"{PROGRAM} took longer than {TIMEOUT:g} s: what follows was not decrypted")
            if code:
                raise DecryptionError(f"{PROGRAM} failed (exit code {code}): {_last_line(complaints)}")


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
