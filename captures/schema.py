"""The tables of a recording's database, and the steps that bring an older one up to date.

In SQLite `PRAGMA user_version` holds the version, in PostgreSQL a row of `state`. A step runs in one transaction with
the change of the version, so that a process killed in the middle leaves the older version whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from captures.engines import is_shared

SCHEMA_VERSION = 3
FIRST_SHARED = 3  # PostgreSQL was added with it
VERSION = "schema version"

METADATA = sa.MetaData()
INDEX = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
EXCHANGES = sa.Table(
    "exchanges",
    METADATA,
    sa.Column("id", INDEX, primary_key=True, autoincrement=False),
    sa.Column("connection", sa.Text, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("server", sa.Text, nullable=False),
    # Times are microseconds since 1970, UTC.
    sa.Column("started", sa.BigInteger, nullable=False),
    sa.Column("request_ended", sa.BigInteger),
    sa.Column("response_started", sa.BigInteger),
    sa.Column("ended", sa.BigInteger, nullable=False),
    sa.Column("complete", sa.Boolean, nullable=False),
    sa.Column("problems", sa.JSON, nullable=False),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("response", sa.JSON(none_as_null=True)),
    sa.Column("rewritten_request", sa.JSON(none_as_null=True)),
    sa.Column("rewritten_response", sa.JSON(none_as_null=True)),
    sa.Column("client_mac", sa.Text, nullable=False, server_default=""),
    # Given before the exchange is written: it is written once, however often a commit of unknown outcome is repeated.
    sa.Column("uid", sa.Text),
)
UIDS = sa.Index("exchanges_by_uid", EXCHANGES.c.uid, unique=True)
SINCE_3 = ("client_mac", "uid")
FACTS = sa.Table(
    "facts",
    METADATA,
    sa.Column("exchange", sa.ForeignKey("exchanges.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("fact", sa.Text, nullable=False),
    sa.Column("content", sa.JSON, nullable=False),
)
# Which body files an exchange needs: a body goes when nobody needs it any more.
BODY_USES = sa.Table(
    "body_uses",
    METADATA,
    sa.Column("exchange", sa.ForeignKey("exchanges.id"), primary_key=True),
    sa.Column("sha256", sa.Text, primary_key=True, index=True),
    sa.Column("size", sa.BigInteger, nullable=False),
)
# Who the journal's pseudonyms are. Random, so that nothing tells once the row is gone.
IDENTITIES = sa.Table(
    "identities",
    METADATA,
    sa.Column("pseudonym", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.UniqueConstraint("kind", "value"),
)
# `last exchange`: the highest index ever given; an index is never given twice. `expired through`: see Store.expire.
# `folded`: exchanges up to this index are part of the phones' history below.
STATE = sa.Table(
    "state", METADATA, sa.Column("name", sa.Text, primary_key=True), sa.Column("number", sa.BigInteger, nullable=False)
)

# What is known of each phone: made of the exchanges, in the transactions that write them, and never anything else.
PHONES = sa.Table(
    "phones",
    METADATA,
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("address", sa.Text, index=True),
    sa.Column("attempt", sa.Text),  # the version it is on its way to, blank where that is not known
    sa.Column("last_seen", sa.BigInteger, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("history", sa.JSON, nullable=False),
)
CENSUS = sa.Index("phones_census", PHONES.c.state, PHONES.c.version)
ON_THEIR_WAY = sa.Index("phones_on_their_way", PHONES.c.address, PHONES.c.attempt)
# How attempts ended.
OUTCOMES = sa.Table(
    "outcomes",
    METADATA,
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, primary_key=True),
    sa.Column("path", sa.Text, nullable=False),
    sa.Column("worked", sa.Boolean, nullable=False),
)
BY_PATH = sa.Index("outcomes_by_path", OUTCOMES.c.path, OUTCOMES.c.at)
# Phones on an upgrade path of which is not known yet how their attempt will end.
UNDECIDED = sa.Table(
    "undecided",
    METADATA,
    sa.Column("path", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)
# Places among the concurrent downloads of a rule: one of a phone for what it was offered, with a blank uid, and one
# for each file under way, by the uid of its exchange.
PLACES = sa.Table(
    "places",
    METADATA,
    sa.Column("identity", sa.Text, primary_key=True),
    sa.Column("uid", sa.Text, primary_key=True),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("granted", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger, nullable=False),
)
BY_RULE = sa.Index("places_by_rule", PLACES.c.rule, PLACES.c.until)
# Offers decided on whose exchange, of this uid, is not recorded yet. Once it is, the tables above tell what came of it;
# if it never is, the offer counts as made.
RESERVATIONS = sa.Table(
    "reservations",
    METADATA,
    sa.Column("uid", sa.Text, primary_key=True),
    sa.Column("identity", sa.Text, nullable=False, index=True),
    sa.Column("rule", sa.Text, nullable=False, index=True),
    sa.Column("path", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)
HISTORY = (PHONES, OUTCOMES, UNDECIDED, PLACES, RESERVATIONS)

# In PostgreSQL only; a folder has files for them.
BODIES = sa.Table(
    "bodies",
    METADATA,
    sa.Column("sha256", sa.Text, primary_key=True),
    sa.Column("touched", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)
JOURNAL = sa.Table(
    "journal",
    METADATA,
    sa.Column("n", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Text, nullable=False),
)
SHARED_ONLY = (BODIES, JOURNAL)

Step = Callable[[sa.Connection], None]

_USES_OF_MESSAGES = """
INSERT OR IGNORE INTO body_uses (exchange, sha256, size)
SELECT id, json_extract(message, '$.body.sha256'), json_extract(message, '$.body.size') FROM
  (SELECT id, request AS message FROM exchanges UNION ALL SELECT id, response FROM exchanges
   UNION ALL SELECT id, rewritten_request FROM exchanges UNION ALL SELECT id, rewritten_response FROM exchanges)
