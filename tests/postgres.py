"""A PostgreSQL server of the tests' own: one for the session, one database for each test."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.fleet.postgres import PostgresServer, binaries

__all__ = ["PostgresServer", "postgres_server", "require_postgres"]


def require_postgres() -> Path:
    """The server's programs; skips the test where they are absent, fails where everything must run."""
    found = binaries()
    if found is None:
        missing = "PostgreSQL's server is not installed"
        if os.environ.get("UPSHIM_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


@contextlib.contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running server; skips where there is none to be run."""
    programs = require_postgres()
    # Not below pytest's folder: nobody may not go there, and the name of a socket is short.
    with tempfile.TemporaryDirectory(prefix="upshim-pg-") as folder:
        server = PostgresServer(programs, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
