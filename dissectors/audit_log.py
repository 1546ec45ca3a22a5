"""RequestHandlerAuditLog: one row per update check, as the update service writes them (protocol.md section 3).

The header line is not public in full and the sources disagree about the delimiter, so nothing is taken for granted:
the delimiter is sniffed, columns are found by their names without regard to case, spaces and punctuation, and a file
without a header is read in the documented order. A file is read line by line in constant memory.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from dissectors.errors import DissectError
from dissectors.installed_module import AnswerModule, InstalledModule, timestamp_readings
from dissectors.lines import text_lines
from dissectors.mac_address import normal_mac
from dissectors.redaction import REDACTED
from dissectors.version import Version

MAX_COLUMNS = 4096
MAX_PROBLEM = 120  # characters of one remark

DELIMITERS = ",;\t|"
DEVICE_TYPES = ("ucphone", "roundtable")

# Spelling as observed where it was, order as documented (protocol.md section 3.1).
COLUMNS = {
    "logged": "Logging DateTime",
    "user_host_address": "User Host Address",
    "device_type": "Device Type",
    "mac": "Mac Address",
    "serial": "Serial Number",
    "vendor": "Vendor",
    "model": "Model",
    "revision": "Revision",
    "locale": "Locale",
    "request_modules": "Request Modules",
    "response_modules": "Response Modules",
    "user_id": "User Id",
}
_TEXT_COLUMNS = [name for name in COLUMNS if not name.endswith("_modules")]
_ALIASES = {
    "mac": "mac",
    "serial": "serial",
    "brand": "vendor",
    "user": "user_id",
    "username": "user_id",
    "clientip": "user_host_address",
    "hostaddress": "user_host_address",
    "datetime": "logged",
}
_NOT_A_LETTER = re.compile(r"[^a-z0-9]")
_BREAKS = re.compile(r"[\r\n\0]")
# Of undocumented columns, which name users: by their titles (as `_loose` has them) and by the look of what is in them.
_USERS = re.compile(r"user(?!agent|host)|account|person|owner|logon|login|signin|sip|mail|upn|displayname")
_USER = re.compile(r"[^\s\\;#]+\\[^\s\\;#]+|.*[^\s@]@[^\s@].*", re.DOTALL)
_FILE_NAME = re.compile(r"RequestHandlerAuditLog_(?P<server>.+)_(?P<date>[^_]*\d{4}[^_]*)(?P<roll>_.*)?", re.IGNORECASE)


def _loose(title: str) -> str:
    return _NOT_A_LETTER.sub("", title.lower())


def _of_user(title: str, text: str) -> bool:
    return _USERS.search(_loose(title)) is not None or _USER.fullmatch(text) is not None


_LOOSE = {_loose(title): name for name, title in COLUMNS.items()} | _ALIASES


class AuditLogName(NamedTuple):
    """`RequestHandlerAuditLog_<server name>_<date>.log`; the date's form and any roll-over suffix are undocumented."""

    server: str
    date: str
    roll: str

    @classmethod
    def parse(cls, file_name: str) -> AuditLogName:
        """Read a file name; any extension will do (people rename it to .csv). Raises `DissectError`."""
        match = _FILE_NAME.fullmatch(re.sub(r"(\.(log|csv|txt))+$", "", file_name, flags=re.IGNORECASE))
        if match is None:
            raise DissectError(0, "RequestHandlerAuditLog_<server>_<date>.log", repr(file_name[:80]))
        return cls(match["server"], match["date"], (match["roll"] or "").lstrip("_"))


