"""A PostgreSQL server of the tests' own, from the binaries of Debian's package, in a temporary directory.

It refuses to run as root: then it runs as `nobody`. One server for the session, one database for each test.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import psycopg
import pytest

from captures.database_url import DatabaseUrl

UNPRIVILEGED = "nobody"
START_WITHIN = 60
_numbers = itertools.count()


def binaries() -> Path | None:
    """The folder of the newest server installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    program = shutil.which("initdb")
    return Path(program).resolve().parent if program else None


def require_postgres() -> Path:
    """The server's programs; skips the test where they are absent, fails where everything must run."""
    found = binaries()
    if found is None:
        missing = "PostgreSQL's server is not installed"
        if os.environ.get("UPSHIM_REQUIRE_ALL"):
            pytest.fail(missing)
        pytest.skip(missing)
    return found


class PostgresServer:
    """A server that can be stopped, frozen, killed and started again. `host` is the folder of its socket."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._data = folder / "data"
        self._log = folder / "log"
        self._user = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.host = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "--auth=trust", "--username=upshim", "--encoding=UTF8", "--no-sync", "--locale=C")

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.host,
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": 60,
        }
        # It ends with the tests even where they are killed; setpriv becomes the server.
        guard = [setpriv, "--pdeathsig", "INT"] if (setpriv := shutil.which("setpriv")) else []
        words = [*guard, str(self._programs / "postgres"), "-D", str(self._data)]
        words += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with self._log.open("ab") as log:
            self._process = self._popen(words, log)
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                psycopg.connect(self.url("postgres").secret, connect_timeout=5).close()
            except psycopg.OperationalError:
                assert self._process.poll() is None, self._log.read_text(errors="replace")
                assert time.monotonic() < deadline, self._log.read_text(errors="replace")
                time.sleep(0.02)
            else:
                return

    def stop(self, how: int = signal.SIGINT) -> None:
        """End it: SIGINT cuts its connections, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(START_WITHIN)
            self._process = None

    def signal_all(self, how: int) -> None:
        """To the server and every process of it: SIGSTOP makes it hang, SIGCONT lets it go on."""
        if self._process is not None:
            os.killpg(self._process.pid, how)
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for child in children:  # each has a group of its own
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(child), how)

    def url(self, database: str) -> DatabaseUrl:
        """A database of it, by its socket."""
        return DatabaseUrl(f"postgresql://upshim@/{database}?host={self.host}&port={self.port}")

    def new_database(self) -> DatabaseUrl:
        """An empty database."""
        name = f"t{next(_numbers)}"
        with psycopg.connect(self.url("postgres").secret, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _run(self, program: str, *words: str) -> None:
        done = self._popen([str(self._programs / program), "-D", str(self._data), *words], subprocess.PIPE)
        output, _ = done.communicate(timeout=START_WITHIN)
        assert done.returncode == 0, output.decode(errors="replace")

    def _popen(self, words: list[str], output: int | IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            start_new_session=True,
            user=self._user and self._user.pw_uid,
            group=self._user and self._user.pw_gid,
            extra_groups=self._user and [],
        )


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
