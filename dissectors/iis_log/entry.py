"""One line of a W3C extended log, as IIS writes it for a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dissectors.http_status import Meaning, explain
from dissectors.redaction import REDACTED
from dissectors.update_urls import Resource, classify


class FieldSet:
    """The names of a `#Fields` line; shared by the entries that follow it."""

    __slots__ = ("index", "names")

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self.index = {name.lower(): at for at, name in reversed(list(enumerate(names)))}


@dataclass(frozen=True, slots=True)
class Entry:
    """A request. `values` are as logged, in the order of `fields`; IIS writes `+` for a space inside a value.

    `moment` is UTC, None where the line has no (whole) date and time or only local ones, which are in `local_time`.
    """

    number: int
    fields: FieldSet = field(repr=False)
    values: tuple[str, ...]
    moment: datetime | None = None
    local_time: str | None = None
    problems: tuple[str, ...] = ()

    def get(self, *names: str) -> str | None:
        """The first of these fields that has a value; `-` is none. Names in lower case."""
        for name in names:
            at = self.fields.index.get(name)
            if at is not None and at < len(self.values) and self.values[at] not in ("-", ""):
                return self.values[at]
        return None

    def number_of(self, *names: str) -> int | None:
        """A field as a number of at most 19 digits."""
        text = self.get(*names)
        return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) <= 19 else None

    @property
    def method(self) -> str | None:
        """cs-method."""
        return self.get("cs-method")

    @property
    def target(self) -> str | None:
        """cs-uri-stem with its query, or cs-uri."""
        stem = self.get("cs-uri-stem", "cs-uri")
        query = self.get("cs-uri-query")
        return f"{stem}?{query}" if stem and query else stem

    @property
    def status(self) -> int | None:
        """sc-status."""
        return self.number_of("sc-status")

    @property
    def client(self) -> str | None:
        """c-ip."""
        return self.get("c-ip")

    @property
    def user(self) -> str | None:
        """cs-username as logged: `DOMAIN\\user`, or what the phone sent where the logon failed."""
        return self.get("cs-username", "c-auth-id")

    @property
    def user_agent(self) -> str | None:
        """cs(User-Agent) with its spaces; a plus sign that was sent as such cannot be told from one."""
        text = self.get("cs(user-agent)")
        return None if text is None else text.replace("+", " ") if " " not in text else text

    @property
    def resource(self) -> Resource:
        """What was asked for, by the path."""
        return classify(self.target) if self.target else Resource.OTHER

    @property
    def meaning(self) -> Meaning | None:
        """Status, sub-status and Windows error in words; the cause only for what phones ask for."""
        if self.status is None:
            return None
        found = explain(self.status, self.number_of("sc-substatus"), self.number_of("sc-win32-status"))
        return found._replace(cause="") if self.resource is Resource.OTHER else found

    def to_json(self, secrets: bool = False) -> dict[str, Any]:
        """The `iis-request` fact; the user's name only with `secrets`."""
        meaning = self.meaning
        port = self.get("s-port")
        return {
            "fact": "iis-request",
            "line": self.number,
            "time": self.moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if self.moment else None,
            "local_time": self.local_time,
            "client": self.client,
            "server": self.get("s-ip", "s-computername"),
            "port": int(port) if port and port.isascii() and port.isdecimal() and len(port) <= 5 else None,
            "host": self.get("cs-host", "cs(host)"),
            "method": self.method,
            "target": self.target,
            "resource": self.resource.value,
            "status": self.status,
            "substatus": self.number_of("sc-substatus"),
            "win32_status": self.number_of("sc-win32-status"),
            "meaning": meaning.to_json() if meaning else None,
            "user": self.user if secrets or not self.user else REDACTED,
            "user_agent": self.user_agent,
            "sent_bytes": self.number_of("sc-bytes", "bytes"),
            "received_bytes": self.number_of("cs-bytes"),
            "time_taken_ms": self.number_of("time-taken", "timetakenms"),
            "problems": list(self.problems),
        }
