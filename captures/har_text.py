"""Bodies as the text of an HTTP archive, and back: the charset is the one its MIME type names, else UTF-8."""

from __future__ import annotations

import codecs
import re

CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9_.:+-]{1,40})", re.IGNORECASE)


def as_bytes(text: str, mime: str) -> bytes:
    """The bytes of a text; UTF-8 where the named charset has not all its characters."""
    try:
        return text.encode(_charset(mime))
    except UnicodeError:
        return text.encode("utf-8", "surrogatepass")


def as_text(data: bytes, mime: str) -> str | None:
    """The text from which `as_bytes` gives these bytes again, if there is one."""
    try:
        text = data.decode(_charset(mime))
    except UnicodeError:
        return None
    # An empty text is no body to readers, even where it comes of a byte order mark.
    return text if bool(text) == bool(data) and as_bytes(text, mime) == data else None


def _charset(mime: str) -> str:
    match = CHARSET.search(mime)
    try:
        # Only codecs between text and bytes: rot13 and its like are also to be found by name.
        codec = codecs.lookup(match[1]) if match else None
    except LookupError:
        return "utf-8"
    return codec.name if codec is not None and codec._is_text_encoding else "utf-8"