WHERE message IS NOT NULL AND json_extract(message, '$.body.size') > 0
UNION ALL
SELECT id, json_extract(message, '$.body.encoded_sha256'), json_extract(message, '$.body.encoded_size') FROM
  (SELECT id, request AS message FROM exchanges UNION ALL SELECT id, response FROM exchanges
   UNION ALL SELECT id, rewritten_request FROM exchanges UNION ALL SELECT id, rewritten_response FROM exchanges)
WHERE message IS NOT NULL AND json_extract(message, '$.body.encoded_sha256') IS NOT NULL
"""


def _from_1(connection: sa.Connection) -> None:
    for table in (BODY_USES, IDENTITIES, STATE):
        table.create(connection)
    connection.exec_driver_sql(_USES_OF_MESSAGES)


def _from_2(connection: sa.Connection) -> None:
    connection.exec_driver_sql("ALTER TABLE exchanges ADD COLUMN client_mac TEXT NOT NULL DEFAULT ''")
    connection.exec_driver_sql("ALTER TABLE exchanges ADD COLUMN uid TEXT")
    UIDS.create(connection)
    for table in HISTORY:
        table.create(connection)


STEPS: Mapping[int, Step] = {1: _from_1, 2: _from_2}  # version -> what makes the next one of it


def version_of(connection: sa.Connection) -> int:
    """The version of a database; 0 for an empty one."""
    if not is_shared(connection):
        return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
    if not sa.inspect(connection).has_table(STATE.name):
        return 0
    found = connection.execute(sa.select(STATE.c.number).where(STATE.c.name == VERSION)).scalar_one_or_none()
    return int(found or 0)


def columns_of(version: int) -> list[sa.Column[object]]:
    """The columns of an exchange in a database of this version."""
    return [column for column in EXCHANGES.columns if version >= 3 or column.name not in SINCE_3]


def migrate(connection: sa.Connection, steps: Mapping[int, Step] = STEPS, wanted: int = SCHEMA_VERSION) -> None:
    """Bring a database to the wanted version, an empty one at once, within the caller's transaction."""
    version, shared = version_of(connection), is_shared(connection)
    if version == 0:
        tables = [table for table in METADATA.sorted_tables if shared or table not in SHARED_ONLY]
        METADATA.create_all(connection, tables)
    else:
        for step in range(version, wanted):
            steps[step](connection)
    if not shared:
        connection.exec_driver_sql(f"PRAGMA user_version={wanted}")
    elif version != wanted:
        connection.execute(STATE.delete().where(STATE.c.name == VERSION))
        connection.execute(STATE.insert().values(name=VERSION, number=wanted))
