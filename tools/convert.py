"""Write a capture in another format: packet capture, mitmproxy flow file, HTTP archive or recording.

Examples:
  upshim convert recording/ morning.pcap         for Wireshark (as pcapng: its packets can say they are synthetic)
  upshim convert phones.pcapng phones.mitm       for mitmproxy
  upshim convert flows.mitm flows.har            for a browser
  upshim convert phones.pcap recording           for upshim itself

The input is known by its content, the output by its name or --to. What a format cannot keep is counted at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from captures.bodies import BodyFiles
from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.items import CaptureSummary
from captures.recording_folder import DATABASE, is_recording
from captures.sources import ReadOptions, read_exchanges
from captures.targets import TARGETS, create_writer, kept_in, kind_of
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput

WRITTEN = "exchanges written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("source", type=Path, metavar="IN", help="a capture of any kind, or a recording's folder")
    parser.add_argument("target", type=Path, metavar="OUT", help="the file, or the folder of a new recording, to write")
    parser.add_argument("--to", choices=TARGETS, help="the format of OUT, where its name does not tell")
    parser.add_argument(
        "--leg",
        choices=("phone", "server"),
        help="whose side a packet capture shows where upshim rewrote (default phone)",
    )
    parser.add_argument("--keylog", type=Path, metavar="FILE", help="TLS secrets of a packet capture (SSLKEYLOGFILE)")
    parser.add_argument("--json", action="store_true", help="tell what was done as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Convert; exit 1 where there was nothing to write, or only the readable part of a damaged input."""
    kind = args.to or kind_of(args.target)
    if kind is None:
        raise UnusableInput(f"{args.target}: expected a name that tells the format ({_endings()}), or --to")
    if args.leg and kind != "pcap":
        raise UnusableInput("--leg: only a packet capture shows one side alone")
    options = {"leg": args.leg} if args.leg else {}
    if args.target.exists() and args.source.exists() and args.target.samefile(args.source):
        raise UnusableInput(f"{args.target}: expected an output other than the input")
    if not args.target.absolute().parent.is_dir():
        raise UnusableInput(f"{args.target}: expected a place in an existing folder")
    try:
        counts, summaries = _convert(args, kind, options)
    except CaptureError as error:
        raise UnusableInput(str(error)) from error
    except OSError as error:
        raise UnusableInput(f"{error.filename or args.target}: {error.strerror or error}") from error
    written = counts.pop(WRITTEN, 0)
    _tell(args, kind, written, counts, summaries)
    return EXIT_OK if written and not any(summary.damaged for summary in summaries) else EXIT_PROBLEM


def _convert(args: argparse.Namespace, kind: str, options: dict[str, str]) -> tuple[Counter[str], list[CaptureSummary]]:
    counts: Counter[str] = Counter()
    summaries: list[CaptureSummary] = []
    with tempfile.TemporaryDirectory(prefix="upshim-") as spool:
        streamed = BodyFiles(Path(spool))
        folders = [streamed]
        if is_recording(args.source):
            recording = args.source.parent if args.source.name == DATABASE else args.source
            folders.append(BodyFiles(recording / "bodies"))
        items = read_exchanges(args.source, ReadOptions(bodies=streamed, keylog=args.keylog))
        first = next(items, None)  # an input that cannot be read leaves no output behind
        with _finished(args.target, TARGETS[kind].folder) as path:
            writer = create_writer(kind, path, **options)
            try:
                while first is not None:
                    if isinstance(first, Exchange):
                        counts[WRITTEN] += 1
                        counts.update(writer.write(first, kept_in(*folders)))
                    elif isinstance(first, CaptureSummary):
                        summaries.append(first)
                    first = next(items, None)
            finally:
                writer.close()
    return counts, summaries


@contextlib.contextmanager
def _finished(target: Path, folder: bool) -> Iterator[Path]:
    """Where to write: beside a file, which is replaced once all went well; a folder, a pipe or a device as it is."""
    if folder or (target.exists() and not target.is_file()):
        yield target
        return
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    try:
        yield Path(name)
        Path(name).replace(target)
    finally:
        Path(name).unlink(missing_ok=True)


def _tell(
    args: argparse.Namespace, kind: str, written: int, counts: Counter[str], summaries: list[CaptureSummary]
) -> None:
    problems = [problem for summary in summaries for problem in summary.problems]
    if args.json:
        shown = {
            "kind": "conversion",
            "source": str(args.source),
            "target": str(args.target),
            "format": kind,
            "exchanges": written,
            "not_kept": dict(sorted(counts.items())),
            "problems": problems,
        }
        print(json.dumps(shown))
        return
    lost = "; ".join(f"{what}: {number}" for what, number in counts.most_common())
    print(
        f"{written} exchange{'' if written == 1 else 's'} written to {args.target}"
        + (f"; not kept as they were: {lost}" if lost else "")
    )
    for problem in problems:
        print(f"{args.source}: {problem}")


def _endings() -> str:
    return ", ".join(target.suffixes[0] or "none for a recording" for target in TARGETS.values())
