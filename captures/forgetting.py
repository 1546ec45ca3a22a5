"""Takes a phone out of a recording: its exchanges, their facts, and the bodies nobody else needs.

The journal keeps its chain: what was decided stays, under a pseudonym that from now on nobody can resolve, and an entry
of its own says which exchanges were removed.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime
from typing import NamedTuple

from captures.database_url import Place
from captures.exchange import Exchange
from captures.journal import Identity, fact_of, identity_of
from captures.journalling import Journal
from captures.rows import as_text
from captures.store import Store


class Forgotten(NamedTuple):
    """What was removed; `waiting` bodies are too young to be sure that nobody needs them, and go at the next look."""

    exchanges: int = 0
    bodies: int = 0
    waiting: int = 0


def of_phone(exchanges: Iterable[Exchange], mac: str) -> tuple[list[int], set[Identity]]:
    """Indexes of a phone's exchanges, and all that names it in the journal.

    An exchange that does not say whose it is belongs to the phone that named itself on the same connection, else to
    the one that last did so from the same address, before the first to the one that did so first.
    """
    ours: list[int] = []
    names = {Identity("mac", mac)}
    owner_of_connection: dict[str, str] = {}
    owner_of_address: dict[str, str] = {}
    unclaimed: dict[str, list[tuple[int, str]]] = {}
    for exchange in exchanges:
        address = exchange.client.rpartition(":")[0]
        check = fact_of(exchange, "update-check")
        named = str(check["mac_address"]) if check and check.get("mac_address") else None
        if named is not None:
            if exchange.connection:
                owner_of_connection[exchange.connection] = named
            owner_of_address[address] = named
            for index, connection in unclaimed.pop(address, []):
                if owner_of_connection.get(connection, named) == mac:
                    ours.append(index)
        owner = named or owner_of_connection.get(exchange.connection) or owner_of_address.get(address)
        if owner is None:
            unclaimed.setdefault(address, []).append((exchange.index, exchange.connection))
        elif owner == mac:
            ours.append(exchange.index)
            if named is None and check is not None:
                names.add(identity_of(exchange))
    return sorted(ours), names


def history_names(names: Iterable[Identity]) -> list[str]:
    """What the history of the phones calls those that the journal calls so."""
    return [
        as_text(f"{name.kind}:{name.value.strip('[]') if name.kind == 'address' else name.value}") for name in names
    ]


def forget(place: Place, mac: str, now: datetime | None = None) -> Forgotten:
    """Forget a phone, by its MAC in colon form. Raises `CaptureError`, `OSError`, `SQLAlchemyError`."""
    with closing(Store.create(place)) as store:
        journal = Journal(store)
        try:
            # Whoever records waits: an exchange is not journalled under a name that is just being forgotten.
            with journal.file.locked():
                journal.catch_up()
                indexes, names = of_phone(store.exchanges(), mac)
                known = {Identity(*name): pseudonym for pseudonym, name in store.identities().items()}
                pseudonyms = [known[name] for name in sorted(names) if name in known]
                if indexes or pseudonyms:
                    named = pseudonyms or [""]
                    journal.file.append([{"entry": "forgotten", "phone": n, "exchanges": indexes} for n in named])
                    store.forget_identity(pseudonyms, history_names(names))
                    store.remove(indexes)
            bodies = sum(step.bodies for step in store.sweep_bodies(now or datetime.now(UTC)))
            return Forgotten(len(indexes), bodies, store.unneeded_bodies())
        finally:
            journal.file.close()
