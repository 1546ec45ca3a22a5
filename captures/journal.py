"""The journal's entries: what was decided for which phone and what was changed, each bound to the one before by hash.

Pure: no file, no clock. An entry is one line of canonical JSON (sorted keys, no spaces, ASCII); its `hash` is the
sha256 of the same JSON without `hash`, and `previous` is the hash of the entry before. Kinds of `entry`:

- `decision`: one update check, with every byte that was changed (`changes`)
- `torn`: the bytes before it, back to the last good entry, are what a killed process left (`size`, `sha256`)
- `expired`: exchanges up to `through` left the recording for their age or for room
- `forgotten`: the exchanges of a phone were removed and who it was is no longer known

The phone is named by a random pseudonym; who it is stands in the recording's database alone, so that it can be
forgotten without touching the chain.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from captures.byte_edits import ByteEdit, EditMismatch, apply, diff, replaced
from captures.exchange import Body, Exchange, Fact, Headers, Request, Response, rfc3339

Entry = Mapping[str, Any]
Load = Callable[[Body], bytes | None]  # the decoded bytes of a body, where they are to be had

NOTHING = "0" * 64  # what stands before the first entry


class Head(NamedTuple):
    """The last entry of a chain: its number and its hash."""

    number: int = 0
    hash: str = NOTHING


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that breaks the chain; lines are counted from 1."""

    line: int
    what: str


class Identity(NamedTuple):
    """Who a phone is, by the strongest sign there is: `kind` is "mac", "serial" or "address"."""

    kind: str
    value: str


def held(body: Body) -> bytes | None:
    """The decoded bytes a body holds itself."""
    return body.data if body.data is not None else b"" if body.size == 0 else None


def to_be_journalled(exchange: Exchange) -> bool:
    """Whether something was decided or changed."""
    changed = exchange.rewritten_request is not None or exchange.rewritten_response is not None
    return changed or fact_of(exchange, "decision") is not None


def fact_of(exchange: Exchange, name: str) -> Fact | None:
    """The first fact of this name."""
    return next((fact for fact in exchange.facts if fact.get("fact") == name), None)


def identity_of(exchange: Exchange) -> Identity:
    """Who sent an update check: MAC, else serial number, else address."""
    check = fact_of(exchange, "update-check") or {}
    if check.get("mac_address"):
        return Identity("mac", str(check["mac_address"]))
    if str(check.get("serial") or "").strip():
        return Identity("serial", str(check["serial"]).strip().casefold())
    return Identity("address", exchange.client.rpartition(":")[0])


def decision_entry(exchange: Exchange, phone: str, load: Load = held) -> dict[str, Any]:
    """The entry of one exchange, by the pseudonym of its phone."""
    decision = fact_of(exchange, "decision") or {}
    check = fact_of(exchange, "update-check") or {}
    versions = sorted({str(module.get("version")) for module in check.get("modules") or ()})
    pairs = (
        ("request", exchange.request, exchange.rewritten_request),
        ("response", exchange.response, exchange.rewritten_response),
    )
    return {
        "entry": "decision",
        "time": rfc3339(exchange.started),
        "phone": phone,
        "vendor": check.get("vendor"),
        "model": check.get("model"),
        "reported": versions,
        "exchange": exchange.index,
        "connection": exchange.connection,
        **{name: decision.get(name) for name in ("action", "rule", "reason", "version", "dry_run")},
        "rules_sha256": decision.get("rules_sha256"),
        "changes": [change(name, original, changed, load) for name, original, changed in pairs if original and changed],
    }


def change(name: str, original: Request | Response, changed: Request | Response, load: Load = held) -> dict[str, Any]:
    """What was done to one message. `edits` is None where the bodies are not to be had."""
    before, after = load(original.body), load(changed.body)
    edits = None if before is None or after is None else [_edit_json(edit) for edit in diff(before, after)]
    return {
        "message": name,
        "headers": header_edits(original.headers, changed.headers),
        "edits": edits,
        "original": {"size": original.body.size, "sha256": original.body.sha256},
        "rewritten": {"size": changed.body.size, "sha256": changed.body.sha256},
    }


def header_edits(original: Headers, changed: Headers) -> list[dict[str, Any]]:
    """Headers replaced, by the position of the first of them."""
    return [
        {
            "position": start,
            "before": [list(pair) for pair in original[start:end]],
            "after": [list(pair) for pair in changed[new_start:new_end]],
        }
        for start, end, new_start, new_end in replaced(original, changed)
    ]


