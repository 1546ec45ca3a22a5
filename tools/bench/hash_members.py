"""What `bench dissect` measures of upshim: open a cabinet, decode it, hash every member with SHA-1 and SHA-256.

Run as `python -m tools.bench.hash_members FILE [own]`; `own` leaves libmspack out.
"""

from __future__ import annotations

import sys
from pathlib import Path

from dissectors.cabinet import Cabinet


def main(path: Path, *, native: bool) -> None:
    """Raises where a member cannot be had."""
    with path.open("rb") as file:
        Cabinet.parse(file).verify(native=native)


if __name__ == "__main__":
    main(Path(sys.argv[1]), native=sys.argv[2:] != ["own"])
