"""What `upshim proxy` says while it runs: one line per event, as text for people and the journal, or as JSON Lines.

Every JSON line has

- `time` (RFC 3339, UTC), `level` (`info`, `warning`, `error`), `event`, and `message`, the line for people.

Events of upshim's own, and what else their lines hold:

- `decision`, one for each update check: `connection` (the recording's name for it), `address`, `phone` (MAC address,
  else serial number), `vendor`, `model`, `version` (what the phone runs), `action` (`leave`, `observe`, `hold`,
  `report`, `offer`), `rule`, `target` (the version reported or offered), `dry_run`, `reason`;
- `failure`, the first of each cause: `cause`, `detail`, `count`; and every ten minutes those that grew: `cause`,
  `more`, `count`;
- `rules`: `rules`, `sha256` where a file came into force, `refused` where the old one stays;
- `certificate`: `file` and `summary` of the one that phones are shown from now on, `refused` where the old one stays;
- `switch`: `stopped`, whether all rewriting is off, and `why`;
- `server`: `unreachable`, why the server cannot be reached from here; blank once it can be again;
- `log-lost`: `lines` that nobody read in time;
- `log`: everything else, with `logger` where it is not upshim's.

Users and credentials are taken out of every line, whoever wrote it; control characters are shown as escapes, so that
what a phone says cannot begin a line of its own.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from dissectors.sip_users import mask_users
from proxy_addons.rewriter import Checked

logger = logging.getLogger("upshim")

FORMATS = ("text", "json")
MAX_WAITING = 10_000  # lines that nobody has read yet
MAX_LINE = 4000  # characters of one message
TOGETHER = 100  # lines written at once
GATHER_FOR = 0.05  # seconds a line may wait for others to be written with
CLOSE_WITHIN = 5.0  # seconds for the last lines to be written
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}  # syslog(3)

_NTLM = re.compile(r"TlRMTVNT[A-Za-z0-9+/=]*")  # a token, wherever it stands: base64 of "NTLMSSP"
_TOKEN = re.compile(r"\b(Basic|Bearer|Negotiate|NTLM)\s+(?=\S{0,64}[0-9+/=])[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
_HEADER = re.compile(r"\b((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?\s?[:=,]).*", re.IGNORECASE | re.DOTALL)
# One of these stands in everything that is taken out.
_SUSPECT = ("@", "sip", "tlrmtvnt", "basic", "bearer", "negotiate", "ntlm", "authorization", "cookie")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def event(name: str, **fields: Any) -> dict[str, Any]:
    """The `extra` of a log call that says what its line is about."""
    return {"upshim_event": name, "upshim_fields": fields}


def scrub(text: str) -> str:
    """A text without users and credentials, on one line, and not endless."""
    text = text[:MAX_LINE]
    lower = text.casefold()
    if text.isprintable() and not any(word in lower for word in _SUSPECT):
        return text  # most lines
    masked = _HEADER.sub(r"\1\2 <redacted>", mask_users(text))
    masked = _TOKEN.sub(r"\1 <redacted>", _NTLM.sub("<redacted>", masked))
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", masked)


class JsonLines(logging.Formatter):
    """A record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": moment_of(record),
            "level": record.levelname.lower(),
            "event": getattr(record, "upshim_event", "log"),
            "message": scrub(record.getMessage().removeprefix("upshim: ")),
        }
        if record.name != logger.name:
            line["logger"] = record.name
        for name, value in getattr(record, "upshim_fields", {}).items():
            line[name] = scrub(value) if isinstance(value, str) else value
        if record.exc_info:
            line["traceback"] = [scrub(part) for part in self.formatException(record.exc_info).splitlines()]
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """A record for people. The journal has its own clock and reads `<priority>` in front of a line."""

    def __init__(self, *, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """The line, and those of a traceback after it."""
        lines = [scrub(record.getMessage())]
        if record.exc_info:
            lines += map(scrub, self.formatException(record.exc_info).splitlines())
        if self._journal:
            return "\n".join(f"<{PRIORITIES.get(record.levelno, 6)}>{line}" for line in lines)
        return "\n".join((f"{moment_of(record)} {record.levelname} {lines[0]}", *lines[1:]))


def moment_of(record: logging.LogRecord) -> str:
    """When a record was made."""
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written goes to systemd's journal (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = environment.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class Lines(logging.Handler):
    """Writes records in a thread of its own: a terminal or pipe that nobody reads holds up no exchange.

    The thread looks every `GATHER_FOR` seconds while there is something to write: being woken for each line would cost
    an exchange more than the line itself.
    """

    def __init__(self, stream: TextIO, formatter: logging.Formatter, most: int = MAX_WAITING) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lost = 0
        self._told = 0
        self._stream = stream
        self._most = most
        self._waiting: deque[logging.LogRecord] = deque()
        self._some = threading.Event()  # something waits, or it is time to go
        self._hurry = threading.Event()
        self._idle = threading.Event()  # all is written
        self._idle.set()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="upshim-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record."""
        if len(self._waiting) >= self._most:
            self.lost += 1
            return
        self._waiting.append(record)
        if not self._some.is_set():
            self._idle.clear()
            self._some.set()

    def flush(self) -> None:
        """Wait until what is queued is written, `CLOSE_WITHIN` seconds at most."""
        if self._thread.is_alive() and self._some.is_set():
            self._hurry.set()
            self._idle.wait(CLOSE_WITHIN)

    def close(self) -> None:
        """Write what is queued and stop; gives up after `CLOSE_WITHIN` seconds."""
        logging.getLogger().removeHandler(self)
        self._closing = True
        self._hurry.set()
        self._some.set()
        self._thread.join(CLOSE_WITHIN)
        super().close()

    def _run(self) -> None:
        while not (self._closing and not self._waiting):
            self._some.wait()
            self._hurry.wait(GATHER_FOR)
            self._hurry.clear()
            while self._waiting:
                self._write([self._waiting.popleft() for _ in range(min(len(self._waiting), TOGETHER))])
            self._tell_lost()
            self._some.clear()
            if self._waiting or self._closing:  # since the last look
                self._some.set()
            else:
                self._idle.set()

    def _tell_lost(self) -> None:
        lost = self.lost - self._told
        if lost:
            self._told += lost
            text = f"upshim: {lost} lines of this log were lost: nobody read them in time"
            note = logger.makeRecord(logger.name, logging.WARNING, "", 0, text, (), None)
            note.__dict__.update(event("log-lost", lines=lost))
            self._write([note])

    def _write(self, records: Sequence[logging.LogRecord]) -> None:
        lines = [line for record in records if (line := self._line(record)) is not None]
        try:
            # Every call of the system is one more turn with the traffic.
            self._stream.write("".join(lines))
            self._stream.flush()
        except Exception:  # noqa: BLE001 - a log that cannot be written ends nothing
            self.lost += len(lines)

    def _line(self, record: logging.LogRecord) -> str | None:
        try:
            return self.format(record) + "\n"
        except Exception:  # noqa: BLE001 - neither does a record that cannot be told
            self.lost += 1
            return None


def lines_lost() -> int:
    """Lines that could not be written."""
    return sum(handler.lost for handler in logging.getLogger().handlers if isinstance(handler, Lines))


def start(stream: TextIO, form: str) -> Lines:
    """Let everything that is logged go to a stream, in one of `FORMATS`; `close` it in the end."""
    lines = Lines(stream, JsonLines() if form == "json" else TextLines(journal=to_journal(stream)))
    logging.getLogger().addHandler(lines)
    return lines


def log_decision(checked: Checked, connection: str, *, dry_run: bool) -> None:
    """The line of one update check."""
    phone, decision = checked.phone, checked.decision
    if phone is None:
        return
    name = phone.mac or phone.serial
    version = decision.report.version if decision.report else decision.offer.version if decision.offer else None
    logger.info(
        "upshim: check from %s %s %s %s: %s%s%s (%s)",
        name or "an unnamed phone",
        phone.vendor,
        phone.model,
        phone.version,
        decision.action,
        f" by rule {decision.rule.name}" if decision.rule else "",
        ", dry run" if dry_run else "",
        decision.reason,
        extra=event(
            "decision",
            connection=connection,
            address=phone.address,
            phone=name,
            vendor=phone.vendor,
            model=phone.model,
            version=phone.version and str(phone.version),
            action=decision.action,
            rule=decision.rule and decision.rule.name,
            target=version and str(version),
            dry_run=dry_run,
            reason=decision.reason,
        ),
    )
