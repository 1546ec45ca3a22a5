"""What of an exchange is stored at all: a setting, applied before anything reaches the disk."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeVar, get_args

from captures.exchange import Exchange, Request, Response

# "no-bodies": sizes and hashes only; "no-headers": that, and neither headers. Facts are kept, users in them redacted.
Stored = Literal["full", "no-bodies", "no-headers"]
STORED: tuple[Stored, ...] = get_args(Stored)

M = TypeVar("M", Request, Response)


def stored(exchange: Exchange, setting: Stored) -> Exchange:
    """The exchange as far as it is stored."""
    if setting == "full":
        return exchange
    return replace(
        exchange,
        request=_message(exchange.request, setting),
        response=exchange.response and _message(exchange.response, setting),
        rewritten_request=exchange.rewritten_request and _message(exchange.rewritten_request, setting),
        rewritten_response=exchange.rewritten_response and _message(exchange.rewritten_response, setting),
    )


def _message(message: M, setting: Stored) -> M:
    bare = replace(message, body=replace(message.body, data=None, encoded=None))
    if setting != "no-headers":
        return bare
    bare = replace(bare, headers=())
    if isinstance(bare, Response):
        bare = replace(bare, interim=tuple((status, reason, ()) for status, reason, _ in bare.interim))
    return bare
