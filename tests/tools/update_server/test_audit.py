from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from dissectors.audit_log import AuditLogName, AuditRow, read_rows
from tools.update_server.audit import FOLDER, AuditLogWriter

DAY = datetime(2009, 3, 17, 21, 4, 5)


def read(path: Path) -> list[str]:
    return [row.logged for row in read_rows([path.read_bytes()])]


def test_rows_wait_in_the_cache_until_flushed(tmp_path: Path) -> None:
    with AuditLogWriter(tmp_path, "POOL01", lambda: DAY) as writer:
        writer.add(AuditRow("1", vendor="Polycom, Inc"))
        assert list(writer.folder.iterdir()) == []
        writer.flush()
        path = tmp_path / FOLDER / "RequestHandlerAuditLog_POOL01_2009-03-17.log"
        assert read(path) == ["1"]
        writer.add(AuditRow("2"))
    assert read(path) == ["1", "2"]
    assert path.read_bytes().count(b"Logging DateTime") == 1
    assert AuditLogName.parse(path.name) == AuditLogName("POOL01", "2009-03-17", "")


def test_a_full_cache_is_flushed(tmp_path: Path) -> None:
    writer = AuditLogWriter(tmp_path, "POOL01", lambda: DAY, max_cache=100)
    for number in range(10):
        writer.add(AuditRow(str(number)))
    (path,) = writer.folder.iterdir()
    assert read(path) == [str(number) for number in range(8)]


def test_a_file_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    with AuditLogWriter(tmp_path, "POOL01", lambda: DAY, max_file=400) as writer:
        for number in range(60):
            writer.add(AuditRow(str(number)))
    names = sorted((path for path in writer.folder.iterdir()), key=lambda path: (len(path.name), path.name))
    assert [path.name.removeprefix("RequestHandlerAuditLog_POOL01_") for path in names][:2] == [
        "2009-03-17.log",
        "2009-03-17_2.log",
    ]
    assert all(path.stat().st_size <= 400 for path in names)
    assert [logged for path in names for logged in read(path)] == [str(number) for number in range(60)]


def test_a_new_day_has_a_new_file(tmp_path: Path) -> None:
    days = iter([DAY, DAY.replace(day=18)])
    writer = AuditLogWriter(tmp_path, "POOL01", lambda: next(days))
    for _ in range(2):
        writer.add(AuditRow("x"))
        writer.flush()
    assert len(list(writer.folder.iterdir())) == 2


def test_rows_that_could_not_be_written_are_kept(tmp_path: Path) -> None:
    writer = AuditLogWriter(tmp_path, "POOL01", lambda: DAY)
    writer.add(AuditRow("x"))
    writer.folder.rmdir()
    with pytest.raises(OSError, match="imageUpdates"):
        writer.flush()
    writer.folder.mkdir()
    writer.flush()
    assert len(list(writer.folder.iterdir())) == 1
