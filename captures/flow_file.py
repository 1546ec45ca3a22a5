"""mitmproxy flow files (`mitmdump -w`, usually `.mitm`): read with mitmproxy's own reader, and written.

Files of older versions are converted by mitmproxy; a flow that it refuses is named, and reading goes on behind it. Each
record is checked first (captures/tnetstrings.py). A file is gone through twice, for a flow may be in it more than once:
mitmdump 12 writes one again whose streamed request ended after its answer. The last copy is the one that is whole.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import uuid
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
from captures.tnetstrings import Record, flow_id, read_records
from dissectors.errors import DissectError

FORMAT = "mitmproxy flow file"
MAX_FLOWS = 1 << 20  # flows whose ids are remembered


def read(path: Path, _options: object = None) -> Iterator[Exchange | CaptureSummary]:
    """The HTTP flows of a file as exchanges, then what else there was. Raises `CaptureError`."""
    counts: Counter[str] = Counter()
    problems: list[str] = []
    damaged = False
    try:
        earlier = _earlier_copies(path)
        with _opened(path) as file:
            for record in read_records(file):
                name = hash(flow_id(record))
                if earlier[name]:
                    earlier[name] -= 1
                    counts["flows written again"] += 1
                    continue
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
        self._written = 0

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
        # Two flows of one id would be taken for copies of one.
        one.id = str(uuid.uuid5(uuid.UUID(one.id), str(self._written)))
        self._written += 1
        self._writer.add(one)
        return notes

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()


class Refused(Exception):
    """A flow that cannot be read, in mitmproxy's words or ours."""


def _earlier_copies(path: Path) -> Counter[int]:
    """How many copies of a flow come before its last one, by a hash of its id. Raises `OSError`."""
    seen: set[int] = set()
    earlier: Counter[int] = Counter()
    # What else is wrong with the file is found again, and told, when it is read.
    with contextlib.suppress(DissectError, EOFError, zlib.error, gzip.BadGzipFile), _opened(path) as file:
        for record in read_records(file):
            found = flow_id(record)
            name = hash(found)
            if name in seen:
                earlier[name] += 1
            elif found is not None and len(seen) < MAX_FLOWS:
                seen.add(name)
    return earlier


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
