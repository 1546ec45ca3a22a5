"""Records for people."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dissectors.cabinet import display_name
from proxy_addons.outline import outline

PIPED = 400  # columns: nothing is cut where a program reads
MAX_LISTED = 200  # members, rows and list entries shown to people; --json has all
_ABOUT = ("kind", "file", "size", "sha1", "sha256", "problems", "findings")
_SEVERITY = {"error": "red", "warning": "yellow", "info": ""}
# Title of a column -> where its value is in a row; the first that is there is shown.
_LOGS = {
    "iis-log": {
        "line": ("line",),
        "time": ("time", "local_time"),
        "client": ("client",),
        "method": ("method",),
        "status": ("status",),
        "meaning": ("meaning",),
        "user": ("user",),
        "target": ("target",),
        "user agent": ("user_agent",),
    },
    "audit-log": {
        "line": ("line",),
        "logged": ("logged",),
        "address": ("user_host_address",),
        "MAC": ("mac_address", "mac"),
        "serial": ("serial",),
        "model": ("model",),
        "revision": ("revision",),
        "locale": ("locale",),
        "runs": ("request_modules",),
        "is offered": ("response_modules",),
        "user": ("user_id",),
    },
}
_CERTIFICATE = (
    "subject",
    "issuer",
    "not_before",
    "not_after",
    "signature_algorithm",
    "sha1",
    "der_sha1",
    "private_keys",
)


class Printer:
    """Prints records to standard output; no colour when piped."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(
            soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else PIPED
        )

    def show(self, record: dict[str, Any]) -> None:
        """One record."""
        self._title(record)
        if record["kind"] == "cab":
            self._cabinet(record)
        elif record["kind"] in _LOGS:
            self._log(record)
        elif record["kind"] == "der":
            for one in record.get("items", (record,)):
                self._nodes(one)
        else:
            shown = {name: value for name, value in record.items() if name not in _ABOUT}
            self._lines(outline(_shortened(shown)))
        for finding in record.get("findings", ()):
            self._print(f"  {finding['severity']}: {finding['words']}", _SEVERITY[finding["severity"]])
        told = {finding["words"] for finding in record.get("findings", ())}
        for problem in record["problems"]:
            if problem not in told:
                self._print(f"  problem: {problem}", "red")
        self._print("")

    def _log(self, record: dict[str, Any]) -> None:
        shown = {name: value for name, value in record.items() if name not in (*_ABOUT, "rows")}
        self._lines(outline(_shortened(shown)))
        columns = _LOGS[record["kind"]]
        rows = [[_cell(row, names) for names in columns.values()] for row in record["rows"][:MAX_LISTED]]
        table = Table(box=None, header_style="")
        used = [any(row[at] for row in rows) for at in range(len(columns))]
        for title, is_used in zip(columns, used, strict=True):
            if is_used:
                table.add_column(title, overflow="fold")
        for row in rows:
            table.add_row(*(Text(display_name(cell)) for cell, is_used in zip(row, used, strict=True) if is_used))
        if rows:
            self._console.print(table)
        if (more := record.get("row_count", record.get("entries", 0)) - len(rows)) > 0:
            self._print(f"  and {more} more (--json and --rows list more)")

    def _nodes(self, record: dict[str, Any]) -> None:
        for node in record["nodes"]:
            value = f" {node['value']}" if "value" in node else ""
            self._print(f"  {node['offset']:6} {'  ' * node['depth']}{node['tag']}, {node['size']} bytes{value}")

    def _title(self, record: dict[str, Any]) -> None:
        name = record.get("file") or record.get("catalog", "")
        size = f", {record['size']} bytes" if "size" in record else ""
        self._print(f"{name}: {record['kind']}{size}", "bold")
        if "sha256" in record:
            self._print(f"  sha256 {record['sha256']}")

    def _cabinet(self, record: dict[str, Any]) -> None:
        if "joined_in" in record:
            self._print(f"  cabinet {record['set_index']} of a set, told with {record['joined_in']}")
            return
        if record.get("offset"):
            self._print(f"  at offset {record['offset']}{_around(record.get('container'))}")
            if (signature := record.get("container", {}).get("signature")) is not None:
                self._signature(signature, "the program is signed by")
        if len(record.get("files", ())) > 1:
            self._print(f"  joined from {', '.join(record['files'])}")
        for number, folder in enumerate(record.get("folders", ())):
            window = f"-{folder['window']}" if folder["window"] else ""
            sizes = f"{folder['blocks']} blocks, {folder['packed_size']} -> {folder['size']} bytes"
            self._print(f"  folder {number}: {folder['compression'].upper()}{window}, {sizes}")
        if record.get("members"):
            self._console.print(_members(record["members"], short=self._console.is_terminal))
        if (signature := record.get("signature")) is not None:
            self._signature(signature)
        for catalog in record.get("catalogs", ()):
            self._print(f"  catalog {catalog['catalog'].rpartition(':')[2]}: {catalog['entries']} entries")
            for listed in catalog["lists"]:
                self._print(f"    lists {listed['file'].rpartition(':')[2]} ({listed['hash']})")
            if catalog["unmatched"]:
                self._print(f"    {catalog['unmatched']} entries are of files that are not here")
        for package in record.get("packages", ()):
            self._lines(outline({"package": package}))
        for other in record.get("more", ()):
            self._print(f"  and another cabinet at offset {other['offset']}:")
            self._cabinet(other)

    def _signature(self, signature: dict[str, Any], by: str = "signed by") -> None:
        state = {True: "verified", False: "NOT VERIFIED", None: "not checked"}[signature["verified"]]
        self._print(f"  {by} {signature['signer']}: {state}", "green" if signature["verified"] else "red")
        self._print(f"    {signature['digest_algorithm']} digest {signature['digest']}")
        if signature.get("timestamp"):
            self._print(f"    at {signature['timestamp']}")

    def _lines(self, lines: Iterator[str]) -> None:
        for line in lines:
            self._print(f"  {line}")

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(display_name(text), style=style))


