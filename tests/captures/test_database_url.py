from __future__ import annotations

import sys
from pathlib import Path

import pytest

from captures.database_url import DatabaseUrl, place_of
from captures.errors import StoreError
from captures.store import Store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://db/upshim", "postgresql://db/upshim"),
        ("postgresql://me@db:5433/upshim", "postgresql://me@db:5433/upshim"),
        ("postgresql://me:secret@db/upshim?sslmode=require", "postgresql://me:***@db/upshim?sslmode=require"),
        ("postgres://me:se@cr/et:x@db/upshim", "postgres://me:***@db/upshim"),
        (
            "postgresql:///upshim?host=/tmp&password=secret&user=me",
            "postgresql:///upshim?host=/tmp&password=***&user=me",
        ),
        ("postgresql://me:secret@/upshim?host=/run/x@y", "postgresql://me:***@/upshim?host=/run/x@y"),
    ],
)
def test_a_password_is_never_shown(text: str, shown: str) -> None:
    place = place_of(text)
    assert isinstance(place, DatabaseUrl)
    assert str(place) == shown
    assert "secret" not in f"{place!r} {place}"
    assert place.secret == text


def test_anything_else_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place_of("rec/store.sqlite") == Path("rec/store.sqlite")
    assert place_of("~/rec") == tmp_path / "rec"


def test_what_is_kept_beside_a_database_does_not_depend_on_who_logs_in(tmp_path: Path) -> None:
    folders = {
        DatabaseUrl(url).local_folder(tmp_path)
        for url in ("postgresql://db/upshim", "postgresql://me:secret@db/upshim", "postgres://you@db/upshim")
    }
    assert len(folders) == 1
    assert folders.pop().is_relative_to(tmp_path)
    assert DatabaseUrl("postgresql://db/other").local_folder(tmp_path) not in folders


def test_what_cannot_be_used_is_one_line_without_the_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    nowhere = DatabaseUrl(f"postgresql://me:secret@/upshim?host={tmp_path}")
    for attempt in (Store.create, Store.open):
        with pytest.raises(StoreError) as refused:
            attempt(nowhere)
        assert "\n" not in str(refused.value)
        assert "secret" not in str(refused.value)
    for unusable in ("postgresql://db:port/upshim", "mysql://db/upshim"):
        with pytest.raises(StoreError, match="expected a URL such as"):
            Store.connect(place_of(unusable))
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"pip install 'upshim\[postgres\]'"):
        Store.connect(nowhere)
