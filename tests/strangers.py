"""Folders seen by somebody whom they do not belong to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

NOBODY = 65534


@contextmanager
def for_everybody() -> Iterator[Path]:
    """A folder that everybody may reach, unlike a test's own."""
    with TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_a_stranger(folder: Path, mode: int) -> Iterator[None]:
    """The folder has this mode meanwhile, and root is nobody."""
    folder.chmod(mode)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
