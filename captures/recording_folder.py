"""How a recording is told from other captures, without loading what reads it."""

from __future__ import annotations

from pathlib import Path

DATABASE = "store.sqlite"
BODIES = "bodies"


def is_recording(path: Path) -> bool:
    """True for a folder that holds a recording, or its database itself.

    Raises `OSError` where the folder may not be looked into.
    """
    return (path / DATABASE).is_file() or path.name == DATABASE
