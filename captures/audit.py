"""A journal held against the recording it belongs to: what the chain alone cannot tell."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from captures.errors import CaptureError
from captures.journal import NOTHING, Entry, Fault, decision_entry, to_be_journalled, verify
from captures.journal_file import JOURNAL
from captures.store import Store

# What an entry and its exchange must agree in; edits and headers may no longer be in the store.
COMPARED = ("action", "rule", "reason", "version", "dry_run", "rules_sha256", "time", "connection")


@dataclass(slots=True)
class Audit:
    """The outcome: `faults` are about lines of the journal, `problems` about what the store knows better."""

    entries: int = 0
    decisions: int = 0
    late: int = 0
    torn: int = 0
    head: str = NOTHING
    faults: list[Fault] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing was found."""
        return not self.faults and not self.problems

    def to_json(self) -> dict[str, Any]:
        """One line of `journal verify --json`."""
        return {
            "kind": "journal",
            "good": self.good,
            "entries": self.entries,
            "decisions": self.decisions,
            "late": self.late,
            "torn": self.torn,
            "head": self.head,
            "faults": [{"line": fault.line, "what": fault.what} for fault in self.faults],
            "problems": self.problems,
        }


class NoJournal(CaptureError):
    """A folder without a journal."""


def entries_of(store: Store) -> Iterator[Entry | Fault]:
    """The entries of a recording's journal. Raises `NoJournal`, or `CaptureError` where it cannot be read."""
    if store.shared:
        yield from verify(store.journal_lines())
        return
    path = store.folder / JOURNAL
    try:
        with path.open("rb") as lines:
            yield from verify(lines)
    except FileNotFoundError as error:
        raise NoJournal(path, error) from error
    except OSError as error:
        raise CaptureError(path, error) from error


def audit(entries: Iterable[Entry | Fault], store: Store, noted: str | None = None) -> Audit:
    """Check a journal against its store; `noted` is a head written down earlier, which must be in the chain.

    A journal that was cut together with the store is found by a noted head only. Raises `StoreError`, and `NoJournal`
    where nothing tells that there should be one.
    """
    # The store first: what is committed while the journal is read has its entry behind what we looked for. Of each
    # exchange a digest is kept: recordings grow for months.
    held = {one.index: _digest(decision_entry(one, "")) for one in store.exchanges() if to_be_journalled(one)}
    found = Audit()
    told: dict[int, str | None] = {}
    heads = {NOTHING}
    gone = store.expired_through()
    absent: set[int] = set()
    forgotten: set[int] = set()
    for entry in _unless_gone(entries, found, expected=bool(held or noted)):
        if isinstance(entry, Fault):
            found.faults.append(entry)
            continue
        found.entries, found.head = entry["n"], entry["hash"]
        heads.add(entry["hash"])
        if entry["entry"] == "torn":
            found.torn += 1
        elif entry["entry"] == "forgotten":
            forgotten |= set(entry["exchanges"])
        elif entry["entry"] == "decision":
            found.decisions += 1
            found.late += bool(entry.get("late"))
            index = entry["exchange"]
            told[index] = None
            if index not in held:
                absent.add(index)
            elif held[index] != _digest(entry):
                exchange = next(store.exchanges(after=index - 1))
                told[index] = _difference(entry, decision_entry(exchange, entry["phone"]))
        elif entry["entry"] == "expired":
            gone = max(gone, entry["through"])
    # Once more: it may have been recorded after the first look.
    absent -= forgotten | set(store.decided()) if absent else set()
    told |= {index: "neither in the store nor forgotten nor expired" for index in absent if index > gone}
    found.problems += [f"exchange {index}: {what}" for index, what in sorted(told.items()) if what is not None]
    if not found.faults:  # behind a fault nothing was read
        found.problems += [f"exchange {index}: its entry is missing" for index in sorted(held.keys() - told.keys())]
    if noted is not None and noted not in heads:
        found.problems.append(f"the noted head {noted} is not in the chain: it was cut or written anew")
    return found


def _unless_gone(entries: Iterable[Entry | Fault], found: Audit, *, expected: bool) -> Iterator[Entry | Fault]:
    """The entries; that a journal which should be there is not is a problem, and no error."""
    try:
        yield from entries
    except NoJournal:
        if not expected:
            raise
        found.problems.append(f"there is no {JOURNAL}")


def _digest(entry: Entry) -> bytes:
    """Of what an entry and its exchange must agree in."""
    compared = [entry.get(name) for name in COMPARED], _changes(entry)
    return hashlib.sha256(repr(compared).encode("utf-8", "surrogatepass")).digest()


def _changes(entry: Entry) -> list[tuple[str, str, str]]:
    return [
        (change["message"], *(f"{change[side]['size']} {change[side]['sha256']}" for side in ("original", "rewritten")))
        for change in entry["changes"]
    ]


def _difference(entry: Entry, expected: Entry) -> str | None:
    for name in COMPARED:
        if entry.get(name) != expected[name]:
            return f"the store says {name} {expected[name]!r}, the journal {entry.get(name)!r}"
    return None if _changes(entry) == _changes(expected) else "the store holds other changes"
