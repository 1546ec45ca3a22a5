"""Files that only their owner can read: recorded headers and bodies may hold credentials."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


def private_file(path: Path) -> BinaryIO:
    """A file opened for writing from its start, mode 0600 whatever it was; pipes and devices keep theirs."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")
