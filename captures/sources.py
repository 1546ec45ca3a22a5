"""Any capture in, exchanges out: chooses the reader by what a file holds, never by its name.

A kind of capture is one line in `SOURCES`. Its reader is imported only when a file of its kind comes, and is a module
with `read(path, options) -> Iterator[Item]`, which raises `CaptureError` where nothing of the file can be read; damage
further in ends the reading with a `CaptureSummary` that names it.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from captures import har_json, tnetstrings
from captures.bodies import BodyFiles
from captures.database_url import DatabaseUrl, Place
from captures.errors import CaptureError
from captures.exchange import Exchange, Fact, bodies_of
from captures.items import DECRYPTED, Item
from captures.read_options import ReadOptions
from captures.recording_folder import is_recording

HEAD = 4096  # bytes a kind is told by


class Source(NamedTuple):
    """One kind of capture: its name, how to tell it, and the module that reads it."""

    name: str
    sniff: Callable[[bytes, Path], bool]  # (first bytes, gzip undone; path) -> is it this kind?
    module: str


class Reader(Protocol):
    """What a reader's module holds."""

    def read(self, path: Any, options: ReadOptions) -> Iterator[Item]:
        """The exchanges of one file in the order they began, with what was seen beside them, then the objects joined
        from them, then the summary.
        """


PACKET_FILES = (
    *(b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d"),  # pcap: micro, nano
    *(b"\x34\xcd\xb2\xa1", b"\xa1\xb2\xcd\x34"),  # pcap as patched by Kuznetzov
    b"\x0a\x0d\x0d\x0a",  # pcapng
    b"snoop\0\0\0",
)

SOURCES: tuple[Source, ...] = (
    Source("packet capture", lambda head, _path: head.startswith(PACKET_FILES), "captures.packets"),
    Source("recording", lambda _head, path: is_recording(path), "captures.store_reader"),
    Source("mitmproxy flow file", tnetstrings.sniff, "captures.flow_file"),
    Source("HTTP archive", har_json.sniff, "captures.har"),
)


_BARE = ((), (DECRYPTED,))  # the facts of an exchange that nobody has read yet


def read_exchanges(
    path: Place,
    options: ReadOptions | None = None,
    facts_of: Callable[[Exchange], tuple[Fact, ...]] | None = None,
) -> Iterator[Item]:
    """Everything a capture holds, with facts. Raises `CaptureError` where it is no capture, or not to be read, and
    `OSError` where a body cannot be kept.
    """
    options = options or ReadOptions()
    for item in reader_of(path).read(path, options):
        if options.bodies is not None and isinstance(item, Exchange):
            _keep_held(options.bodies, item)
        if facts_of is not None and isinstance(item, Exchange) and item.facts in _BARE:
            # Its reader has let go of it, and nobody else has it yet: a copy would take longer than its facts.
            object.__setattr__(item, "facts", (*item.facts, *facts_of(item)))
        yield item


def _keep_held(files: BodyFiles, exchange: Exchange) -> None:
    """Keep the bodies that an exchange holds; readers that see them pass have done so."""
    for body in bodies_of(exchange):
        if body.data and not files.has(body.sha256):
            files.put(body.sha256, body.data)


def reader_of(path: Place) -> Reader:
    """The reader for this file. Raises `CaptureError`."""
    if isinstance(path, DatabaseUrl):
        return cast(Reader, importlib.import_module("captures.store_reader"))
    head = first_bytes(path)
    for source in SOURCES:
        try:
            is_it = source.sniff(head, path)
        except OSError as error:  # a folder that may not be looked into
            raise CaptureError(path, error) from error
        if is_it:
            return cast(Reader, importlib.import_module(source.module))
    kinds = ", ".join(source.name for source in SOURCES)
    found = repr(head[:8]) if head else "a directory" if path.is_dir() else "an empty file"
    raise CaptureError(path, f"at offset 0: expected {kinds}, found {found}")


def first_bytes(path: Path) -> bytes:
    """The first bytes of a file, gzip undone; nothing for a directory. Raises `CaptureError`."""
    try:
        if path.is_dir():
            return b""
        if path.is_fifo():  # it would be read more than once
            raise CaptureError(path, "expected a file, found a pipe")
        with path.open("rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        raise CaptureError(path, error) from error
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return head
