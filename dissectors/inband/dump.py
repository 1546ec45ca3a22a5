"""Settings as tools print them: `Property[ name ] = value`, `name = value`, `name : value`, under `Group:` lines."""

from __future__ import annotations

import re

from dissectors.errors import DissectError, LimitExceeded
from dissectors.inband.settings import MAX_SETTINGS, InBandSettings, Setting

MAX_TEXT = 1 << 20  # characters

_PROPERTY = re.compile(r"\s*Property\[\s*([^\]\s]{1,128})\s*\]\s*=\s*(.*)", re.IGNORECASE)
_PAIR = re.compile(r"\s*([A-Za-z][\w.-]{0,127})(?:\s*=|\s+:)\s*(.*)", re.ASCII)
_GROUP = re.compile(r"\s*([A-Za-z][\w -]{0,127}):\s*", re.ASCII)


def parse_dump(text: str) -> InBandSettings:
    """Read printed settings; lines of another form are counted. Raises `DissectError` where there is no setting."""
    if len(text) > MAX_TEXT:
        raise LimitExceeded(0, f"at most {MAX_TEXT} characters", f"{len(text)}")
    settings: list[Setting] = []
    groups: list[str] = []
    unread: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := _PROPERTY.fullmatch(line) or _PAIR.fullmatch(line):
            if len(settings) == MAX_SETTINGS:
                raise LimitExceeded(0, f"at most {MAX_SETTINGS} settings", "more")
            settings.append(Setting(groups[-1] if groups else "", match[1], match[2].strip()))
        elif match := _GROUP.fullmatch(line):
            groups.append(match[1])
        elif line.strip():
            unread.append(number)
    if not settings:
        raise DissectError(0, "settings such as `Property[ updatesserverenabled ] = true`", "none")
    problems: tuple[str, ...] = ()
    if unread:
        shown = ", ".join(map(str, unread[:8])) + (", ..." if len(unread) > 8 else "")
        problems = (f"lines of another form: {len(unread)} (line {shown})",)
    return InBandSettings("dump", tuple(settings), tuple(groups), True, problems)
