"""Show the whole story: phones stuck on 1.0.522.73 are given their interim firmware through upshim.

Example:
  upshim demo --keep story --json

An emulated update server, emulated phones and a real `upshim proxy` process talk over sockets on 127.0.0.1. First the
proxy only observes; then rules come into force. The exit code is 0 where the story ended well.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tools.demo_story import Story, StoryFailed, Tale
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput
from tools.options import above_zero
from tools.ucphone.events import PhoneEvent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the recording here (default: a new folder)")
    parser.add_argument(
        "--fix", choices=("report", "offer"), default="report",
        help="report the zero version to the server, or put the offer into its answer (default report)",
    )  # fmt: skip
    parser.add_argument("--firmware-size", type=int, default=4 << 20, metavar="BYTES", help="size of each image")
    parser.add_argument(
        "--poll-scale", type=float, default=75.0, metavar="S", help="the phones' clocks run S times faster"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Tell the story."""
    if args.firmware_size < 1:
        raise UnusableInput(f"--firmware-size: expected 1 or more, found {args.firmware_size}")
    scale = above_zero("--poll-scale", args.poll_scale)
    folder = args.keep or Path(tempfile.mkdtemp(prefix="upshim-demo-"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UnusableInput(f"--keep: {folder}: expected an empty or new folder")
    except OSError as error:
        raise UnusableInput(f"--keep: {folder}: {error.strerror}") from error
    tale = JsonTale() if args.json else TextTale()
    story = Story(folder, args.fix, args.firmware_size, scale, tale)
    try:
        story.tell()
    except StoryFailed as failure:
        tale.end(story, str(failure))
        return EXIT_PROBLEM
    tale.end(story, None)
    return EXIT_OK


def own_name() -> str:
    """How this command was called, so that what is shown can be pasted."""
    called = Path(sys.argv[0])
    return os.path.relpath(called) if called.name == "upshim" else "python -m tools"


def same_again(event: PhoneEvent) -> tuple[str, ...]:
    """What makes an event of a crash loop the same as the one before."""
    return event.phone, event.data["version"], event.kind, event.text


class JsonTale(Tale):
    """The story as JSON Lines: `event` and `act` objects, a `demo` object at the end."""

    def act(self, title: str) -> None:
        """A new act begins."""
        print(json.dumps({"kind": "act", "title": title}), flush=True)

    def event(self, event: PhoneEvent) -> None:
        """Something happened."""
        print(json.dumps({"kind": "event", **event.to_json()}), flush=True)

    def end(self, story: Story, failure: str | None) -> None:
        """How it ended."""
        shown = {
            "kind": "demo",
            "ok": failure is None,
            "failure": failure,
            "recording": str(story.recording),
            "pcap": str(story.pcap),
            "exchanges": story.exchanges,
            "phones": {phone.identity.name: str(phone.version) for phone in story.phones},
        }
        print(json.dumps(shown), flush=True)


class TextTale(Tale):
    """The story for people: lines as it goes, a timeline and what to run next at the end."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only people need it

        self._console = Console(highlight=False, soft_wrap=True)
        if not self._console.is_terminal:
            self._console.width = 120

    def act(self, title: str) -> None:
        """A new act begins."""
        self._console.print(f"\n[bold]{title}[/bold]")

    def event(self, event: PhoneEvent) -> None:
        """Something happened."""
        self._console.print(f"  {event.phone}  {event.kind:10} {event.text}", markup=False)

    def end(self, story: Story, failure: str | None) -> None:
        """How it ended."""
        from rich.table import Table  # noqa: PLC0415

        table = Table(title="What happened", title_justify="left", box=None, padding=(0, 2, 0, 0))
        for column in ("second", "phone", "runs", "event", "times", ""):
            table.add_column(column, no_wrap=column != "")
        events = [event for event in story.log.events if event.kind in story.TURNING_POINTS]
        repeated = Counter(map(same_again, events))
        first = {same_again(event): event for event in reversed(events)}
        for event in sorted(first.values(), key=lambda event: event.time):
            second = f"{(event.time - events[0].time).total_seconds():.1f}"
            times = str(repeated[same_again(event)])
            table.add_row(second, event.phone, event.data["version"], str(event.kind), times, event.text)
        self._console.print()
        self._console.print(table)
        self._console.print()
        if failure is not None:
            self._console.print(f"[bold red]The story did not end well:[/bold red] {failure}")
        else:
            self._console.print(f"It ended well: {story.outcome}")
        self._console.print(f"The recording: {story.recording} ({story.exchanges} exchanges)", markup=False)
        self._console.print(f"The phones' side as packets: {story.pcap}", markup=False)
        self._console.print("\nGo on with:")
        for words in (f"exchanges {story.recording}", f"exchanges --json {story.pcap}"):
            self._console.print(f"  {own_name()} {words}", markup=False)
