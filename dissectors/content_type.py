"""The charset parameter of a Content-Type."""

from __future__ import annotations

import re
from functools import lru_cache

MAX_REMEMBERED = 200  # characters
_PLAIN = re.compile(r"[\w/+.-]*(?:; ?charset=(?:([\w-]+)|\"([\w-]+)\"))?", re.IGNORECASE | re.ASCII)


def charset_of(content_type: str) -> str | None:
    """`utf-8` for `text/xml; charset="utf-8"`; None where there is none."""
    return _remembered(content_type) if len(content_type) <= MAX_REMEMBERED else _charset_of(content_type)


def _charset_of(content_type: str) -> str | None:
    if plain := _PLAIN.fullmatch(content_type):
        return plain[1] or plain[2]
    from email.message import Message  # noqa: PLC0415 - seldom needed, and slow to import

    message = Message()
    message["Content-Type"] = content_type.replace("\r", " ").replace("\n", " ")
    charset = message.get_param("charset")
    return charset if isinstance(charset, str) else None


_remembered = lru_cache(maxsize=256)(_charset_of)  # senders always say the same
