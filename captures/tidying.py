"""Removes what is too old or too much while a recording is being written, a step at a time between batches.

A look is due when the clock says so (`BaseRecording`), and as soon as a share of what may be kept has been written
since the last one. The former counts all that is kept, which of a large recording takes seconds, the latter what has
come since; nobody who waits for an acknowledgement waits for more than a step of either.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from captures.engines import reason
from captures.errors import StoreError
from captures.journalling import Journal
from captures.retention import GRACE, SHARE, SMALLEST_SHARE, Keep, Taken
from captures.sink import Lose
from captures.store import STEP, Projection, Store

Opened = Callable[[], AbstractContextManager[tuple[Store, Journal]]]


class Tidier:
    """Tidies one store. For the thread that writes it."""

    def __init__(self, written: Callable[[], int], opened: Opened, projection: Projection | None, lose: Lose) -> None:
        """`written` tells the bytes recorded so far, `opened` gives what a look works on."""
        self._written = written
        self._opened = opened
        self._projection = projection
        self._lose = lose
        self._keep = Keep()
        self._asked = False
        self._since = 0  # bytes written when the last look began
        self._taken = Taken()
        self._came = 0  # items at once since the last steps
        self._swept: datetime | None = None
        self._steps: Generator[None, None, None] | None = None

    def ask(self, keep: Keep) -> None:
        """Have a look soon, and from now on by this."""
        self._keep = keep
        self._asked = True

    @property
    def under_way(self) -> bool:
        """Whether there is a step to be taken."""
        return self._steps is not None or self._asked or self._too_much()

    def wrote(self, items: int) -> None:
        """So many have come at once to be written."""
        self._came = items

    def go_on(self) -> None:
        """Take as many steps as it takes to keep up with what has come since the last time.

        What cannot be removed is told, and tried again at the next look.
        """
        for _ in range(1 + self._came * 3 // STEP):
            self._step()
        self._came = 0

    def _step(self) -> None:
        if self._steps is None:
            if not self.under_way:
                return
            self._steps = self._look()
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
        except (OSError, sa.exc.SQLAlchemyError, StoreError) as error:
            self._steps = None
            why = str(error) if isinstance(error, OSError) else reason(error)
            self._lose(f"the removal of old exchanges: {why}")

    def close(self) -> None:
        """Let go; what a look has not come to, the next start will."""
        if self._steps is not None:
            self._steps.close()
            self._steps = None

    def _too_much(self) -> bool:
        if self._keep.bytes is None:
            return False
        return self._written() - self._since > max(self._keep.bytes // SHARE, SMALLEST_SHARE)

    def _look(self) -> Generator[None, None, None]:
        asked, keep, now = self._asked, self._keep, datetime.now(UTC)
        self._asked, self._since = False, self._written()
        with self._opened() as (store, journal):
            if asked and self._projection is not None:
                with store.engine.begin() as connection:
                    self._projection.tidy(connection)
            if not keep:
                return
            if asked:
                self._taken = Taken()  # every now and then it is counted all the same
            steps = store.expire(keep.older_than(now), keep.bytes, self._taken)
            while True:
                with journal.file.locked():
                    gone = next(steps, None)
                    if gone is not None and gone.exchanges:
                        entry = {"entry": "expired", "through": gone.through, "exchanges": gone.exchanges}
                        journal.file.append([entry])
                if gone is None:
                    break
                yield
            # What a fresh exchange needed stays for the grace time, so that looking again any sooner finds little.
            if asked or self._swept is None or not timedelta(0) <= now - self._swept < GRACE:
                self._swept = now
                for _ in store.sweep_bodies(now):
                    yield
