"""A recording as a capture: its exchanges with their bodies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa

from captures.bodies import BodyFiles
from captures.body_reader import BodyReader, Keeping
from captures.content import codings_of
from captures.database_url import Place
from captures.engines import reason
from captures.errors import StoreError
from captures.exchange import Body, Exchange, Request, Response, bodies_of
from captures.items import CaptureSummary
from captures.read_options import ReadOptions
from captures.recording_folder import BODIES, DATABASE
from captures.store import Store

TOLD = ("as it came", "not decoded")  # how problems say that a body could not be decoded

M = TypeVar("M", Request, Response)


def read(place: Place, options: ReadOptions) -> Iterator[Exchange | CaptureSummary]:
    """A recording as a capture (captures/sources.py). Raises `StoreError`."""
    store = Store.open(place.parent if isinstance(place, Path) and place.name == DATABASE else place)
    count = 0
    try:
        absent = AbsentBodies(store)
        for exchange in store.exchanges():
            count += 1
            absent.look(exchange)
            whole = with_codings_undone(with_bodies(exchange, store.bodies, options.hold), store.bodies, options)
            if options.bodies is not None:
                copy_bodies(store.bodies, options.bodies, whole)
            yield whole
        problems = absent.problems()
    finally:
        store.close()
    counts = Counter(exchanges=count)
    yield CaptureSummary(str(place), "recording", counts, problems, partial=bool(problems))


class AbsentBodies:
    """Finds exchanges whose bodies were kept and are not there any more.

    Of a folder only: a database leaves large ones with the shim that saw them. Raises `StoreError`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._since = 0 if store.shared else self._number(store.bodies_since)
        self._there: set[str] = set()
        self._lacking: list[int] = []  # exchanges

    def look(self, exchange: Exchange) -> None:
        """Look for the files of one exchange."""
        if not self._since or exchange.index < self._since:
            return
        wanted = {body.sha256 for body in bodies_of(exchange) if body.size and body.sha256} - self._there
        found = {sha256 for sha256 in wanted if self._store.bodies.has(sha256)}
        self._there |= found
        if wanted != found:
            self._lacking.append(exchange.index)

    def problems(self) -> tuple[str, ...]:
        """What is lacking, in a line."""
        gone = self._number(self._store.expired_through) if self._lacking else 0  # removed while we were reading
        lacking = [index for index in self._lacking if index > gone]
        first = f", the first of them exchange {lacking[0]}" if len(lacking) > 1 else ""
        which = f"{len(lacking)} exchanges" if len(lacking) > 1 else f"exchange {lacking[0]}" if lacking else ""
        return (f"{BODIES}/ lacks bodies of {which}{first}",) if lacking else ()

    def _number(self, ask: Callable[[], int]) -> int:
        try:
            return ask()
        except sa.exc.SQLAlchemyError as error:
            raise StoreError(self._store.name, f"damaged recording: {reason(error)}") from error


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


def with_codings_undone(exchange: Exchange, kept: BodyFiles, options: ReadOptions) -> Exchange:
    """The exchange with its bodies as other captures have them: what streams by live is recorded as it came.

    Raises `StoreError`, and `OSError` where a decoded body cannot be kept.
    """
    messages = exchange.request, exchange.response, exchange.rewritten_request, exchange.rewritten_response
    if not any(message is not None and _is_coded(message) for message in messages):
        return exchange  # nearly all
    problems = list(exchange.problems)
    told = any(said in problem for problem in problems for said in TOLD)

    def undone(message: M, whose: str) -> M:
        if not _is_coded(message):
            return message
        found, complaints = _undone(message.body, codings_of(message.headers), kept, options)
        if not told:
            problems.extend(complaint + whose for complaint in complaints if complaint + whose not in problems)
        return replace(message, body=found)

    return replace(
        exchange,
        request=undone(exchange.request, " (request)"),
        response=exchange.response and undone(exchange.response, ""),
        rewritten_request=exchange.rewritten_request and undone(exchange.rewritten_request, " (request)"),
        rewritten_response=exchange.rewritten_response and undone(exchange.rewritten_response, ""),
        problems=tuple(problems),
    )


def _is_coded(message: Request | Response) -> bool:
    """Whether the body stands as it came, in codings."""
    return bool(message.body.size and message.body.as_it_came and codings_of(message.headers))


def _undone(body: Body, codings: tuple[str, ...], kept: BodyFiles, options: ReadOptions) -> tuple[Body, list[str]]:
    """The decoded body, and why it is still as it came."""
    if body.data is None and not kept.has(body.sha256):
        return body, []
    reader = BodyReader(codings, Keeping(options.hold, options.bodies))
    try:
        for piece in (body.data,) if body.data is not None else kept.chunks(body.sha256):
            reader.write(piece)
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(f"body {body.sha256}", reason(error)) from error
    return Body(*reader.finish()), reader.problems


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
