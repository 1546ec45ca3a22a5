"""The files a rewriter is made of: rules and vocabulary."""

from __future__ import annotations

from pathlib import Path

from mitmproxy import exceptions

from dissectors import DissectError
from dissectors.vocabulary import Vocabulary
from proxy_addons.rewriter import Rewriter
from proxy_addons.rules import Rules, RulesError

Stamps = tuple[tuple[int, int, int] | None, ...]


def stamps(*paths: str | None) -> Stamps:
    """What tells a file from a changed one."""

    def stamp(path: str | None) -> tuple[int, int, int] | None:
        try:
            status = Path(path).expanduser().stat() if path else None
        except OSError:
            return None
        return status and (status.st_ino, status.st_size, status.st_mtime_ns)

    return tuple(stamp(path) for path in paths)


def load_rewriter(
    rules: str | None, profile: str | None, limit: int, *, dry_run: bool, users: bool = False
) -> Rewriter:
    """Read rules and profile. Raises `OptionsError` with one line that names the file."""
    vocabulary = Vocabulary.default()
    read = Rules()
    try:
        if profile:
            vocabulary = vocabulary.extended(Path(profile).expanduser().read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DissectError) as error:
        raise exceptions.OptionsError(f"{profile}: {reason(error)}") from error
    try:
        if rules:
            read = Rules.parse(Path(rules).expanduser().read_bytes())
    except (OSError, RulesError) as error:
        raise exceptions.OptionsError(f"{rules}: {reason(error)}") from error
    return Rewriter(read, vocabulary, limit, dry_run, users)


def reason(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, UnicodeDecodeError):
        return f"at offset {error.start}: expected text in UTF-8, found the byte 0x{error.object[error.start]:02x}"
    return (isinstance(error, OSError) and error.strerror) or str(error)
