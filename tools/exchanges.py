"""List the HTTP exchanges of packet captures, flow files, HAR files and recordings, with what they mean.

Examples:
  upshim exchanges /var/lib/upshim/rec
  upshim exchanges --json capture.pcapng.gz | jq 'select(.problems != [])'
  upshim exchanges capture.pcap --extract bodies
  upshim exchanges --interface eth0 --seconds 60

DHCP, DNS and SIP messages stand between the exchanges as facts, in order of time.
With --json: one object per exchange or fact, then one per object joined from partial answers, then one per capture.
Credentials are shown as their scheme and length, SIP users as *, unless --secrets is given.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from captures.bodies import BodyFiles
from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.facts import facts_of
from captures.items import CaptureSummary, JoinedObject, Observation
from captures.redaction import redacted
from captures.sources import Item, ReadOptions, read_exchanges
from tools import captures_in
from tools.errors import EXIT_OK, EXIT_UNUSABLE, UnusableInput
from tools.fact_words import words
from tools.options import above_zero


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("captures", type=Path, nargs="*", metavar="CAPTURE", help="a capture file or a recording")
    parser.add_argument("--interface", metavar="IF", help="listen on a network interface instead, until interrupted")
    parser.add_argument("--seconds", type=float, metavar="N", help="with --interface: stop after so long")
    parser.add_argument("--packets", type=int, metavar="N", help="with --interface: stop after so many")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--extract", type=Path, metavar="DIR", help="write every body there, named by its sha256")
    captures_in.add_secrets(parser)
    parser.add_argument("--secrets", action="store_true", help="show credentials too")


def run(args: argparse.Namespace) -> int:
    """List everything; a capture that cannot be read is named, and the others are still listed."""
    if bool(args.interface) == bool(args.captures):
        raise UnusableInput("expected either captures or --interface")
    if args.interface and (args.keylog or args.tls_key):
        raise UnusableInput("--interface: TLS is decrypted in capture files only")
    options = captures_in.with_secrets(args, ReadOptions(bodies=body_files(args.extract), secrets=args.secrets))
    shown = JsonLines(secrets=args.secrets) if args.json else Lines()
    code = EXIT_OK
    for source in sources_of(args, options):
        try:
            for item in source:
                shown.show(item)
                if isinstance(item, CaptureSummary):
                    code = max(code, captures_in.exit_code(item))
        except CaptureError as error:
            sys.stdout.flush()
            print(f"upshim exchanges: {error}", file=sys.stderr)
            code = EXIT_UNUSABLE
        except BrokenPipeError:
            raise
        except OSError as error:  # the disk that bodies are extracted to
            raise UnusableInput(f"{error.filename or args.extract}: {error.strerror}") from error
    return code


def sources_of(args: argparse.Namespace, options: ReadOptions) -> Iterator[Iterator[Item]]:
    """What is to be read, one after the other."""
    if args.interface:
        from captures.live import read_live  # noqa: PLC0415 - needs scapy

        seconds = None if args.seconds is None else above_zero("--seconds", args.seconds)
        packets = None if args.packets is None else int(above_zero("--packets", args.packets))
        live = read_live(args.interface, options, seconds, packets)
        yield (replace(one, facts=facts_of(one)) if isinstance(one, Exchange) else one for one in live)
    for path in args.captures:
        yield read_exchanges(path, options, facts_of)


def body_files(folder: Path | None) -> BodyFiles | None:
    """The folder to extract into. Raises `UnusableInput`."""
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UnusableInput(f"--extract: {folder}: {error.strerror}") from error
    return BodyFiles(folder)


class JsonLines:
    """For programs."""

    def __init__(self, *, secrets: bool) -> None:
        self._secrets = secrets

    def show(self, item: Item) -> None:
        """One line."""
        line = item.to_json()
        print(json.dumps(line if self._secrets or not isinstance(item, Exchange) else redacted(line)))


class Lines:
    """For people: a line an exchange as it comes, since a capture may be long."""

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - not needed for JSON

        self._console = Console(highlight=False, soft_wrap=True)

    def show(self, item: Item) -> None:
        """One line, and one more for each problem."""
        if isinstance(item, Exchange):
            self._exchange(item)
            problems = item.problems
        elif isinstance(item, Observation):
            told = "; ".join(filter(None, (words(fact) for fact in item.facts)))
            self._print(f"      {item.time:%Y-%m-%d %H:%M:%S} {item.client} {told}", "")
            problems = item.problems
        elif isinstance(item, JoinedObject):
            state = f"sha256 {item.sha256}" if item.complete else f"incomplete, {len(item.missing)} parts missing"
            self._print(
                f"object {item.target}: {item.size} bytes from {len(item.exchanges)} exchanges, {state}", "cyan"
            )
            problems = item.problems
        else:
            counts = ", ".join(f"{count} {name}" for name, count in sorted(item.counts.items()))
            self._print(f"{item.capture}: {item.format}: {counts or 'nothing in it'}", "bold")
            problems = item.problems
        for problem in problems:
            self._print(f"      ! {problem}", "yellow")

    def _exchange(self, exchange: Exchange) -> None:
        request, response = exchange.request, exchange.response
        answer = "no answer" if response is None else f"{response.status} {response.body.size} bytes"
        time = f"{exchange.started:%Y-%m-%d %H:%M:%S}"
        told = "; ".join(filter(None, (words(fact) for fact in exchange.facts)))
        cut = "" if exchange.complete else " incomplete"
        line = f"{exchange.index:>5} {time} {exchange.client} {request.method} {request.target} -> {answer}{cut}"
        self._print(f"{line}  [{told}]" if told else line, "")

    def _print(self, text: str, style: str) -> None:
        visible = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
        self._console.print(visible, style=style, markup=False)
