"""A recording as the addon's options ask for it, and what decides by it."""

from __future__ import annotations

import logging
import stat
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mitmproxy import ctx, exceptions

from captures.base_recording import BaseRecording
from captures.database_url import DatabaseUrl, place_of
from captures.errors import StoreError
from captures.folder_lock import FolderLock
from captures.live_recording import LiveRecording
from captures.pcap_mirror import PcapMirror
from captures.privacy import STORED, Stored
from captures.retention import Keep
from proxy_addons import recording_process
from proxy_addons.failures import Failures
from proxy_addons.folder_ledger import FolderLedger

if TYPE_CHECKING:
    from proxy_addons.ledger import Ledger

logger = logging.getLogger("upshim")

MOST_DAYS = 36_500  # the calendar has an end


def open_recording(
    place: str, mirror: PcapMirror | None, failures: Failures
) -> tuple[BaseRecording, FolderLedger | Ledger]:
    """A recording that grows, and what decides by it. Raises `StoreError`, `OSError`, `OptionsError`."""
    where, (keep, setting) = place_of(place), recording_settings()
    if isinstance(where, DatabaseUrl):
        from captures.recording import Recording  # noqa: PLC0415 - a shared database is asked by this process itself
        from proxy_addons.ledger import Ledger  # noqa: PLC0415
        from proxy_addons.stored_history import PhoneProjection  # noqa: PLC0415

        state = ctx.options.upshim_state
        recording = Recording(
            where,
            mirror,
            keep,
            setting,
            projection=PhoneProjection(failures.exception),
            state=Path(state).expanduser() if state else None,
            tell=partial(logger.warning, "upshim: %s"),
        )
        return recording, Ledger(recording, recording.store)
    try:
        where.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (mode := stat.S_IMODE(where.stat().st_mode)) & 0o077:
            logger.warning("upshim: %s was there before, and others may look into it (%o): chmod 700", where, mode)
        lock = FolderLock(where)
    except OSError as error:
        raise StoreError(where, f"cannot record here: {error.strerror or error}") from error
    try:
        command = recording_process.command(where, setting)
        live = LiveRecording(where, command, mirror, keep, setting, inherited=[lock.descriptor])
    except StoreError:
        lock.close()
        raise
    return live, FolderLedger(live, lock)


def mirror_at(path: Path, most: int) -> PcapMirror:
    """The packet capture beside a recording, which takes `most` bytes, 0 any. Raises `OSError`."""
    mirror = PcapMirror(path, most)
    if mirror.path != path:
        why = "is full, or being written by another process" if most else "is being written by another process"
        logger.warning("upshim: %s %s: packets go to %s", path, why, mirror.path)
    if most and (taken := mirror.taken()) > most // 2:
        logger.warning("upshim: captures of that name from before take %d of %d bytes, and stay", taken, most)
    return mirror


def recording_settings() -> tuple[Keep, Stored]:
    """How long a recording keeps what, from the options. Raises `OptionsError`."""
    options = ctx.options
    if options.upshim_store not in STORED:
        raise exceptions.OptionsError(f"upshim_store: expected {', '.join(STORED)}, found {options.upshim_store!r}")
    if min(options.upshim_keep_days, options.upshim_keep_bytes) < 0:
        raise exceptions.OptionsError("upshim_keep_days, upshim_keep_bytes: expected 0 or more")
    if options.upshim_keep_days > MOST_DAYS:
        raise exceptions.OptionsError(
            f"upshim_keep_days: expected {MOST_DAYS} at most, found {options.upshim_keep_days}"
        )
    return Keep(options.upshim_keep_days or None, options.upshim_keep_bytes or None), options.upshim_store
