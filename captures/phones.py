"""What a recording tells of phones: the exchanges from which their history is built again at start.

The history itself is not stored: derived from what is, it cannot contradict the recording, and a crash loses no more of
it than of the recording.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from captures.errors import StoreError
from captures.exchange import Exchange
from captures.schema import EXCHANGES
from captures.store import Store

PHONE_FACTS = frozenset({"update-check", "firmware-fetch"})


def exchanges_of_phones(store: Store, since: datetime) -> Iterator[Exchange]:
    """Update checks and downloads that ended at `since` or later, in the order they ended. Raises `StoreError`."""
    moment = (since.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    try:
        with store.reading.connect() as connection:
            first = connection.execute(
                sa.select(sa.func.min(EXCHANGES.c.id)).where(EXCHANGES.c.ended >= moment)
            ).scalar_one()
    except sa.exc.SQLAlchemyError as error:
        raise StoreError(store.name, f"damaged recording: {str(error).splitlines()[0]}") from error
    if first is None:
        return
    for exchange in store.exchanges(after=first - 1):
        if exchange.ended >= since and any(fact["fact"] in PHONE_FACTS for fact in exchange.facts):
            yield exchange
