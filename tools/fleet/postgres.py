"""A PostgreSQL server of one's own, from the binaries of Debian's package, in a folder of one's own.

It refuses to run as root: then it runs as `nobody`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from captures.database_url import DatabaseUrl
from tools.ports import free_port

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


class PostgresError(Exception):
    """The server does not do what it should; what it says of it."""


class PostgresServer:
    """A server that can be stopped, frozen, killed and started again. `host` is the folder of its socket.

    One that is not `durable` does not wait for the disk: what it has committed survives its own death only.
    """

    def __init__(self, programs: Path, folder: Path, *, durable: bool = False) -> None:
        """Raises `PostgresError`."""
        self._programs = programs
        self._durable = durable
        self._data = folder / "data"
        self._log = folder / "log"
        self._user = pwd.getpwnam(UNPRIVILEGED) if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        self.host = folder
        self.port = free_port()
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        self._run("initdb", "--auth=trust", "--username=upshim", "--encoding=UTF8", "--no-sync", "--locale=C")

    def start(self) -> None:
        """Start it and wait until it answers. Raises `PostgresError`."""
        import psycopg  # noqa: PLC0415 - an extra

        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.host,
            "fsync": "on" if self._durable else "off",
            "full_page_writes": "on" if self._durable else "off",
            "shared_buffers": "32MB",
            "max_connections": 60,
        }
        # It ends with us even where we are killed; setpriv becomes the server.
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
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise PostgresError(self._log.read_text(errors="replace")) from None
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
        import psycopg  # noqa: PLC0415 - an extra

        name = f"t{next(_numbers)}"
        with psycopg.connect(self.url("postgres").secret, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def _run(self, program: str, *words: str) -> None:
        done = self._popen([str(self._programs / program), "-D", str(self._data), *words], subprocess.PIPE)
        output, _ = done.communicate(timeout=START_WITHIN)
        if done.returncode:
            raise PostgresError(output.decode(errors="replace"))

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
