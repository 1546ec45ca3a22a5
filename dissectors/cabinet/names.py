"""Member names are labels of unknown intent: how to show one, and how to make a path of it that stays where it should.

A name is shown and compared as the cabinet has it; only `safe_member_name` makes a path of it, and everything that an
operating system might read as more than a name comes out percent-escaped there.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

UTF8_NAME = 0x80

MAX_COMPONENT = 200
"""Bytes of one path component; file systems take 255, and a suffix must still fit."""
MAX_DEPTH = 32

_DEVICE = re.compile(r"(?:con|prn|aux|nul|clock\$|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?=[ .:]|$)", re.IGNORECASE)
_FORBIDDEN = set('%<>:"|?*')


def decode_name(raw: bytes, attributes: int) -> str:
    """UTF-8 where the attribute says so ([MS-CAB] 2.4), otherwise byte for character: the code page is not recorded."""
    return raw.decode("utf-8", "replace") if attributes & UTF8_NAME else raw.decode("latin-1")


def _deceptive(character: str) -> bool:
    """Control, format (the direction-changing ones), separator and unassigned characters."""
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def display_name(name: str) -> str:
    """The name with every character that a terminal might obey, or that hides, written as an escape."""
    return "".join(ascii(character)[1:-1] if _deceptive(character) else character for character in name)


def name_hazards(name: str) -> tuple[str, ...]:
    """What about the name could mislead a person or a program that takes it for a path."""
    parts = re.split(r"[/\\]", name)
    hazards = []
    if name[:1] in {"/", "\\"}:
        hazards.append("starts with a separator")
    if re.match(r"[A-Za-z]:", name):
        hazards.append("starts with a drive letter")
    elif ":" in name:
        hazards.append("contains ':'")
    if ".." in parts:
        hazards.append("climbs with '..'")
    if any(_DEVICE.match(part) for part in parts):
        hazards.append("is a DOS device name")
    if any(_deceptive(character) for character in name):
        hazards.append("contains control or invisible characters")
    if "\ufffd" in name:
        hazards.append("is not valid UTF-8")
    return tuple(hazards)


def safe_member_name(name: str) -> str:
    """One relative path (`/` between components) that stays inside any directory it is put in.

    Both separators separate; empty components and leading separators vanish. `..` and `.`, device names, drive
    letters, `:` and other characters special to some file system, control and invisible characters, and dots or spaces
    at the end come out as %XX of their UTF-8 bytes, `%` itself too. Overlong components are cut and marked with a hash.
    """
    parts = [_component(part) for part in re.split(r"[/\\]", name) if part]
    if len(parts) > MAX_DEPTH:
        parts = [*parts[: MAX_DEPTH - 1], _component("%".join(parts[MAX_DEPTH - 1 :]))]
    return "/".join(parts) or "%"


def safe_member_names(names: Iterable[str]) -> Iterator[str]:
    """`safe_member_name` of each, no two alike (whatever their case) and none a directory of another.

    A path that would collide becomes a single component with the member's number in front.
    """
    files: set[str] = set()
    directories: set[str] = set()
    for number, name in enumerate(names):
        path = safe_member_name(name)
        parents = _parents(path)
        if _key(path) in files or _key(path) in directories or not files.isdisjoint(map(_key, parents)):
            # No escape starts with "%~", so this cannot collide with any other path.
            path, parents = f"%~{number}~" + _cut(path.replace("/", "%2F")), []
        files.add(_key(path))
        directories.update(map(_key, parents))
        yield path


def _component(part: str) -> str:
    if part.strip(". ") == "":
        return _cut("".join(map(_escape, part)))
    body = part.rstrip(". ")
    escaped = "".join(_escape(character) if _special(character) else character for character in body)
    if _DEVICE.match(part):
        escaped = _escape(part[0]) + escaped[1:]
    return _cut(escaped + "".join(map(_escape, part[len(body) :])))


def _special(character: str) -> bool:
    return character in _FORBIDDEN or _deceptive(character)


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _cut(component: str) -> str:
    encoded = component.encode()
    if len(encoded) <= MAX_COMPONENT:
        return component
    # A cut escape is still harmless: what remains of it is letters and digits.
    return encoded[: MAX_COMPONENT - 18].decode("utf-8", "ignore") + "%~" + hashlib.sha256(encoded).hexdigest()[:16]


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _key(path: str) -> str:
    """What a file system that folds case and composes accents takes for the same name."""
    return unicodedata.normalize("NFC", path.casefold())
