"""Exchanges for people: a row each as it comes, since a capture may be long, and below it what it means and lacks.

On a terminal in colours, with long targets shortened and everything else wrapped; in a pipe plain, whole and aligned,
so that `grep`, `cut` and `sort` can be used on it.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable
from datetime import date, datetime
from typing import TextIO

from captures.exchange import Exchange
from captures.items import DECRYPTED, CaptureSummary, Item, JoinedObject, Observation
from tools.fact_words import words

HTTPS_PORT = ":443"
UNKNOWN = "0.0.0.0:"  # archives do not tell the client
NARROWEST = 24  # columns of a target on a terminal, however narrow that is
SHOWN_FIRST = ("exchanges", "exchanges incomplete", "observations")
INDENT = " " * 7
TITLES = ("#", "time", "client", "method", "status", "size", "target")
RIGHT = (0, 4, 5)
_PLURAL = re.compile(r"([a-z]{3,})s\b")
STYLES = ("dim", "bold", "green", "cyan", "yellow", "red")


class Lines:
    """Writes to a text stream."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._width = 0
        self._styles: dict[str, tuple[str, str]] = {}
        if self._terminal:
            from rich.console import Console  # noqa: PLC0415 - not needed in a pipe

            console = Console(file=out, highlight=False)
            self._width = console.width
            self._styles = {style: _codes(console, style) for style in STYLES}
        # The last column takes the rest; the others widen where something longer comes.
        self._widths = [4, 12 if self._terminal else 23, 21, 6, 6, 9]
        self._capture: str | None = None
        self._date: date | None = None

    def show(self, item: Item) -> None:
        """One item."""
        if isinstance(item, CaptureSummary):
            self._summary(item)
            return
        self._begin(item.capture)
        problems = item.problems
        if isinstance(item, Exchange):
            problems = self._exchange(item)
        elif isinstance(item, Observation):
            self._observation(item)
        else:
            self._object(item)
        self._below(problems, "! ", "yellow")

    def _begin(self, capture: str) -> None:
        if capture != self._capture:
            self._capture, self._date = capture, None
            self._row(TITLES, "dim")

    def _exchange(self, exchange: Exchange) -> tuple[str, ...]:
        """The row; returns the problems that are left to tell."""
        request, response = exchange.request, exchange.response
        problems = exchange.problems
        secure = exchange.server.endswith(HTTPS_PORT) or DECRYPTED in exchange.facts
        if not problems and (response is None or not exchange.complete):
            problems = ("no answer",) if response is None else ("not seen to its end",)
        target = request.target
        if target.startswith("/"):
            target = f"{'https://' if secure else ''}{request.host or exchange.server}{target}"
        status, size, style = "-", "-", "red"
        if response is not None:
            status, size = str(response.status), str(response.body.size)
            style = "green" if response.status < 300 else "yellow" if response.status < 400 else "red"
        asked = request.method or "-"
        time = self._time(exchange.started)
        client = "-" if exchange.client.startswith(UNKNOWN) else exchange.client
        self._row((str(exchange.index), time, client, asked, status, size, target or "-"), style)
        if response is not None and response.interim:
            self._below([f"after {code} {reason}".rstrip() for code, reason, _ in response.interim[:3]], "", "dim")
        told = "; ".join(filter(None, map(words, exchange.facts)))
        self._below([told] if told else (), "", "cyan")
        return problems

    def _observation(self, observation: Observation) -> None:
        told = "; ".join(filter(None, map(words, observation.facts)))
        protocol, _, rest = told.partition(" ")
        self._row(("", self._time(observation.time), observation.client, protocol or "-", "", "", rest or "-"), "cyan")

    def _object(self, found: JoinedObject) -> None:
        parts = f"joined from exchange{'s' if len(found.exchanges) > 1 else ''} {_ranges(found.exchanges)}"
        self._row(("", "", parts, "", "", str(found.size), f"{found.host}{found.target}"), "bold")
        if found.complete:
            self._below([f"complete: sha256 {found.sha256}", f"sha1 {found.sha1}"], "", "green")
        else:
            absent = sum(last - first + 1 for first, last in found.missing)
            self._below([f"{absent} bytes missing, in {len(found.missing)} stretches"], "! ", "yellow")

    def _summary(self, summary: CaptureSummary) -> None:
        counts = {name: count for name, count in summary.counts.items() if count}
        first = [name for name in SHOWN_FIRST if name in counts]
        told = ", ".join(_counted(counts[name], name) for name in (*first, *sorted(counts.keys() - set(first))))
        self._line(f"{summary.capture}: {summary.format}: {told or 'nothing in it'}", "bold")
        hidden = counts.get("TLS connections", 0) - counts.get("TLS connections decrypted", 0)
        if hidden > 0:
            self._below([f"{_counted(hidden, 'TLS connections')} not decrypted (--keylog or --tls-key)"], "", "dim")
        self._below(summary.problems, "! ", "red" if summary.partial else "yellow")
        self._capture = None

    def _time(self, moment: datetime) -> str:
        """The time of day on a terminal, where the date stands on a line of its own."""
        if not self._terminal:
            return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
        if moment.date() != self._date:
            self._date = moment.date()
            self._line(f"{moment:%A, %Y-%m-%d} UTC", "dim")
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"

    def _row(self, cells: tuple[str, ...], style: str) -> None:
        shown = []
        for number, cell in enumerate(cells[:-1]):
            # What stands over several columns, such as the words on an object, takes their room.
            self._widths[number] = max(self._widths[number], len(cell) if cells[1] else 0)
            width = self._widths[number]
            shown.append(cell.rjust(width) if number in RIGHT else cell.ljust(width))
        if not cells[1]:
            room = sum(self._widths[1:5]) + 8
            shown[1:5] = [cells[2].ljust(room - 2)]
        line = "  ".join(shown) + "  "
        last = cells[-1]
        if self._terminal:
            last = _shortened(last, max(self._width - len(line), NARROWEST))
        self._line((line + last).rstrip(), style)

    def _below(self, texts: Iterable[str], mark: str, style: str) -> None:
        """Lines that belong to the row before."""
        for text in texts:
            if self._width:
                wrapped = textwrap.wrap(text, max(self._width - len(INDENT + mark), NARROWEST)) or [""]
                below = f"\n{INDENT}{' ' * len(mark)}".join(map(printable, wrapped))
                self._styled(INDENT + mark + below, style)
            else:
                self._line(INDENT + mark + text, style)

    def _line(self, text: str, style: str) -> None:
        self._styled(printable(text), style)

    def _styled(self, text: str, style: str) -> None:
        before, behind = self._styles.get(style, ("", ""))
        self._out.write(f"{before}{text}{behind}\n")


