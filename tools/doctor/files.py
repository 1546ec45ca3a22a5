"""Rules, vocabulary, the recording and its disk, and who may read what holds secrets."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from captures.database_url import DatabaseUrl
from captures.errors import CaptureError
from captures.recording_folder import is_recording
from captures.store import Store
from dissectors import DissectError
from dissectors.vocabulary import Vocabulary
from proxy_addons.forwarded import Fronts
from proxy_addons.kill_switch import why_file
from proxy_addons.rules import Rules, RulesError
from tools.doctor.result import OK, PROBLEM, WARN, Result, reason

LITTLE_ROOM, NO_ROOM = 5 << 30, 256 << 20  # bytes
FEW_INODES = 10_000


def rules(file: Path) -> tuple[list[Result], Rules | None]:
    """Would the rules file be taken? The rules too, where it would."""
    try:
        read = Rules.parse(file.read_bytes())
    except (OSError, RulesError) as error:
        advice = f"upshim rules check {file}; a running upshim keeps its old rules meanwhile."
        return [Result("rules", str(file), PROBLEM, f"would be refused: {reason(error)}", advice)], None
    if not read.rules:
        advice = "upshim rules example prints some."
        return [Result("rules", str(file), WARN, "holds no rules: nothing is rewritten", advice)], read
    results = [Result("rules", str(file), OK, f"{len(read.rules)} rules on {len(read.paths)} upgrade paths")]
    unlimited = [one.name for one in read.rules if (one.report or one.offer) and one.limits.fleet_failure_rate is None]
    if unlimited:
        advice = "limits.fleet_failure_rate stops a path where too many phones fail."
        results.append(Result("rules", str(file), WARN, f"no breaker: {', '.join(unlimited)}", advice))
    return results, read


def profile(file: Path) -> Result:
    """Would the vocabulary be taken?"""
    try:
        Vocabulary.default().extended(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DissectError) as error:
        advice = "dissectors/vocabulary.toml shows the form."
        return Result("profile", str(file), PROBLEM, f"would be refused: {reason(error)}", advice)
    return Result("profile", str(file), OK, "is taken")


def recording(folder: Path) -> Iterator[Result]:
    """Can one record here, is what is there readable, and is there room?"""
    subject = str(folder)
    yield from _room(folder)
    if not folder.exists():
        yield Result("recording", subject, OK, "will be made")
        return
    if (why := unwritable(folder)) is not None:
        advice = "Give the user of upshim the right to write there; under systemd that is what StateDirectory is for."
        yield Result("recording", subject, PROBLEM, f"cannot be written: {why}", advice)
        return
    yield from private(folder)
    if not is_recording(folder):
        yield Result(
            "recording", subject, OK, "an empty place" if not any(folder.iterdir()) else "holds no recording yet"
        )
        return
    try:
        store = Store.open(folder)
        store.close()
    except CaptureError as error:
        advice = "Move it away: upshim begins a new one. Its own version can read it still, if it is only newer."
        yield Result("recording", subject, PROBLEM, f"cannot be read: {_without(str(error), subject)}", advice)
        return
    yield Result("recording", subject, OK, "is readable")


def database(url: DatabaseUrl, state: Path | None) -> Iterator[Result]:
    """Does a shared recording's database answer, and is there room for what waits while it is away?"""
    try:
        store = Store.open(url, state)
        store.close()
    except CaptureError as error:
        advice = "upshim starts even so: exchanges wait on this machine, and no phone is offered anything meanwhile."
        yield Result("recording", str(url), PROBLEM, _without(str(error), str(url)), advice)
    else:
        yield Result("recording", str(url), OK, "answers, and its tables can be read")
    folder = url.local_folder(state)
    yield from _room(folder)
    if folder.exists():
        yield from private(folder)


def _without(text: str, subject: str) -> str:
    return text.removeprefix(f"{subject}: ")


def _room(folder: Path) -> Iterator[Result]:
    place = folder
    while not place.exists():
        place = place.parent
    status = os.statvfs(place)
    free = status.f_bavail * status.f_frsize
    advice = "--keep-days and --keep-bytes remove the oldest exchanges. A full disk stops the recording, not traffic."
    said = f"{free / (1 << 30):.1f} GiB free"
    if free < LITTLE_ROOM:
        yield Result("disk", str(place), PROBLEM if free < NO_ROOM else WARN, said, advice)
    elif status.f_files and status.f_favail < FEW_INODES:
        yield Result("disk", str(place), WARN, f"{said}, but room for {status.f_favail} files only", advice)
    else:
        yield Result("disk", str(place), OK, said)


def private(path: Path, check: str = "private") -> Iterator[Result]:
    """May only its owner read something that holds secrets?"""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as error:
        yield Result(
            check, str(path), PROBLEM, f"cannot be looked at: {reason(error)}", "Look at the path and its rights."
        )
        return
    if mode & 0o077:
        wanted = "700" if path.is_dir() else "600"
        yield Result(check, str(path), PROBLEM, f"others may read it ({mode:o})", f"chmod {wanted} {path}")
    else:
        yield Result(check, str(path), OK, f"nobody else may read it ({mode:o})")


def unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder; None where one can. It leaves nothing there."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return reason(error)


def kill_switch(file: Path) -> Result:
    """Would the file be taken, can it be made when it is needed, and is it there now?"""
    folder = file.parent
    if file.is_dir() or not folder.is_dir():
        found = "a folder, which is always there" if file.is_dir() else f"{folder} is no folder"
        return Result(
            "kill-switch", str(file), PROBLEM, f"would be refused: {found}", "Name a file in a folder of its own."
        )
    if on := why_file(file):
        advice = f"upshim rules start --kill-switch {file}"
        return Result("kill-switch", str(file), WARN, f"is on, nothing is rewritten: {on}", advice)
    if (why := unwritable(folder)) is not None:
        advice = "Whoever is to stop it by `upshim rules stop --kill-switch` needs the right to write there."
        return Result("kill-switch", str(file), WARN, f"is off, and cannot be made: {why}", advice)
    return Result("kill-switch", str(file), OK, "is off, and can be made")


def capture(file: Path) -> Result:
    """Can packets be written there?"""
    if file.is_dir():
        why: str | None = "it is a folder"
    elif file.exists():
        why = None if os.access(file, os.W_OK) else "Permission denied"
    else:
        why = unwritable(file.parent)
    if why is not None:
        advice = "Name a file in a folder that the user of upshim may write to."
        return Result("pcap", str(file), PROBLEM, f"cannot be written: {why}", advice)
    return Result("pcap", str(file), OK, "can be written")


def fronts(trusted: Fronts) -> Iterator[Result]:
    """Whose word about a phone's address is taken?"""
    for network in trusted.networks:
        if network.prefixlen:
            yield Result("fronts", str(network), OK, "may tell the phones' addresses")
        else:
            found = "everybody: any phone may say that it were another"
            yield Result("fronts", str(network), WARN, found, "--trust-forwarded is for the load balancers alone.")


def state(folder: Path) -> Iterator[Result]:
    """The folder with the keys mitmproxy made."""
    for key in sorted(folder.glob("mitmproxy-ca.p*")):
        yield from private(key, "key")
