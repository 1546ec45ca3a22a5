"""Exchanges from elsewhere written into a recording of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import sqlalchemy as sa

from captures.bodies import BodyFiles
from captures.database_url import Place
from captures.engines import reason
from captures.errors import StoreError
from captures.exchange import Body, Exchange
from captures.http_wire import BODY_ABSENT, MAC_LOST, Bodies, no_bodies
from captures.recording_folder import is_recording
from captures.store import Store

BATCH = 200  # exchanges committed at once


class StoreWriter:
    """Writes a new recording. Raises `StoreError` where there is one already, or none can be made."""

    def __init__(self, place: Place) -> None:
        if isinstance(place, Path) and is_recording(place):
            raise StoreError(place, "expected a new folder, found a recording")
        self._store = Store.create(place)
        if self._store.shared and not self._store.empty:
            self._store.close()
            raise StoreError(self._store.name, "expected an empty database, found a recording")
        self._waiting: list[Exchange] = []

    @classmethod
    def create(cls, path: Place) -> Self:
        """The same, under the name that every writer's maker has."""
        return cls(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, exchange: Exchange, bodies: Bodies = no_bodies) -> tuple[str, ...]:
        """Write one exchange and its bodies; returns what could not be kept. Raises `StoreError`, `OSError`."""
        messages = (exchange.request, exchange.response, exchange.rewritten_request, exchange.rewritten_response)
        kept = [_keep(self._store.bodies, message.body, bodies) for message in messages if message is not None]
        self._waiting.append(exchange)
        if len(self._waiting) >= BATCH:
            self._commit()
        return (BODY_ABSENT,) * kept.count(False) + (MAC_LOST,) * bool(exchange.client_mac)

    def close(self) -> None:
        """Commit the rest and let go."""
        try:
            self._commit()
        finally:
            self._store.close()

    def _commit(self) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            try:
                self._store.add(waiting)
            except sa.exc.SQLAlchemyError as error:
                raise StoreError(self._store.name, f"cannot record here: {reason(error)}") from error


def _keep(files: BodyFiles, body: Body, bodies: Bodies) -> bool:
    """Put the decoded and the encoded form of a body where it belongs; False if the decoded one is not to be had."""
    if not body.sha256:
        return False
    if not body.size and not body.encoded_size:
        return True
    kept = _put(files, body.sha256, body.data, bodies)
    if body.encoded_sha256:
        _put(files, body.encoded_sha256, body.encoded, bodies)
    return kept


def _put(files: BodyFiles, sha256: str, data: bytes | None, bodies: Bodies) -> bool:
    if files.has(sha256):
        return True
    if data is not None:
        files.put(sha256, data)
        return True
    pieces = bodies(sha256)
    if pieces is None:
        return False
    with files.incoming() as incoming:
        for piece in pieces:
            incoming.file.write(piece)
        incoming.keep(sha256)
    return True
