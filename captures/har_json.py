"""The JSON of an HTTP archive, read whole within a limit: HAR 1.1 and 1.2, zlib-compressed `.zhar`, a byte order mark,
UTF-16 as Windows PowerShell redirects into files.

The format is the W3C Web Performance group's draft "HTTP Archive (HAR) format" of 2012-08-14, which is 1.2 as used.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

from dissectors.errors import DissectError, LimitExceeded

MAX_HAR = 512 << 20  # bytes of JSON


def sniff(head: bytes, _path: Path) -> bool:
    """Whether a file starts like JSON, or like compressed JSON."""
    if _is_zlib(head):
        try:
            head = zlib.decompressobj().decompress(head, 64)
        except zlib.error:
            return False
    start = head.decode(json.detect_encoding(head), "ignore")
    return start.lstrip("\ufeff \t\r\n").startswith("{")


def load_log(path: Path) -> dict[str, Any]:
    """The `log` object of an archive. Raises `DissectError` and `OSError`; offsets count characters of the JSON."""
    size = path.stat().st_size
    if size > MAX_HAR:
        raise LimitExceeded(0, f"at most {MAX_HAR} bytes", f"{size}")
    raw = path.read_bytes()
    if _is_zlib(raw) or raw.startswith(b"\x1f\x8b"):
        raw = _inflated(raw)
    encoding = json.detect_encoding(raw)
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        name = encoding.removesuffix("-sig").upper()
        raise DissectError(error.start, name, f"byte {raw[error.start]:#04x}") from None
    try:
        archive = json.loads(text)
    except json.JSONDecodeError as error:
        raise DissectError(error.pos, "JSON", f"something else ({error.msg})") from None
    except (RecursionError, ValueError) as error:
        raise DissectError(0, "JSON within Python's limits", str(error)) from None
    log = archive.get("log") if isinstance(archive, dict) else None
    if not isinstance(log, dict):
        raise DissectError(0, "an HTTP archive: an object with a `log`", _kind(archive))
    if not isinstance(log.get("entries"), list):
        raise DissectError(0, "a `log` with a list of `entries`", _kind(log.get("entries")))
    return log


def _inflated(raw: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=47)  # zlib or gzip, as its header says
    try:
        data = inflater.decompress(raw, MAX_HAR + 1)
    except zlib.error as error:
        raise DissectError(0, "zlib or gzip data", str(error)) from None
    if len(data) > MAX_HAR:
        raise LimitExceeded(0, f"at most {MAX_HAR} bytes of JSON", "more")
    if not inflater.eof:
        raise DissectError(len(raw), "the end of the compressed data", "the end of the file")
    return data


def _is_zlib(head: bytes) -> bool:
    """RFC 1950 section 2.2; a `{` is none."""
    return len(head) > 1 and head[0] & 0x0F == 8 and head[0] >> 4 <= 7 and (head[0] << 8 | head[1]) % 31 == 0


def _kind(value: object) -> str:
    if isinstance(value, dict):
        names = ", ".join(repr(name[:20]) for name in list(value)[:3])
        return f"an object with {names or 'nothing'}"
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:20]!r}"
