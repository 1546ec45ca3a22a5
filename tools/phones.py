"""List the phones a recording knows, each with its state.

Examples:
  upshim phones /var/lib/upshim/rec
  upshim phones rec --state failed --state held
  upshim phones postgresql://upshim@db/upshim --json | jq 'select(.failures != [])'

States: unknown, current, eligible (a rule acts on it), offered, downloading, installed (it runs what it was offered),
failed, held (an interlock keeps it as it is). A phone is known by MAC address, else serial number, else its address,
which is weak. --json tells versions, addresses, statuses, users, offers, downloads and failures. Exit code 1: no such
phone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime

import sqlalchemy as sa
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from captures.database_url import Place, place_of
from captures.errors import StoreError
from captures.exchange import rfc3339
from captures.phones import exchanges_of_phones
from captures.schema import PHONES
from captures.store import Store
from dissectors.mac_address import normal_mac
from proxy_addons.history import KEPT_FOR, STATES, Histories, PhoneHistory
from proxy_addons.history_rows import from_row
from proxy_addons.phone_events import rebuild
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("recording", type=place_of, metavar="RECORDING", help="folder, or URL of a database")
    parser.add_argument("--state", action="append", choices=STATES, help="phones in this state; may be repeated")
    parser.add_argument("--mac", help="one phone, its MAC address in any notation")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--secrets", action="store_true", help="show who signs in there (--json; see --store-users)")


def run(args: argparse.Namespace) -> int:
    """List them, those seen last at the end."""
    mac = normal_mac(args.mac) if args.mac is not None else None
    if args.mac is not None and mac is None:
        raise UnusableInput(f"--mac: expected an address such as 00:04:f2:00:01:76, found {args.mac!r}")
    try:
        found = [
            phone
            for phone in histories_in(args.recording)
            if (not args.state or phone.state in args.state) and (mac is None or phone.identity == f"mac:{mac}")
        ]
    except StoreError as error:
        raise UnusableInput(str(error)) from error
    except (sa.exc.SQLAlchemyError, KeyError, TypeError, ValueError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise UnusableInput(f"{args.recording}: damaged: {reason}") from error
    if args.json:
        for phone in found:
            print(json.dumps({"kind": "phone", **phone.to_json(secrets=args.secrets)}))
    else:
        show(found)
    return EXIT_OK if found else EXIT_PROBLEM


def histories_in(place: Place) -> Iterator[PhoneHistory]:
    """The phones of a recording, in the order they were last seen. Raises `StoreError`, `SQLAlchemyError`."""
    with closing(Store.open(place)) as store:
        if not store.folded:  # an older recording, or one that is still being read
            histories = Histories()
            rebuild(histories, exchanges_of_phones(store, datetime.now().astimezone() - KEPT_FOR))
            yield from histories
            return
        query = sa.select(PHONES.c.identity, PHONES.c.history).order_by(PHONES.c.last_seen)
        with store.engine.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                yield from_row(row.identity, row.history)


COLUMNS = ("phone", "state", "runs", "checks", "last seen", "address", "last offer", "failures")
WRAPPED = 30  # characters that failures have at least
LEFT_OUT_FIRST = ("address", "checks", "last offer", "last seen", "failures")  # where the terminal is too narrow


def show(phones: list[PhoneHistory]) -> None:
    """For people. A narrow terminal is shown fewer columns, none of them cut; only why a phone failed is wrapped."""
    console = Console()
    rows = [dict(zip(COLUMNS, row_of(phone), strict=True)) for phone in phones]
    widths = {name: max(map(cell_len, (name, *(row[name] for row in rows)))) for name in COLUMNS}
    widths["failures"] = min(widths["failures"], WRAPPED)
    left_out: list[str] = []
    while console.is_terminal and table_width(widths, left_out) > console.width and len(left_out) < len(LEFT_OUT_FIRST):
        left_out.append(LEFT_OUT_FIRST[len(left_out)])
    table = Table(box=None, pad_edge=False)
    kept = [name for name in COLUMNS if name not in left_out]
    for name in kept:
        table.add_column(name, justify="right" if name == "checks" else "left", no_wrap=name != "failures")
    for row in rows:
        table.add_row(*(row[name] for name in kept))
    # What is too wide all the same is for the terminal to wrap.
    width = max(console.width if console.is_terminal else 200, table_width(widths, left_out))
    Console(width=width).print(table, highlight=False)
    states = [phone.state for phone in phones]
    counts = ", ".join(f"{states.count(state)} {state}" for state in STATES if state in states)
    print(f"{len(phones)} phones{': ' * bool(counts)}{counts}")
    if left_out:
        print(f"Not shown, for want of room: {', '.join(left_out)}")


def table_width(widths: dict[str, int], left_out: list[str]) -> int:
    """What the columns take that are not left out, two spaces between them."""
    kept = [width for name, width in widths.items() if name not in left_out]
    return sum(kept) + 2 * (len(kept) - 1)


def row_of(phone: PhoneHistory) -> tuple[str, ...]:
    """What stands in each of `COLUMNS`."""
    offer = phone.offers[-1] if phone.offers else None
    by = (offer.rule or "the server") if offer is not None else ""
    return (
        phone.identity.removeprefix("mac:"),
        phone.state,
        str(phone.version or "not told"),
        str(phone.checks),
        rfc3339(phone.last_seen)[:19] if phone.last_seen else "",
        phone.addresses[-1][1] if phone.addresses else "",
        f"{offer.version or 'not told'} by {by}" if offer is not None else "",
        f"{len(phone.failures)}: {phone.failures[-1].why}" if phone.failures else "",
    )
