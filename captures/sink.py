"""What a recording is written to: the interface, without the databases behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from captures.bodies import BodyFiles
from captures.exchange import Exchange
from captures.retention import Keep

RETRY_AFTER = 1.0  # seconds between looks at what waits

Lose = Callable[[str], None]  # counts what was lost by its cause


class Reservation(NamedTuple):
    """An offer that is about to be made to a phone; `at` is microseconds since 1970, UTC."""

    identity: str
    rule: str
    path: str
    at: int


class Question(NamedTuple):
    """Something that is asked about what is recorded, by its name; `tidy` has what is too old or too much removed."""

    name: str
    about: Any = None


class Item(NamedTuple):
    """One of these, under the uid of its exchange: an exchange; the beginning of a download, as plain JSON values; an
    offer that is about to be made; a question."""

    uid: str = ""
    exchange: Exchange | None = None
    fetch: Mapping[str, Any] | None = None
    reservation: Reservation | None = None
    question: Question | None = None


class Result(NamedTuple):
    """Whether an item can no longer be lost, or was answered; `value` is the answer, or why there is none."""

    done: bool
    value: Any = None


class Sink(Protocol):
    """What takes items in their order. All of it is for the recording's own thread."""

    journal_failed: bool
    bodies: BodyFiles

    @property
    def behind(self) -> str:
        """Why what has happened is not all in the store; blank where it is."""

    @property
    def spooled(self) -> int:
        """Bytes on this machine that the store has yet to take."""

    @property
    def waiting(self) -> bool:
        """Whether something waits to be written."""

    def start(self) -> None:
        """Make up for what the process before left undone."""

    def write(self, batch: Sequence[Item]) -> list[Result]:
        """Write and answer these."""

    @property
    def tidying(self) -> bool:
        """Whether there is something to be removed: `go_on` may be called at once."""

    def go_on(self) -> None:
        """Write what waits, and remove a little; after every `write`, and every second while something waits."""

    def tidy(self, keep: Keep) -> None:
        """Have what is too old or too much removed, now and whenever it is far too much; every now and then."""

    def close(self) -> None:
        """Let go."""
