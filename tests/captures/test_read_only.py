"""Recordings where nothing may be written: evidence, snapshots, folders of somebody else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from captures.errors import StoreError
from captures.exchange import Exchange
from captures.read_options import ReadOptions
from captures.recording_folder import DATABASE
from captures.store import Store
from captures.store_reader import read
from tests.captures.test_store import an_exchange
from tests.strangers import as_a_stranger, for_everybody


@pytest.fixture
def folder() -> Iterator[Path]:
    with for_everybody() as reachable:
        yield reachable / "100% #1?"


def log_of(folder: Path) -> Path:
    return folder / f"{DATABASE}-wal"


def let_be_read(folder: Path) -> None:
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


def problems_in(folder: Path) -> list[tuple[str, ...]]:
    return [item.problems for item in read(folder, ReadOptions()) if isinstance(item, Exchange)]


def snapshot(folder: Path, *left_out: str) -> None:
    """What a copy holds that is taken while a recording is written: the last exchange is in the log."""
    with closing(Store.create(folder.with_name("live"))) as store:
        store.add([an_exchange("in the log")])
        assert log_of(folder.with_name("live")).stat().st_size
        shutil.copytree(folder.with_name("live"), folder, ignore=shutil.ignore_patterns(*left_out))
    let_be_read(folder)


def test_one_that_was_closed(folder: Path) -> None:
    with closing(Store.create(folder)) as store:
        store.add([an_exchange("kept")])
    let_be_read(folder)
    with as_a_stranger(folder, 0o555):
        assert problems_in(folder) == [("kept",)]
    assert {path.name for path in folder.iterdir()} == {DATABASE, "bodies"}


def test_what_the_log_holds_is_not_left_out(folder: Path) -> None:
    snapshot(folder)
    with as_a_stranger(folder, 0o555):
        assert problems_in(folder) == [("in the log",)]


def test_a_log_that_cannot_be_read_is_named(folder: Path) -> None:
    snapshot(folder, "*-shm")
    with as_a_stranger(folder, 0o555), pytest.raises(StoreError, match=r"copy the folder, store\.sqlite-wal included"):
        problems_in(folder)
    assert problems_in(folder) == [("in the log",)]  # as its owner may


def test_an_empty_log_is_none(folder: Path) -> None:
    with closing(Store.create(folder)) as store:
        store.add([an_exchange("kept")])
    log_of(folder).touch()
    let_be_read(folder)
    with as_a_stranger(folder, 0o555):
        assert problems_in(folder) == [("kept",)]


def test_who_begins_to_write_meanwhile_is_noticed(folder: Path) -> None:
    with closing(Store.create(folder)) as store:
        store.add([an_exchange("kept")])
    let_be_read(folder)
    with as_a_stranger(folder, 0o555):
        reading = read(folder, ReadOptions())
        next(reading)
    with closing(Store.create(folder)) as store:
        store.add([an_exchange("new")])
        with pytest.raises(StoreError, match="somebody began to write"):
            list(reading)