def _cell(row: dict[str, Any], names: tuple[str, ...]) -> str:
    """What a row has under the first of these names."""
    value = next((row[name] for name in names if row.get(name) is not None), "")
    if isinstance(value, dict):
        return ": ".join(filter(None, (value.get("words"), value.get("cause"))))
    if isinstance(value, list):
        return ", ".join(" ".join(filter(None, (one.get("file"), one.get("version")))) for one in value)
    return str(value)


def _around(container: dict[str, Any] | None) -> str:
    """What a cabinet was found in, for people."""
    kinds = {part["part"]: part for part in (container or {}).get("parts", ())}
    if "pe" in kinds:
        return f" of a program for {kinds['pe']['subsystem']} on {kinds['pe']['machine']}"
    return ""


def _members(members: list[dict[str, Any]], *, short: bool) -> Table:
    table = Table(box=None, header_style="")
    for title in ("size", "date", "attributes", "sha256", "name", "content"):
        table.add_column(title, justify="right" if title == "size" else "left", overflow="fold")
    for member in members[:MAX_LISTED]:
        content = member.get("content", {}).get("kind", "")
        cells = (
            str(member["size"]),
            member["date"] or "",
            ",".join(member["attributes"]),
            member.get("problem") or (member.get("sha256", "")[:12] + "…" if short else member.get("sha256", "")),
            member["name"],
            "" if content == "unknown" else content,
        )
        table.add_row(*(Text(display_name(cell)) for cell in cells))
    if len(members) > MAX_LISTED:
        table.add_row("", "", "", "", f"and {len(members) - MAX_LISTED} more (--json lists all)", "")
    return table


def _shortened(value: Any, name: str = "") -> Any:
    """Certificates by what tells them apart, long lists by their beginning."""
    if isinstance(value, list):
        short = [_shortened(one, name) for one in value[:MAX_LISTED]]
        return [*short, f"and {len(value) - MAX_LISTED} more"] if len(value) > MAX_LISTED else short
    if isinstance(value, dict):
        if "public_key" in value or ("subject" in value and "not_after" in value):
            return {key: _shortened(value[key], key) for key in _CERTIFICATE if key in value}
        return {key: _shortened(one, key) for key, one in value.items()}
    return value