@dataclass(frozen=True, slots=True)
class AuditRow:
    """One update check as logged; blank text where the column is blank or missing.

    `extra` holds columns nobody documented and module lists that could not be read, by their title; `line` is the
    number of the row's line in the file (0 for a row that was never in one).
    """

    logged: str
    user_host_address: str = ""
    device_type: str = ""
    mac: str = ""
    serial: str = ""
    vendor: str = ""
    model: str = ""
    revision: str = ""
    locale: str = ""
    request_modules: tuple[InstalledModule, ...] = ()
    response_modules: tuple[AnswerModule, ...] = ()
    user_id: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()
    line: int = 0

    @property
    def when(self) -> datetime | None:
        """The time logged, without a zone; None where it is unreadable or of unknown day and month order."""
        readings = timestamp_readings(self.logged)
        return readings[0] if len(readings) == 1 else None

    @property
    def normal_mac(self) -> str | None:
        """The MAC as `00:04:f2:00:01:76`; None where it is blank or not one."""
        return normal_mac(self.mac)

    def to_json(self, secrets: bool = False) -> dict[str, Any]:
        """Plain values: `line`, one field per column (null where blank), `when`, `mac_address`, `extra`, `problems`.

        Users are shown only with `secrets`, also in columns that nobody documented.
        """
        shown: dict[str, Any] = {"line": self.line}
        for name in COLUMNS:
            value = getattr(self, name)
            shown[name] = [module.to_json() for module in value] if isinstance(value, tuple) else value or None
        shown["when"] = None if self.when is None else self.when.isoformat()
        shown["mac_address"] = self.normal_mac
        if self.user_id and not secrets:
            shown["user_id"] = REDACTED
        hidden = not secrets
        shown["extra"] = [[title, REDACTED if hidden and _of_user(title, text) else text] for title, text in self.extra]
        shown["problems"] = list(self.problems)
        return shown

    def to_text(self, delimiter: str = ",") -> str:
        """The row without a line end, documented columns only. Raises `DissectError` where a value has no such form."""
        cells = []
        for name, title in COLUMNS.items():
            if name == "request_modules":
                value = InstalledModule.list_to_text(self.request_modules)
            elif name == "response_modules":
                value = AnswerModule.list_to_text(self.response_modules)
            else:
                value = getattr(self, name)
            if _BREAKS.search(value) or value != value.strip():
                raise DissectError(0, f"a {title} on one line, without blanks around it", repr(value[:40]))
            cells.append(value)
        return _join(cells, delimiter)


def header_text(delimiter: str = ",") -> str:
    """The header line, without a line end."""
    return _join(COLUMNS.values(), delimiter)


def is_header(text: str) -> bool:
    """Whether a line is a header line."""
    return _Layout.of_header(text) is not None


def read_rows(chunks: Iterable[bytes]) -> Iterator[AuditRow]:
    """Rows of a log file given in chunks of any size, one at a time.

    What is odd about a row is in its `problems`; a header that comes again (files joined by somebody) is followed.
    Raises `DissectError` where the first line is neither a header nor a row, `LimitExceeded` at an endless line.
    """
    layout: _Layout | None = None
    for number, offset, text in text_lines(chunks):
        if not text.strip() or (layout is None and text.lower().startswith("sep=")):
            continue
        if layout is None or _loose(text[:80]).startswith(_loose(layout.titles[0])):
            header = _Layout.of_header(text)
            if header is not None:
                layout = header
                continue
        if layout is None:
            layout = _Layout.without_header(text)
            if layout is None:
                raise DissectError(offset, "the header or a row of a RequestHandlerAuditLog", repr(text[:60]))
        yield layout.row(text, number)


def _join(cells: Iterable[str], delimiter: str) -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, lineterminator="").writerow(cells)
    return text.getvalue()


