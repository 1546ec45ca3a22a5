"""Writes the RequestHandlerAuditLog as documented (protocol.md sections 3, 5): cached, flushed late, rolled by size."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Self

from dissectors.audit_log import AuditRow, header_text

FOLDER = Path("Logs", "Server", "Audit", "imageUpdates")

FLUSH_INTERVAL = 300.0  # seconds; documented default of LogFlushInterval
MAX_CACHE = 512_000  # bytes; MaxLogCacheLimit
MAX_FILE = 1_024_000  # bytes; MaxLogFileSize
_LINE_END = "\r\n"


class AuditLogWriter:
    """One server's audit log below `root`. Rows wait in memory until `flush`, or until the cache is full.

    The date in the file name and the suffix of a rolled file are not documented; here they are `2009-03-17` and `_2`.
    May be used from several threads.
    """

    def __init__(
        self,
        root: Path,
        server_name: str,
        clock: Callable[[], datetime] = datetime.now,
        *,
        max_cache: int = MAX_CACHE,
        max_file: int = MAX_FILE,
    ) -> None:
        self.folder = root / FOLDER
        self.folder.mkdir(parents=True, exist_ok=True)
        self._server_name = server_name
        self._clock = clock
        self._max_cache = max_cache
        self._max_file = max_file
        self._lock = threading.Lock()
        self._cached: list[bytes] = []
        self._cached_size = 0

    def add(self, row: AuditRow) -> None:
        """Log one check. Raises `DissectError` where the row has no written form, `OSError` where a flush fails."""
        line = (row.to_text() + _LINE_END).encode()
        with self._lock:
            self._cached.append(line)
            self._cached_size += len(line)
            if self._cached_size >= self._max_cache:
                self._flush()

    def flush(self) -> None:
        """Write what is cached. Raises `OSError`; the rows are kept for the next attempt then."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        while self._cached:
            path = self._file_with_room(len(self._cached[0]))
            lines = [] if path.exists() else [(header_text() + _LINE_END).encode()]
            size = sum(map(len, lines)) if lines else path.stat().st_size
            taken = 0
            for line in self._cached:
                if taken and size + len(line) > self._max_file:
                    break
                lines.append(line)
                size += len(line)
                taken += 1
            with path.open("ab") as file:
                file.writelines(lines)
            del self._cached[:taken]
        self._cached_size = 0

    def _file_with_room(self, size: int) -> Path:
        """The newest file of today, or a new one where that has no room."""
        stem = f"RequestHandlerAuditLog_{self._server_name}_{self._clock():%Y-%m-%d}"
        number = 1
        while True:
            path = self.folder / (f"{stem}.log" if number == 1 else f"{stem}_{number}.log")
            if not path.exists() or path.stat().st_size + size <= self._max_file:
                return path
            number += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.flush()
