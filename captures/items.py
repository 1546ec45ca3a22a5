"""What a capture gives beside its exchanges: observations of other protocols, objects joined from partial answers,
and the account of the capture.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from captures.exchange import Exchange, Fact, rfc3339

DECRYPTED: Fact = {"fact": "tls", "decrypted_by": "tshark"}  # of an exchange: its bytes are another program's word


@dataclass(frozen=True, slots=True)
class Observation:
    """One message of a protocol beside HTTP: DHCP, DNS or SIP. `client` and `server` are address and port."""

    capture: str
    time: datetime
    client: str
    server: str
    facts: tuple[Fact, ...] = ()
    problems: tuple[str, ...] = ()
    client_mac: str = ""

    def to_json(self) -> dict[str, Any]:
        """One line of `exchanges --json`."""
        return {
            "kind": "fact",
            "capture": self.capture,
            "time": rfc3339(self.time),
            "client": self.client,
            "server": self.server,
            "client_mac": self.client_mac or None,
            "facts": [dict(fact) for fact in self.facts],
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class JoinedObject:
    """One resource put together from partial answers (RFC 9110 section 14) over any number of connections.

    `size` is the whole object's as the answers tell it, `missing` the byte ranges (first, last) nobody sent. The hashes
    are there only where nothing is missing. `exchanges` are the indexes of the exchanges that brought the parts.
    """

    capture: str
    host: str
    target: str
    size: int
    sha256: str | None
    sha1: str | None
    complete: bool
    exchanges: tuple[int, ...] = ()
    missing: tuple[tuple[int, int], ...] = ()
    problems: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """One line of `exchanges --json`."""
        return {
            "kind": "object",
            "capture": self.capture,
            "host": self.host,
            "target": self.target,
            "size": self.size,
            "sha256": self.sha256,
            "sha1": self.sha1,
            "complete": self.complete,
            "exchanges": list(self.exchanges),
            "missing": [list(part) for part in self.missing],
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class CaptureSummary:
    """The account of one capture: what was in it, what of it was not read, and why.

    `counts` are plain numbers by name; `problems` are about the capture, not about one exchange. `damaged` says that
    the file itself ends early or is broken, `partial` that for this or another reason something was not read that
    should have been: packets of a link that is not known, flows that were refused, TLS whose secrets are there.
    """

    capture: str
    format: str
    counts: Counter[str] = field(default_factory=Counter)
    problems: tuple[str, ...] = ()
    damaged: bool = False
    partial: bool = False

    def to_json(self) -> dict[str, Any]:
        """One line of `exchanges --json`."""
        return {
            "kind": "capture",
            "capture": self.capture,
            "format": self.format,
            "counts": dict(sorted(self.counts.items())),
            "damaged": self.damaged,
            "partial": self.partial,
            "problems": list(self.problems),
        }


Item = Exchange | Observation | JoinedObject | CaptureSummary  # what is shown of a capture