def _cells(text: str, delimiter: str) -> list[str]:
    """Split one line. Raises `DissectError`."""
    if text.count(delimiter) >= MAX_COLUMNS:
        raise DissectError(0, f"at most {MAX_COLUMNS} columns", "more")
    try:
        cells = next(csv.reader([text.replace("\r", " ")], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error as error:
        raise DissectError(0, "one row of delimited text", str(error)) from None
    return [cell.strip() for cell in cells]


class _Layout(NamedTuple):
    """Which column stands where: field names, or None for a column that is not known."""

    delimiter: str
    titles: tuple[str, ...]
    names: tuple[str | None, ...]

    @classmethod
    def of_header(cls, text: str) -> _Layout | None:
        """The layout a header line declares; None where the line is no header."""
        best: _Layout | None = None
        for delimiter in DELIMITERS:
            try:
                titles = _cells(text, delimiter)
            except DissectError:
                continue
            names = [_LOOSE.get(_loose(title)) for title in titles]
            # A title that comes twice counts once: the first one is the column.
            names = [None if name in names[:at] else name for at, name in enumerate(names)]
            known = len(names) - names.count(None)
            if known >= 3 and known * 2 >= len(names) and (best is None or len(names) > len(best.names)):
                best = cls(delimiter, tuple(titles), tuple(names))
        return best

    @classmethod
    def without_header(cls, text: str) -> _Layout | None:
        """The documented order, where the line looks like a row of it."""
        for delimiter in DELIMITERS:
            try:
                cells = _cells(text, delimiter)
            except DissectError:
                continue
            if len(cells) >= 9 and cells[2].lower() in DEVICE_TYPES:
                return cls(delimiter, tuple(COLUMNS.values()), tuple(COLUMNS))
        return None

    def row(self, text: str, number: int) -> AuditRow:
        """Read one line; never fails, what cannot be read is told in the row's problems."""
        try:
            cells = _cells(text, self.delimiter)
        except DissectError as error:
            return AuditRow("", problems=(str(error)[:MAX_PROBLEM],), line=number)
        problems: list[str] = []
        if self.delimiter == ";":
            cells = self._rejoined(cells)
        # A trailing User ID is optional; anything else missing is worth a word.
        if len(cells) < len(self.names) - 1:
            problems.append(f"{len(cells)} columns of {len(self.names)}")
        extra = [(self._title(at), cell) for at, cell in enumerate(cells) if cell and self._name(at) is None]
        found = {name: cell for name, cell in zip(self.names, cells, strict=False) if name}
        requested: tuple[InstalledModule, ...] = ()
        offered: tuple[AnswerModule, ...] = ()
        try:
            requested = InstalledModule.parse_list(found.get("request_modules", ""))
        except DissectError as error:
            problems.append(f"request modules: {error}"[:MAX_PROBLEM])
            extra.append((COLUMNS["request_modules"], found["request_modules"]))
        try:
            offered = AnswerModule.parse_list(found.get("response_modules", ""))
        except DissectError as error:
            problems.append(f"response modules: {error}"[:MAX_PROBLEM])
            extra.append((COLUMNS["response_modules"], found["response_modules"]))
        texts = {name: found.get(name, "") for name in _TEXT_COLUMNS}
        if texts["mac"] and normal_mac(texts["mac"]) is None:
            problems.append(f"not a MAC address: {texts['mac']!r}"[:MAX_PROBLEM])
        return AuditRow(
            **texts,
            request_modules=requested,
            response_modules=offered,
            extra=tuple(extra),
            problems=tuple(problems),
            line=number,
        )

    def _name(self, at: int) -> str | None:
        return self.names[at] if at < len(self.names) else None

    def _title(self, at: int) -> str:
        return self.titles[at] if at < len(self.titles) else f"column {at + 1}"

    def _rejoined(self, cells: Sequence[str]) -> list[str]:
        """Put module lists together again that were split because `;` delimits columns too (two sources say so)."""
        whole: list[str] = []
        at = 0
        for name in self.names:
            if at >= len(cells):
                break
            parts = {"request_modules": 3, "response_modules": 4}.get(name or "", 1)
            end = at + 1
            if parts > 1 and cells[at] and ";" not in cells[at]:
                end = _end_of_modules(cells, at, parts)
            whole.append(";".join(cells[at:end]))
            at = end
        return [*whole, *cells[at:]]


def _end_of_modules(cells: Sequence[str], at: int, parts: int) -> int:
    """Where a module list ends: the last part of a module holds the `#` and the first part of the next one."""
    first = cells[at]
    while True:
        at += parts - 1 if _is_version(first) and parts == 3 else parts
        if at > len(cells) or "#" not in cells[at - 1]:
            return min(at, len(cells))
        first = cells[at - 1].partition("#")[2].strip()
        at -= 1


def _is_version(text: str) -> bool:
    try:
        Version.parse(text)
    except DissectError:
        return False
    return True
