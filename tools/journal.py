"""Show and check what was decided for which phone, and what was changed.

Examples:
  upshim journal verify rec
  upshim journal verify rec --head 1f0c...
  upshim journal show rec --phone 00-04-F2-00-01-76 --since 2026-11-01
  upshim journal undo-report rec

`verify` finds lines that were changed, removed, inserted or reordered, and what is missing at the end. Note the head it
prints somewhere else: with --head it also finds a journal that was cut, or written anew, together with its recording.
`undo-report` tells which phone was treated how and when, and what it would have seen without upshim.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from captures.audit import audit, entries_of
from captures.database_url import place_of
from captures.errors import CaptureError
from captures.exchange import rfc3339
from captures.journal import Entry, Fault
from captures.store import Store
from dissectors.mac_address import normal_mac
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput

Identities = dict[str, tuple[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("what", choices=("verify", "show", "undo-report"))
    parser.add_argument("recording", type=place_of, metavar="RECORDING")
    parser.add_argument("--phone", metavar="MAC|SERIAL", help="entries of this phone only")
    parser.add_argument("--since", metavar="TIME", help="entries from this time on (ISO 8601; UTC where it names none)")
    parser.add_argument("--until", metavar="TIME", help="entries before this time")
    parser.add_argument("--head", metavar="HASH", help="verify: a head that was noted earlier")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Verify or show."""
    since, until = (moment(name, getattr(args, name)) for name in ("since", "until"))
    try:
        with closing(Store.open(args.recording)) as store:
            if args.what == "verify":
                return verify(store, args.head, as_json=args.json)
            identities = store.identities()
            wanted = pseudonyms(identities, args.phone)
            entries, faults = [], []
            for entry in entries_of(store):
                if isinstance(entry, Fault):
                    faults.append(entry)
                elif within(entry, wanted, since, until):
                    entries.append(entry)
            lines = shown(entries, identities) if args.what == "show" else undone(entries, identities)
            for line in lines:
                print(json.dumps(line) if args.json else as_text(line))
            for fault in faults:
                print(json.dumps({"kind": "fault", **asdict(fault)}) if args.json else bad(fault))
            return EXIT_PROBLEM if faults else EXIT_OK
    except CaptureError as error:
        raise UnusableInput(str(error)) from error
    except sa.exc.SQLAlchemyError as error:
        raise UnusableInput(f"{args.recording}: damaged: {getattr(error, 'orig', None) or error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise UnusableInput(f"{args.recording}: an entry, whole by its hash, lacks a part: {error}") from error


def verify(store: Store, head: str | None, *, as_json: bool) -> int:
    """Check the chain and hold it against the store."""
    found = audit(entries_of(store), store, head)
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        for fault in found.faults:
            print(bad(fault))
        for problem in found.problems:
            print(problem)
        notes = [f"{found.late} made up for later"] * bool(found.late) + [f"{found.torn} torn ends"] * bool(found.torn)
        verdict = "good" if found.good else "NOT good"
        print("; ".join((f"{verdict}: {found.entries} entries, {found.decisions} decisions", *notes)))
        print(f"head {found.head}")
    return EXIT_OK if found.good else EXIT_PROBLEM


def bad(fault: Fault) -> str:
    """A fault in one line."""
    return f"line {fault.line}: {fault.what}"


def within(entry: Entry, wanted: set[str] | None, since: str | None, until: str | None) -> bool:
    """Whether an entry is asked for; RFC 3339 times in UTC sort as text."""
    time = entry.get("time") or entry["written"]
    if wanted is not None and entry.get("phone") not in wanted:
        return False
    return (since is None or time >= since) and (until is None or time < until)


def shown(entries: list[Entry], identities: Identities) -> Iterator[dict[str, Any]]:
    """Entries with the phones' names as far as they are known."""
    for entry in entries:
        yield {"kind": "entry", **entry, "identity": name_of(entry, identities)}


def undone(entries: list[Entry], identities: Identities) -> Iterator[dict[str, Any]]:
    """What was done to each phone, and what it would have seen: one line for each message that was changed."""
    for entry in sorted(entries, key=lambda entry: (str(entry.get("phone")), entry["n"])):
        for change in entry.get("changes", ()):
            sent = "the server was sent" if change["message"] == "request" else "the phone was given"
            yield {
                "kind": "change",
                "n": entry["n"],
                "time": entry["time"],
                "phone": entry["phone"],
                "identity": name_of(entry, identities),
                "model": entry["model"],
                "rule": entry["rule"],
                "rules_sha256": entry["rules_sha256"],
                "reason": entry["reason"],
                "exchange": entry["exchange"],
                "what": f"{sent} another {change['message']}",
                "without_upshim": without(change),
                "edits": change["edits"],
                "headers": change["headers"],
                "original": change["original"],
                "rewritten": change["rewritten"],
            }


def without(change: dict[str, Any]) -> str:
    """What would have passed."""
    body = f"the original body (sha256 {change['original']['sha256']})"
    if change["message"] == "response":
        return f"the phone would have been given {body}"
    return f"the server would have been sent {body} and would have answered that: what, nobody knows"


def name_of(entry: Entry, identities: Identities) -> str | None:
    """A phone as people know it; None where it was forgotten, or an entry is about none."""
    known = identities.get(str(entry.get("phone")))
    return known and f"{known[0]} {known[1]}"


def as_text(line: dict[str, Any]) -> str:
    """An entry or a change for people."""
    who = line["identity"] or (f"forgotten phone {line['phone']}" if line.get("phone") else "-")
    if line["kind"] == "entry" and line["entry"] != "decision":
        told = {name: line[name] for name in ("through", "exchanges", "size") if name in line}
        return f"{line['n']}  {line['written']}  {line['entry']}  {who}  {json.dumps(told)}"
    if line["kind"] == "entry":
        dry = ", dry run" if line["dry_run"] else ""
        rule = f" by {line['rule']}" if line["rule"] else ""
        changed = ", ".join(change["message"] for change in line["changes"]) or "nothing"
        what = f"{line['action']}{rule}{dry} ({line['reason']})"
        return f"{line['n']}  {line['time']}  {who}  {line['model'] or '-'}  {what}; changed: {changed}"
    rules = (line["rules_sha256"] or "-")[:12]
    head = f"{line['time']}  {who}  {line['model'] or '-'}  rule {line['rule']} of rules {rules}"
    edits = [
        f"    body at {edit['offset']}: {edit['before']!r} became {edit['after']!r}" for edit in line["edits"] or ()
    ]
    headers = [f"    headers: {edit['before']} became {edit['after']}" for edit in line["headers"]]
    return "\n".join((head, f"    {line['what']}", *edits, *headers, f"    without upshim {line['without_upshim']}"))


def pseudonyms(identities: Identities, phone: str | None) -> set[str] | None:
    """The journal's names of the phone asked for. Raises `UnusableInput` where it is not known."""
    if phone is None:
        return None
    names = {phone.strip().casefold(), normal_mac(phone) or phone}
    found = {pseudonym for pseudonym, (_, value) in identities.items() if value in names or pseudonym in names}
    if not found:
        raise UnusableInput(f"--phone: the journal knows no {phone}")
    return found


def moment(option: str, text: str | None) -> str | None:
    """A time as the journal writes it. Raises `UnusableInput`."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise UnusableInput(f"--{option}: expected a time like 2026-11-23T09:00, found {text!r}") from error
    return rfc3339(found if found.tzinfo else found.replace(tzinfo=UTC))
