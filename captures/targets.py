"""Exchanges out: the kinds of file they can be written to, and how a file's name tells its kind."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import NamedTuple, Protocol, Self, cast

from captures.bodies import BodyFiles
from captures.database_url import DatabaseUrl, Place
from captures.exchange import Exchange
from captures.http_wire import Bodies


class Writer(Protocol):
    """What writes exchanges."""

    def write(self, exchange: Exchange, bodies: Bodies = ...) -> tuple[str, ...]:
        """Write one exchange; returns what of it could not be kept, in words that are counted."""

    def close(self) -> None:
        """End the file."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(self, *_: object) -> None:
        """Close it."""


class Target(NamedTuple):
    """One kind of output: the endings its files have, and its writer's module and class."""

    suffixes: tuple[str, ...]
    module: str
    writer: str
    folder: bool = False


TARGETS: dict[str, Target] = {
    "pcap": Target((".pcap", ".pcapng", ".ntar"), "captures.pcap_writer", "PcapWriter"),
    "mitm": Target((".mitm", ".flow", ".flows", ".dump"), "captures.flow_file", "FlowFileWriter"),
    "har": Target((".har",), "captures.har_writer", "HarWriter"),
    "store": Target(("",), "captures.store_writer", "StoreWriter", folder=True),
}


def kind_of(path: Place) -> str | None:
    """The kind of output that a name asks for."""
    if isinstance(path, DatabaseUrl):
        return "store"
    suffix = path.suffix.lower()
    return next((kind for kind, target in TARGETS.items() if suffix in target.suffixes), None)


def create_writer(kind: str, path: Place, **options: str) -> Writer:
    """A writer of this kind. Raises `OSError` and `captures.errors.CaptureError`."""
    target = TARGETS[kind]
    return cast(Writer, getattr(importlib.import_module(target.module), target.writer).create(path, **options))


def kept_in(*folders: BodyFiles) -> Bodies:
    """The bodies that are kept in these folders."""

    def bodies(sha256: str) -> Iterable[bytes] | None:
        return next((files.chunks(sha256) for files in folders if files.has(sha256)), None)

    return bodies
