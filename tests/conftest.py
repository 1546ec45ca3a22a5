"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from captures.database_url import DatabaseUrl, Place

if TYPE_CHECKING:
    from tests.postgres import PostgresServer

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ROOT.parent / "shared" / "corpus"


# How long an example takes says how busy the machine is.
settings.register_profile("upshim", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("upshim")


def require_tool(name: str) -> str:
    """Path of an external program; skips the test where it is absent, fails where everything must run."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if path is None:
        cannot_run(f"{name} is not installed")
    return path


def cannot_run(why: str) -> NoReturn:
    """Skip the test; it fails where everything must run."""
    if os.environ.get("UPSHIM_REQUIRE_ALL"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The folder of real captures and payloads; it is private test data and not part of the project."""
    if not CORPUS.is_dir():
        pytest.skip("the corpus is not beside the project")
    return CORPUS


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server that all tests share: none may stop it."""
    from tests.postgres import postgres_server  # needs the driver

    with postgres_server() as server:
        yield server


@pytest.fixture
def database(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DatabaseUrl:
    """An empty database; what is kept beside it is in the test's folder."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return postgres.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where to record to: a folder, then a database."""
    if request.param == "sqlite":
        return tmp_path / "rec"
    found: DatabaseUrl = request.getfixturevalue("database")
    return found


# The fixtures for users are there by themselves where upshim is installed; a bare checkout names them.
pytest_plugins = ["proxy_addons.pytest_plugin"]
