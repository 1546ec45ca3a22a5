"""Bodies that came with a content coding, decoded within a limit."""

from __future__ import annotations

from captures.exchange import Body, Headers
from dissectors.coding import DEFAULT_LIMIT, decode_body, parse_codings
from dissectors.errors import DissectError


def codings_of(headers: Headers) -> tuple[str, ...]:
    """The content codings in the order they were applied."""
    return parse_codings(",".join(value for name, value in headers if name.lower() == "content-encoding"))


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
