"""List the HTTP exchanges of packet captures, flow files, HAR files and recordings, with what they mean.

Examples:
  upshim exchanges /var/lib/upshim/rec
  upshim exchanges --json capture.pcapng.gz | jq 'select(.problems != [])'
  upshim exchanges capture.pcap --extract bodies
  upshim exchanges --interface eth0 --seconds 60

DHCP, DNS and SIP messages stand between the exchanges as facts, in order of time.
With --json: one object per exchange or fact, then one per object joined from partial answers, then one per capture.
Credentials are shown as their scheme and length, SIP users as *, unless --secrets is given.
The exit code is 1 where a capture could not be read in full, and 2 where nothing of one could.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from captures.bodies import BodyFiles
from captures.database_url import place_of
from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.facts import facts_of
from captures.items import CaptureSummary, Item
from captures.json_lines import JsonLines
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from tools import captures_in
from tools.errors import EXIT_OK, EXIT_UNUSABLE, UnusableInput
from tools.options import above_zero
from tools.progress import Progress

if TYPE_CHECKING:
    from tools.exchange_lines import Lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "captures", type=place_of, nargs="*", metavar="CAPTURE", help="a capture file or a recording (folder or URL)"
    )
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
    sizes = [captures_in.size(path) for path in args.captures]
    progress = Progress("reading", None if None in sizes else sum(size or 0 for size in sizes))
    options = ReadOptions(bodies=body_files(args.extract), secrets=args.secrets, progress=progress.advance)
    options = captures_in.with_secrets(args, options)
    shown = Programs(secrets=args.secrets) if args.json else lines()
    on_terminal = sys.stdout.isatty()
    code = EXIT_OK
    with progress:
        for source in sources_of(args, options):
            try:
                for item in source:
                    if on_terminal:
                        progress.hide()
                    shown.show(item)
                    if args.interface:
                        sys.stdout.flush()
                    if isinstance(item, CaptureSummary):
                        code = max(code, captures_in.exit_code(item))
            except CaptureError as error:
                sys.stdout.flush()
                progress.hide()
                print(f"upshim exchanges: {error}", file=sys.stderr)
                code = EXIT_UNUSABLE
            except OSError as error:  # the disk that bodies are extracted to
                error.filename = error.filename or args.extract
                raise
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


def lines() -> Lines:
    """What shows items to people, imported only for them."""
    from tools.exchange_lines import Lines  # noqa: PLC0415

    return Lines(sys.stdout)


class Programs:
    """Shows items to programs."""

    def __init__(self, *, secrets: bool) -> None:
        self._lines = JsonLines(secrets=secrets)

    def show(self, item: Item) -> None:
        """One line."""
        print(self._lines.line(item) if isinstance(item, Exchange) else json.dumps(item.to_json()))
