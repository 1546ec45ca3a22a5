"""Bodies that came coded, decoded within a limit. What is undone here is content codings, and transfer codings other
than chunked: the two differ in who may take them off, not in what they are.
"""

from __future__ import annotations

from collections.abc import Iterable

from captures.exchange import Body, Headers
from dissectors.coding import DEFAULT_LIMIT, decode_body, parse_codings
from dissectors.errors import DissectError


def codings_of(headers: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """The codings in the order they were applied; chunks are gone already."""
    content, transfer = words_of(headers, "content-encoding"), words_of(headers, "transfer-encoding")
    return content + (transfer[:-1] if transfer[-1:] == ("chunked",) else transfer)


def words_of(headers: Iterable[tuple[str, str]], name: str) -> tuple[str, ...]:
    """The members of a header that is a list, lower case, over all its lines."""
    return parse_codings(",".join(value for key, value in headers if key.lower() == name))


def decoded_body(headers: Headers, raw: bytes, limit: int = DEFAULT_LIMIT) -> tuple[Body, str | None]:
    """The body whose bytes came as `raw`, and why it could not be decoded, in which case it stays as it came."""
    codings = codings_of(headers)
    if not codings or not raw:
        return Body.of(raw), None
    try:
        data = decode_body(raw, codings, limit)
    except DissectError as error:
        return Body.of(raw), f"body not decoded ({', '.join(codings)}): {error}"
    return Body.of(data, raw), None