def printable(text: str) -> str:
    """Text that cannot steer a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def _codes(console: object, style: str) -> tuple[str, str]:
    """What switches a style on and off on this terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    assert isinstance(console, Console)  # noqa: S101 - typed for callers that do not load it
    with console.capture() as captured:
        console.print(Text("x", style=style), end="")
    before, _, behind = captured.get().partition("x")
    return before, behind


def _shortened(text: str, width: int) -> str:
    """A text with its middle left out, for its ends say most: the host and the file."""
    if len(text) <= width:
        return text
    start = (width - 1) // 3
    return f"{text[:start]}…{text[len(text) - (width - 1 - start) :]}"


def _counted(count: int, name: str) -> str:
    if count != 1:
        return f"{count} {name}"
    return "1 " + _PLURAL.sub(r"\1", name, count=1).replace(" that are ", " that is ")


def _ranges(numbers: tuple[int, ...]) -> str:
    """Numbers in order, neighbours as a range."""
    out = io.StringIO()
    last = None
    for place, number in enumerate(numbers):
        following = numbers[place + 1] if place + 1 < len(numbers) else None
        if last is not None and number == last + 1:
            if following != number + 1:
                out.write(f"-{number}")
        else:
            out.write(f"{', ' if place else ''}{number}")
        last = number
    return out.getvalue()
