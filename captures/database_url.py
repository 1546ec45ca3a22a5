"""A recording by the URL of its database: told from a folder, and shown without its password."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

SCHEMES = ("postgresql://", "postgres://", "postgresql+psycopg://")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PASSWORD_PARAMETER = re.compile(r"(?<=[?&])(password|sslpassword)=[^&]*", re.IGNORECASE)
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """`postgresql://user@host/database`; as text its password, if it has one, is `***`."""

    secret: str = field(repr=False)  # as it was given

    def __str__(self) -> str:
        shown = _PASSWORD_PARAMETER.sub(r"\1=***", self.secret)
        scheme, separator, rest = shown.partition("://")
        # The password may hold a slash that should have been escaped: up to the last @ before the parameters.
        login, at, place = rest.partition("?")[0].rpartition("@")
        if not at or ":" not in login:
            return shown
        parameters = rest[len(login) + 1 + len(place) :]
        return f"{scheme}{separator}{login.partition(':')[0]}:***@{place}{parameters}"

    @property
    def scheme_free(self) -> str:
        """What names the database, whoever logs in: its place without scheme and login."""
        from urllib.parse import urlsplit  # noqa: PLC0415 - slow to import, and most places are files

        parts = urlsplit(str(self))
        query = f"?{parts.query}" if parts.query else ""
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}{query}"

    def local_folder(self, state: Path | None = None) -> Path:
        """Where this machine keeps what waits for the database, and bodies too large for it."""
        root = state or Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "upshim"
        name = _NOT_A_NAME.sub("_", self.scheme_free).strip("_.")[:60]
        return root / "databases" / f"{name}-{hashlib.sha256(self.scheme_free.encode()).hexdigest()[:8]}"


Place = Path | DatabaseUrl


def place_of(text: str) -> Place:
    """What a command line or an option names: a database by a URL, which may yet turn out to be none, else a path."""
    return DatabaseUrl(text) if _SCHEME.match(text) else Path(text).expanduser()
