"""The tables of a recording's database, and the steps that bring an older one up to date.

`PRAGMA user_version` holds the version. A step runs in one transaction with the change of the version, so that a
process killed in the middle leaves the older version whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import sqlalchemy as sa

SCHEMA_VERSION = 2

METADATA = sa.MetaData()
EXCHANGES = sa.Table(
    "exchanges",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
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
)
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
STATE = sa.Table(
    "state", METADATA, sa.Column("name", sa.Text, primary_key=True), sa.Column("number", sa.BigInteger, nullable=False)
)

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


STEPS: Mapping[int, Step] = {1: _from_1}  # version -> what makes the next one of it


def version_of(connection: sa.Connection) -> int:
    """The version of a database; 0 for an empty one."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def migrate(connection: sa.Connection, steps: Mapping[int, Step] = STEPS, wanted: int = SCHEMA_VERSION) -> None:
    """Bring a database to the wanted version, an empty one at once, within the caller's transaction."""
    version = version_of(connection)
    if version == 0:
        METADATA.create_all(connection)
    else:
        for step in range(version, wanted):
            steps[step](connection)
    connection.exec_driver_sql(f"PRAGMA user_version={wanted}")
