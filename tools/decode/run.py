"""The options of `decode`, and the order of its work."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dissectors.cabinet import Cabinet, safe_member_name
from dissectors.errors import DissectError
from tools.decode.cabinets import MAGIC, catalog_record, decode_cabinet
from tools.decode.files import decode_file, file_record
from tools.decode.inputs import expand, open_content
from tools.decode.packages import folder_packages
from tools.decode.sets import Volume, group, is_volume
from tools.decode.settings import MAX_DEPTH, MAX_ROWS, Decoded, Settings
from tools.errors import EXIT_OK, EXIT_PROBLEM, EXIT_UNUSABLE, UnusableInput
from tools.options import above_zero
from tools.progress import Progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="file, folder, pattern, or - for standard input")
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument(
        "--extract", metavar="DIR", help="write below DIR: members of cabinets, memory and files of images"
    )
    parser.add_argument("--date", metavar="DATE", help="judge certificates as of this day (default: now)")
    parser.add_argument("--domain", default="", help="do the names cover ucupdates-r2.DOMAIN?")
    parser.add_argument("--secrets", action="store_true", help="show NTLM responses and users")
    parser.add_argument("--rows", type=int, default=MAX_ROWS, help=f"rows of a log to list (default {MAX_ROWS})")
    parser.add_argument("--max-bytes", type=int, default=2 << 30, help="bytes a cabinet may unpack to (default 2 GiB)")
    parser.add_argument("--max-seconds", type=float, default=300.0, help="time for everything (default 300)")
    parser.add_argument("--max-depth", type=int, default=MAX_DEPTH, help=f"files in files (default {MAX_DEPTH})")


def run(args: argparse.Namespace) -> int:
    """Decode; returns the exit code."""
    progress = Progress("decoding")
    settings = Settings(
        output=int(above_zero("--max-bytes", args.max_bytes)),
        seconds=above_zero("--max-seconds", args.max_seconds),
        depth=max(args.max_depth, 0),
        rows=max(args.rows, 0),
        secrets=args.secrets,
        date=date_of(args.date),
        domain=args.domain,
        extract=args.extract,
        progress=progress.advance,
    )
    show = print_json if args.json else printer()
    work = _Work(settings)
    good = True
    with progress:
        for decoded in work.everything(args.files):
            good = good and decoded.good
            progress.hide()
            show(decoded.record)
    if work.unreadable:
        return EXIT_UNUSABLE
    return EXIT_OK if good else EXIT_PROBLEM


def printer() -> Callable[[dict[str, Any]], None]:
    """What shows records to people; rich is not there for free."""
    from tools.decode.text import Printer

    return Printer().show


def date_of(text: str | None) -> datetime:
    """The time certificates are judged by. Raises `UnusableInput`."""
    if text is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UnusableInput(f"--date: expected a date such as 2013-05-01, found {text!r}") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def print_json(record: object) -> None:
    """One line; what is no Unicode stays readable."""
    line = json.dumps(record, ensure_ascii=True)
    print(line, flush=True)


class _Work:
    """The files one after the other, then what they say together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._volumes: list[Volume] = []
        self._all: list[Decoded] = []
        self._folders = False
        self.unreadable = False

    def everything(self, words: Sequence[str]) -> Iterator[Decoded]:
        """Every record."""
        inputs = list(expand(words, self._unreadable))
        self._folders = len(inputs) > 1
        for word in words:
            if word != "-" and Path(word).is_dir():
                yield from folder_packages(word)
        for name, path in inputs:
            for decoded in self._one(name, path):
                yield self._noted(decoded)
        for volumes in group(self._volumes):
            yield from map(self._noted, self._set(volumes))
        yield from self._proofs()

    def _one(self, name: str, path: Path | None) -> Iterator[Decoded]:
        try:
            content = open_content(name, path, self._settings)
        except UnusableInput as error:
            print(f"upshim decode: {error}", file=sys.stderr)
            self.unreadable = True
            return
        if content.head.startswith(MAGIC):
            try:
                cabinet = Cabinet.parse(content.file, self._settings.budget)
            except DissectError:
                pass  # decode_file says what is wrong
            else:
                if is_volume(cabinet):
                    self._volumes.append((content, cabinet))
                    return
        with content.file:
            try:
                yield decode_file(content, self._settings, below=self._below(name))
            except OSError as error:
                error.filename = name
                self._unreadable(error)

    def _unreadable(self, error: OSError) -> None:
        print(f"upshim decode: {error.filename}: {error.strerror}", file=sys.stderr)
        self.unreadable = True

    def _set(self, volumes: list[Volume]) -> Iterator[Decoded]:
        """One record with everything for the first of the set, and one that points there for each of the others."""
        first = volumes[0][0]
        cabinet, problems = volumes[0][1], []
        try:
            cabinet = Cabinet.join([cabinet for _content, cabinet in volumes], self._settings.budget)
        except DissectError as error:
            problems.append(f"not joined: {error}")
        whole = decode_cabinet(cabinet, first.name, self._settings, 0, decode_file, self._below(first.name))
        whole.record = file_record(first, whole.record) | {"files": [content.name for content, _cabinet in volumes]}
        whole.record["problems"] += problems
        yield whole
        for content, one in volumes[1:]:
            record = {"kind": "cab", "set_id": one.header.set_id, "set_index": one.header.set_index}
            record |= {"joined_in": first.name, "problems": list(one.problems)}
            yield Decoded(file_record(content, record))
        for content, _cabinet in volumes:
            content.file.close()

    def _below(self, name: str) -> str:
        """Of several files each has its own folder for its members."""
        return safe_member_name(Path(name).name).replace("/", "%2F") if self._folders else ""

    def _noted(self, decoded: Decoded) -> Decoded:
        """What the proofs need, and no more."""
        self._all.append(Decoded({}, decoded.files, decoded.catalogs))
        return decoded

    def _proofs(self) -> Iterator[Decoded]:
        """Catalogs against the other files; a cabinet's own record has told of its own members."""
        for one in self._all:
            others = [pair for other in self._all if other is not one for pair in other.files]
            for name, catalog in one.catalogs if others else ():
                record = catalog_record(name, catalog, others)
                if record["lists"] or ":" not in name:
                    yield Decoded({"kind": "catalog-proof", **record, "problems": []})
