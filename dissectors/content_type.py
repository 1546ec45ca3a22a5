"""The charset parameter of a Content-Type."""

from __future__ import annotations

from email.message import Message


def charset_of(content_type: str) -> str | None:
    """`utf-8` for `text/xml; charset="utf-8"`; None where there is none."""
    message = Message()
    message["Content-Type"] = content_type.replace("\r", " ").replace("\n", " ")
    charset = message.get_param("charset")
    return charset if isinstance(charset, str) else None
