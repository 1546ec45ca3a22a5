"""Take a phone out of a recording: its exchanges, facts and bodies, and who it is in the journal.

Example:
  upshim forget --mac 00-04-F2-00-01-76 rec

The journal stays whole: decisions about the phone remain, under a pseudonym that nobody can resolve any more. Files
made from the recording (packet captures, exports) are not touched. A body that was written within the last ten minutes
stays: a proxy may be about to record it for another phone. The exit code is 1 where nothing was found.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import sqlalchemy as sa

from captures.database_url import place_of
from captures.errors import CaptureError
from captures.forgetting import forget
from captures.recording_folder import is_recording
from captures.store import Store
from dissectors.mac_address import normal_mac
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--mac", required=True, help="the phone's MAC address, in any notation")
    parser.add_argument("recording", type=place_of, metavar="RECORDING")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Forget one phone."""
    mac = normal_mac(args.mac)
    if mac is None:
        raise UnusableInput(f"--mac: expected a MAC address, found {args.mac!r}")
    try:
        if isinstance(args.recording, Path) and not is_recording(args.recording):
            raise UnusableInput(f"{args.recording}: not a recording")
        Store.open(args.recording).close()  # one that cannot be read loses nothing
        found = forget(args.recording, mac)
    except OSError as error:
        raise UnusableInput(f"{error.filename or args.recording}: {error.strerror}") from error
    except (CaptureError, sa.exc.SQLAlchemyError) as error:
        raise UnusableInput(str(getattr(error, "orig", None) or error).splitlines()[0]) from error
    if args.json:
        print(json.dumps({"kind": "forgotten", **found._asdict()}))
    else:
        waiting = f"; {found.waiting} more are too young: the same in 10 minutes removes them" if found.waiting else ""
        print(f"removed {found.exchanges} exchanges and {found.bodies} bodies{waiting}")
    return EXIT_OK if found.exchanges or found.bodies else EXIT_PROBLEM
