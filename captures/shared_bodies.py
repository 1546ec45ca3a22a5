"""Bodies of a recording in PostgreSQL: small ones are rows, large ones stay with the shim that saw them.

What tells why a phone does not upgrade is small: update checks, answers, catalogs, short logs. A firmware image is
20 MiB and more, the same for all phones, and on the update server anyway: in the database it would be most of every
backup. Its size and sha256 are recorded; its bytes are a file with each shim that saw it pass, and absent elsewhere.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa

from captures.bodies import BodyFiles, is_name
from captures.engines import upsert
from captures.schema import BODIES, BODY_USES

SMALL = 1 << 20  # bytes of a body that goes into the database

_PUT = upsert(BODIES, "touched")


class SharedBodies(BodyFiles):
    """Bodies in a database, with the files of this machine beside it. Raises `SQLAlchemyError` beside `OSError`."""

    def __init__(self, folder: Path, engine: sa.Engine) -> None:
        super().__init__(folder)
        self._engine = engine

    def put(self, sha256: str, data: bytes) -> None:
        """Keep a body held in memory."""
        if len(data) > SMALL:
            super().put(sha256, data)
            return
        with self._engine.begin() as connection:
            self.put_rows(connection, {sha256: data})

    def put_rows(self, connection: sa.Connection, bodies: Mapping[str, bytes]) -> None:
        """Keep small bodies within the caller's transaction."""
        touched = int(datetime.now(UTC).timestamp() * 1_000_000)
        # In one order, for other shims may be at the same bodies.
        _PUT.run_each(connection, [(sha256, touched, data) for sha256, data in sorted(bodies.items())])

    def put_aside(self, sha256: str, data: bytes) -> None:
        """Keep a body on this machine until the database is back."""
        super().put(sha256, data)

    def taken(self, sha256: str) -> None:
        """A body that came in pieces goes into the database if it is small; where that is away, later."""
        try:
            self.hand_over(sha256)
        except sa.exc.SQLAlchemyError:
            return

    def hand_over(self, sha256: str) -> None:
        """Bring a small body of this machine into the database."""
        path = self.path(sha256)
        if path.stat().st_size <= SMALL:
            self.put(sha256, path.read_bytes())
            path.unlink()

    def hand_over_all(self) -> None:
        """Bring everything small into the database that had to wait for it."""
        for path in self.folder.iterdir():
            if len(path.name) == 64 and path.stat().st_size <= SMALL:
                self.hand_over(path.name)

    def has(self, sha256: str) -> bool:
        """Whether this body was kept, in the database or here."""
        return super().has(sha256) or self._row(sha256) is not None

    def chunks(self, sha256: str) -> Iterator[bytes]:
        """A body in pieces. Raises `FileNotFoundError` where it was not kept, or by another shim."""
        data = None if super().has(sha256) else self._row(sha256)
        if data is None:
            yield from super().chunks(sha256)
        else:
            yield data

    def remove_stale_rows(self, before: float) -> tuple[int, int]:
        """Remove bodies of the database that nobody needs, as `remove_stale` does files; count and bytes."""
        stale = sa.and_(
            BODIES.c.touched < int(before * 1_000_000),
            BODIES.c.sha256.not_in(sa.select(BODY_USES.c.sha256)),
        )
        with self._engine.begin() as connection:
            gone = BODIES.delete().where(stale).returning(sa.func.length(BODIES.c.data))
            sizes = list(connection.execute(gone).scalars())
        return len(sizes), sum(sizes)

    def unneeded(self, needed: Container[str]) -> int:
        """How many bodies no exchange needs, or not yet."""
        waiting = sa.select(sa.func.count()).where(BODIES.c.sha256.not_in(sa.select(BODY_USES.c.sha256)))
        with self._engine.connect() as connection:
            return super().unneeded(needed) + int(connection.execute(waiting).scalar_one())

    def _row(self, sha256: str) -> bytes | None:
        if not is_name(sha256):
            return None
        with self._engine.connect() as connection:
            found = connection.execute(sa.select(BODIES.c.data).where(BODIES.c.sha256 == sha256)).scalar_one_or_none()
        return None if found is None else bytes(found)