def replay_body(changed: Mapping[str, Any], original: bytes) -> bytes:
    """The rewritten body, made of the original and the journal. Raises `EditMismatch`."""
    if hashlib.sha256(original).hexdigest() != changed["original"]["sha256"]:
        raise EditMismatch("the original body is another one")
    if changed["edits"] is None:
        raise EditMismatch("the journal holds no edits of it")
    made = apply(original, [_edit(edit) for edit in changed["edits"]])
    if hashlib.sha256(made).hexdigest() != changed["rewritten"]["sha256"]:
        raise EditMismatch("the edits give another body than was sent")
    return made


def replay_headers(changed: Mapping[str, Any], original: Headers) -> Headers:
    """The rewritten headers, made of the original ones and the journal. Raises `EditMismatch`."""
    made: list[tuple[str, str]] = []
    done = 0
    for edit in changed["headers"]:
        end = edit["position"] + len(edit["before"])
        if [list(pair) for pair in original[edit["position"] : end]] != edit["before"]:
            raise EditMismatch(f"header {edit['position']}: expected {edit['before']}")
        made += [*original[done : edit["position"]], *((name, value) for name, value in edit["after"])]
        done = end
    return (*made, *original[done:])


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def canonical(content: Mapping[str, Any]) -> bytes:
    """The one way to write this content."""
    return _CANONICAL.encode(content).encode("ascii")


def canonical_with_hash(content: Mapping[str, Any]) -> tuple[bytes, str]:
    """Content that has keys on both sides of `hash`, written with its hash, and the hash."""
    before = canonical({name: value for name, value in content.items() if name < "hash"})[:-1]
    behind = canonical({name: value for name, value in content.items() if name > "hash"})[1:]
    digest = hashlib.sha256(b"%b,%b" % (before, behind)).hexdigest()
    return b'%b,"hash":"%b",%b' % (before, digest.encode("ascii"), behind), digest


def encode(content: Mapping[str, Any], head: Head, written: str) -> tuple[bytes, Head]:
    """The line of the next entry, written at this time (RFC 3339), and the new head."""
    entry = {**content, "n": head.number + 1, "written": written, "previous": head.hash}
    line, digest = canonical_with_hash(entry)
    return line + b"\n", Head(head.number + 1, digest)


def decode(line: bytes) -> Entry | None:
    """The entry of a line; None where the line is not exactly what `encode` writes."""
    try:
        entry = json.loads(line)
        content = {name: value for name, value in entry.items() if name != "hash"}
        digest = hashlib.sha256(canonical(content)).hexdigest()
        whole = canonical({**content, "hash": digest}) + b"\n" == line
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None
    typed = isinstance(content.get("n"), int) and isinstance(content.get("entry"), str)
    return {**content, "hash": digest} if whole and typed else None


def verify(lines: Iterable[bytes]) -> Iterator[Entry | Fault]:
    """The entries of a journal up to the first fault, which ends it. A torn line that was accounted for is no fault."""
    head = Head()
    torn, torn_at = b"", 0
    number = 0
    for number, line in enumerate(lines, 1):
        entry = decode(line)
        if entry is None:
            torn, torn_at = torn + line, torn_at or number
            continue
        if torn:
            if not (entry["entry"] == "torn" and entry.get("sha256") == hashlib.sha256(torn).hexdigest()):
                break
            torn, torn_at = b"", 0
        if entry["previous"] != head.hash or entry["n"] != head.number + 1:
            found = f"expected entry {head.number + 1} after {head.hash[:12]}"
            yield Fault(number, f"{found}, found entry {entry['n']} after {str(entry['previous'])[:12]}")
            return
        head = Head(entry["n"], entry["hash"])
        yield entry
    if torn:
        cut = not torn.endswith(b"\n") and torn_at == number
        yield Fault(torn_at, "the last line is torn: the next start of a recording mends it" if cut else "was changed")


def _edit_json(edit: ByteEdit) -> dict[str, Any]:
    try:
        before, after = edit.before.decode(), edit.after.decode()
        if (before + after).replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
            return {"offset": edit.offset, "before": before, "after": after}
    except UnicodeDecodeError:
        pass
    as_base64 = [base64.b64encode(data).decode() for data in (edit.before, edit.after)]
    return {"offset": edit.offset, "before": as_base64[0], "after": as_base64[1], "encoding": "base64"}


def _edit(edit: Mapping[str, Any]) -> ByteEdit:
    try:
        if edit.get("encoding") == "base64":
            return ByteEdit(edit["offset"], base64.b64decode(edit["before"]), base64.b64decode(edit["after"]))
        return ByteEdit(edit["offset"], edit["before"].encode(), edit["after"].encode())
    except (KeyError, AttributeError, binascii.Error) as error:
        raise EditMismatch(f"not an edit: {error}") from error
