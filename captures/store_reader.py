"""A recording as a capture: its exchanges with their bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import sqlalchemy as sa

from captures.bodies import BodyFiles
from captures.database_url import Place
from captures.engines import reason
from captures.errors import StoreError
from captures.exchange import Body, Exchange, bodies_of
from captures.items import CaptureSummary
from captures.read_options import ReadOptions
from captures.recording_folder import DATABASE
from captures.store import Store


def read(place: Place, options: ReadOptions) -> Iterator[Exchange | CaptureSummary]:
    """A recording as a capture (captures/sources.py). Raises `StoreError`."""
    store = Store.open(place.parent if isinstance(place, Path) and place.name == DATABASE else place)
    count = 0
    try:
        for exchange in store.exchanges():
            count += 1
            if options.bodies is not None:
                copy_bodies(store.bodies, options.bodies, exchange)
            yield with_bodies(exchange, store.bodies, options.hold)
    finally:
        store.close()
    yield CaptureSummary(str(place), "recording", Counter(exchanges=count))


def with_bodies(exchange: Exchange, kept: BodyFiles, hold: int) -> Exchange:
    """The exchange holding its bodies of up to `hold` bytes, as far as they were kept. Raises `StoreError`."""
    asked, sent = exchange.request, exchange.rewritten_request
    answered, given = exchange.response, exchange.rewritten_response
    return replace(
        exchange,
        request=replace(asked, body=_held(asked.body, kept, hold)),
        response=answered and replace(answered, body=_held(answered.body, kept, hold)),
        rewritten_request=sent and replace(sent, body=_held(sent.body, kept, hold)),
        rewritten_response=given and replace(given, body=_held(given.body, kept, hold)),
    )


def _held(body: Body, kept: BodyFiles, hold: int) -> Body:
    def read_body(sha256: str | None, size: int) -> bytes | None:
        try:
            return b"".join(kept.chunks(sha256)) if sha256 and 0 < size <= hold else None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(kept.path(sha256 or ""), error) from error
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(f"body {sha256}", reason(error)) from error

    data = read_body(body.sha256, body.size) if body.size or not body.sha256 else b""
    return replace(body, data=data, encoded=read_body(body.encoded_sha256, body.encoded_size))


def copy_bodies(kept: BodyFiles, wanted: BodyFiles, exchange: Exchange) -> None:
    """Copy what was kept of the bodies of an exchange. Raises `StoreError`."""
    try:
        for body in bodies_of(exchange):
            if body.size and not wanted.has(body.sha256) and kept.has(body.sha256):
                with wanted.incoming() as incoming:
                    incoming.file.writelines(kept.chunks(body.sha256))
                    incoming.keep(body.sha256)
    except OSError as error:
        raise StoreError(wanted.folder, error) from error
    except sa.exc.SQLAlchemyError as error:
        raise StoreError("bodies of the recording", reason(error)) from error
