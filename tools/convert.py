"""Write a capture in another format: packet capture, mitmproxy flow file, HTTP archive or recording.

Examples:
  upshim convert recording/ morning.pcap         for Wireshark (as pcapng: its packets can say they are synthetic)
  upshim convert phones.pcapng phones.mitm       for mitmproxy
  upshim convert flows.mitm flows.har            for a browser
  upshim convert phones.pcap recording           for upshim itself

The input is known by its content, the output by its name or --to. What a format cannot keep is counted at the end.
Credentials in headers are taken out unless --secrets is given: of NTLM messages the responses and keys, of others the
value. Bodies are written to the byte, for they are known by their hashes: names of users in them stay. A file that is
written belongs to its owner alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from captures.bodies import BodyFiles
from captures.database_url import DatabaseUrl, Place, place_of
from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.items import CaptureSummary, Item, Observation
from captures.read_options import ReadOptions
from captures.recording_folder import DATABASE, is_recording
from captures.redaction import for_export
from captures.sources import read_exchanges
from captures.targets import TARGETS, create_writer, kept_in, kind_of
from tools import captures_in
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput
from tools.progress import Progress

REDACTED = "credentials redacted"
NOT_HTTP = "DHCP, DNS and SIP messages"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", type=place_of, metavar="IN", help="a capture of any kind, or a recording's folder")
    parser.add_argument(
        "target", type=place_of, metavar="OUT", help="the file, or the folder or database of a new recording, to write"
    )
    parser.add_argument("--to", choices=TARGETS, help="the format of OUT, where its name does not tell")
    parser.add_argument(
        "--leg",
        choices=("phone", "server"),
        help="whose side a packet capture shows where upshim rewrote (default phone)",
    )
    captures_in.add_secrets(parser)
    parser.add_argument("--secrets", action="store_true", help="keep the credentials in headers")
    parser.add_argument("--json", action="store_true", help="tell what was done as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Convert; exit 1 where there was nothing to write, or only the readable part of the input."""
    kind = args.to or kind_of(args.target)
    if kind is None:
        raise UnusableInput(f"{args.target}: expected a name that tells the format ({_endings()}), or --to")
    if args.leg and kind != "pcap":
        raise UnusableInput("--leg: only a packet capture shows one side alone")
    if args.target == args.source or _same_file(args.target, args.source):
        raise UnusableInput(f"{args.target}: expected an output other than the input")
    if isinstance(args.target, Path) and not args.target.absolute().parent.is_dir():
        raise UnusableInput(f"{args.target}: expected a place in an existing folder")
    options = captures_in.with_secrets(args, ReadOptions())
    done = _Conversion()
    try:
        _convert(args, kind, options, done)
    except CaptureError as error:
        raise UnusableInput(str(error)) from error
    except OSError as error:
        raise UnusableInput(f"{error.filename or args.target}: {error.strerror or error}") from error
    _tell(args, kind, done)
    code = max((captures_in.exit_code(summary) for summary in done.summaries), default=EXIT_OK)
    return code if done.written else EXIT_PROBLEM


@dataclass(slots=True)
class _Conversion:
    """The account of a conversion."""

    written: int = 0
    not_kept: Counter[str] = field(default_factory=Counter)
    summaries: list[CaptureSummary] = field(default_factory=list)


def _convert(args: argparse.Namespace, kind: str, options: ReadOptions, done: _Conversion) -> None:
    bar = Progress("converting", captures_in.size(args.source))
    with tempfile.TemporaryDirectory(prefix="upshim-") as spool, bar as progress:
        streamed = BodyFiles(Path(spool))
        folders = [streamed]
        if isinstance(args.source, Path) and is_recording(args.source):
            recording = args.source.parent if args.source.name == DATABASE else args.source
            folders.append(BodyFiles(recording / "bodies"))
        read = read_exchanges(args.source, replace(options, bodies=streamed, progress=progress.advance))
        exchanges = _exchanges(read, done, secrets=args.secrets)
        first = next(exchanges, None)  # an input that holds nothing to write leaves no output behind
        if first is None:
            return
        with _finished(args.target, TARGETS[kind].folder) as path:
            writer = create_writer(kind, path, **({"leg": args.leg} if args.leg else {}))
            try:
                for exchange in chain((first,), exchanges):
                    done.not_kept.update(writer.write(exchange, kept_in(*folders)))
                    done.written += 1
            finally:
                writer.close()


def _exchanges(items: Iterator[Item], done: _Conversion, *, secrets: bool) -> Iterator[Exchange]:
    """What is to be written; everything else is counted."""
    for item in items:
        if isinstance(item, Exchange):
            exchange, redacted = (item, 0) if secrets else for_export(item)
            done.not_kept[REDACTED] += redacted
            yield exchange
        elif isinstance(item, CaptureSummary):
            done.summaries.append(item)
        elif isinstance(item, Observation):
            done.not_kept[NOT_HTTP] += 1


def _same_file(target: Place, source: Place) -> bool:
    if isinstance(target, DatabaseUrl) or isinstance(source, DatabaseUrl):
        return False
    return target.exists() and source.exists() and target.samefile(source)


@contextlib.contextmanager
def _finished(target: Place, folder: bool) -> Iterator[Place]:
    """Where to write: beside the target, which is put in its place once all went well; a pipe or a device as it is."""
    if isinstance(target, DatabaseUrl) or (
        target.exists() and not target.is_file() and not (folder and target.is_dir())
    ):
        yield target
        return
    if folder:
        if is_recording(target):
            raise CaptureError(target, "expected a new folder, found a recording")
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise CaptureError(target, "expected a new or empty folder")
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            yield (made := Path(beside, "recording"))
            made.replace(target)
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        yield Path(name)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def _tell(args: argparse.Namespace, kind: str, done: _Conversion) -> None:
    problems = [problem for summary in done.summaries for problem in summary.problems]
    not_kept = {what: number for what, number in done.not_kept.most_common() if number}
    if args.json:
        shown = {
            "kind": "conversion",
            "source": str(args.source),
            "target": str(args.target),
            "format": kind,
            "exchanges": done.written,
            "not_kept": dict(sorted(not_kept.items())),
            "problems": problems,
        }
        print(json.dumps(shown))
        return
    if done.written:
        lost = "; ".join(f"{what}: {number}" for what, number in not_kept.items())
        print(
            f"{done.written} exchange{'' if done.written == 1 else 's'} written to {args.target}"
            + (f"; not kept as they were: {lost}" if lost else "")
        )
    else:
        print(f"{args.source}: nothing to convert: it holds no HTTP exchange")
    for problem in problems:
        print(f"{args.source}: {problem}")


def _endings() -> str:
    return ", ".join(target.suffixes[0] or "none for a recording" for target in TARGETS.values())
