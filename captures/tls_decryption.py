"""TLS with secrets: tshark decrypts, and the plain bytes go the same way as those of any other connection.

The secrets are a key log file, a secrets block inside of the capture, or an RSA key (for RSA key exchange); tshark
reads them where they are, and they are copied nowhere. Its output comes through a pipe. Streams, bytes and time are
bounded.
"""

from __future__ import annotations

import base64
import binascii
import shutil
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import IO, NamedTuple

from captures.tcp import FIN, SYN, Endpoints, TcpSegment, TcpTable

MAX_STREAMS = 200
MAX_BYTES = 128 << 20  # of tshark's output
MAX_LINE = 4096
TIMEOUT = 300.0  # seconds for one run

_FIELDS = ("tcp.stream", "ip.src", "ipv6.src", "tcp.srcport", "ip.dst", "ipv6.dst", "tcp.dstport")


class DecryptionError(Exception):
    """Why nothing, or not all, was decrypted: one line."""


class Piece(NamedTuple):
    """Plain bytes; `time` in nanoseconds since 1970, `peer` 0 for the side that spoke first."""

    peer: int
    time: int
    data: bytes


class Decryption:
    """The TLS streams of one capture. `connections` are the numbers under which they went into the table."""

    def __init__(self, capture: Path, keylog: Path | None, key: Path | None) -> None:
        self.connections: set[str] = set()
        self.waiting: list[tuple[int, tuple[bytes, bytes], TcpSegment, Endpoints]] = []  # to be put in order of time
        options: list[str] = []
        for file in (keylog, key):
            if file is not None and (not file.is_file() or any(char in str(file) for char in '"\\\n')):
                raise DecryptionError(f"{file}: expected a readable file of secrets, with a plain name")
        if keylog is not None:
            options += ["-o", f"tls.keylog_file:{keylog.absolute()}"]
        if key is not None:
            options += ["-o", f'uat:rsa_keys:"{key.absolute()}",""']
        program = shutil.which("tshark")
        if program is None:
            raise DecryptionError("tshark is not installed: TLS connections are not decrypted")
        self._command = [program, "-n", *options, "-r", str(capture.absolute())]

    def feed(self, table: TcpTable) -> None:
        """Put what can be decrypted into the table, as connections of their own. Raises `DecryptionError`."""
        streams = self._streams()
        wanted = list(streams)[:MAX_STREAMS]
        if wanted:
            follow = [word for number in wanted for word in ("-z", f"follow,tls,yaml,{number}")]
            # tshark prints its statistics in the opposite order.
            left = wanted[::-1]
            pieces: list[Piece] = []
            host, port = "", 0
            for line in self._run(["-q", *follow]):
                name, _, value = line.strip().lstrip("- ").partition(": ")
                if name == "peers:":
                    _feed(self, table, streams, left, host, port, pieces)
                    pieces, host, port = [], "", 0
                elif name == "host" and not host:
                    host = value
                elif name == "port" and not port:
                    port = int(value or 0)
                elif name == "peer" and line.startswith("    "):
                    pieces.append(Piece(int(value), 0, b""))
                elif name == "timestamp":
                    seconds, _, fraction = value.partition(".")
                    time = int(seconds) * 1_000_000_000 + int(fraction[:9].ljust(9, "0"))
                    pieces[-1] = pieces[-1]._replace(time=time)
                elif line.startswith("      ") and pieces:
                    with_more = pieces[-1].data + base64.b64decode(line, validate=False)
                    pieces[-1] = pieces[-1]._replace(data=with_more)
            _feed(self, table, streams, left, host, port, pieces)
            for _, keys, segment, ends in sorted(self.waiting, key=lambda one: one[0]):
                table.segment(keys, segment, lambda ends=ends: ends)  # type: ignore[misc]
        if len(streams) > MAX_STREAMS:
            raise DecryptionError(f"only the first {MAX_STREAMS} of {len(streams)} TLS connections were decrypted")

    def _streams(self) -> dict[int, Endpoints]:
        found: dict[int, Endpoints] = {}
        fields = [word for name in _FIELDS for word in ("-e", name)]
        for line in self._run(["-Y", "tls", "-T", "fields", "-E", "occurrence=f", *fields]):
            number, source, source6, sport, target, target6, dport = line.rstrip("\n").split("\t")
            if number and int(number) not in found:
                ends = ip_address(source or source6).packed, ip_address(target or target6).packed
                found[int(number)] = Endpoints(*ends, int(sport), int(dport), b"", ("", ""))
        return found

    def _run(self, arguments: list[str]) -> Iterator[str]:
        with subprocess.Popen(  # noqa: S603 - our own words, and names of files that exist
            [*self._command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            timer = threading.Timer(TIMEOUT, process.kill)
            timer.start()
            try:
                assert process.stdout is not None  # noqa: S101 - it is a pipe
                yield from _lines(process.stdout)
            except (ValueError, IndexError, binascii.Error) as error:
                raise DecryptionError(f"tshark's output cannot be read: {error}") from error
            finally:
                timer.cancel()
                process.kill()


def _lines(output: IO[bytes]) -> Iterator[str]:
    size = 0
    while line := output.readline(MAX_LINE):
        size += len(line)
        if size > MAX_BYTES:
            raise DecryptionError(f"more than {MAX_BYTES} bytes from tshark: the rest was not decrypted")
        yield line.decode("utf-8", "replace")


def _feed(  # one stream of tshark's, as far as it was decrypted
    decryption: Decryption,
    table: TcpTable,
    streams: dict[int, Endpoints],
    left: list[int],
    host: str,
    port: int,
    pieces: list[Piece],
) -> None:
    if not host:
        return
    number = left.pop(0)
    ends = streams[number]
    first = ip_address(host).packed, port
    if not pieces:
        return
    if first == (ends.target, ends.target_port):
        ends = Endpoints(ends.target, ends.source, ends.target_port, ends.source_port, b"", ("", ""))
    elif first != (ends.source, ends.source_port):
        raise DecryptionError(f"tshark's output cannot be read: stream {number} has no {host}:{port}")
    there, back = b"tls>%d" % number, b"tls<%d" % number
    keys = ((there, back), (back, there))
    at = [1, 1]
    for side in (0, 1):
        table.segment(keys[side], TcpSegment(0, 0, SYN, b"", 0, pieces[0].time), lambda: ends)
    decryption.connections.add(str(table.counts["TCP connections"]))
    for side, time, data in pieces:
        segment = TcpSegment(at[side], at[1 - side], 0, data, 0, time)
        decryption.waiting.append((time, keys[side], segment, ends))
        at[side] += len(data)
    for side in (0, 1):
        segment = TcpSegment(at[side], 0, FIN, b"", 0, pieces[-1].time)
        decryption.waiting.append((pieces[-1].time, keys[side], segment, ends))
