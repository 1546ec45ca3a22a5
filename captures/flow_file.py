"""mitmproxy flow files (`mitmdump -w`, usually `.mitm`): read with mitmproxy's own reader, and written.

Files of older versions are converted by mitmproxy; a flow that it refuses is named, and reading goes on behind it. Each
record is checked first (captures/tnetstrings.py).
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self, cast

from mitmproxy import exceptions, flow, http
from mitmproxy.io import FlowReader, FlowWriter

from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.flow_exchange import exchange_of, flow_of
from captures.http_wire import Bodies, no_bodies
from captures.items import CaptureSummary
from captures.private_file import private_file
from captures.tnetstrings import Record, read_records
from dissectors.errors import DissectError

FORMAT = "mitmproxy flow file"


def read(path: Path, _options: object = None) -> Iterator[Exchange | CaptureSummary]:
    """The HTTP flows of a file as exchanges, then what else there was. Raises `CaptureError`."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    damaged = False
    try:
        with _opened(path) as file:
            for record in read_records(file):
                try:
                    found = _read_flow(record, str(path), counts["exchanges"])
                except Refused as error:
                    counts["refused"] += 1
                    problems.append(f"flow at offset {record.offset}: {error}")
                    continue
                if isinstance(found, Exchange):
                    counts["exchanges"] += 1
                    yield found
                else:
                    counts[f"{found.type} flows"] += 1
    except (DissectError, OSError, EOFError, zlib.error) as error:
        damaged = True
        problems.append(str(error))
    if problems and not counts - Counter(refused=counts["refused"]):
        raise CaptureError(path, problems[0])
    problems += [f"{number} {kind}, which are not HTTP" for kind, number in counts.items() if kind.endswith(" flows")]
    partial = damaged or bool(counts["refused"])
    yield CaptureSummary(str(path), FORMAT, counts, tuple(problems), damaged, partial)


class FlowFileWriter:
    """Writes exchanges as flows that mitmproxy 11 and 12 open."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._writer = FlowWriter(stream)

    @classmethod
    def create(cls, path: Path) -> Self:
        """A writer into a new file that only its owner can read."""
        return cls(private_file(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, exchange: Exchange, bodies: Bodies = no_bodies) -> tuple[str, ...]:
        """Write one exchange; returns what could not be kept."""
        one, notes = flow_of(exchange, bodies)
        self._writer.add(one)
        return notes

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class Refused(Exception):
    """A flow that cannot be read, in mitmproxy's words or ours."""


def _read_flow(record: Record, capture: str, index: int) -> Exchange | flow.Flow:
    if record.refused:
        raise Refused(record.refused)
    try:
        (one,) = FlowReader(io.BytesIO(record.data)).stream()
        return exchange_of(one, capture, index) if isinstance(one, http.HTTPFlow) else one
    except exceptions.FlowReadException as error:
        raise Refused(str(error)) from error
    except Exception as error:  # mitmproxy's converters index into whatever the file holds
        raise Refused(f"no flow that mitmproxy can read ({type(error).__name__}: {error})") from error


def _opened(path: Path) -> BinaryIO:
    file = path.open("rb")
    if file.peek(2)[:2] != b"\x1f\x8b":
        return file
    file.close()
    return cast(BinaryIO, gzip.open(path))
