"""What an exchange says in the terms of the field: facts, from its target, its headers and the bodies it holds."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

from captures.exchange import Exchange, Fact, Request, Response, charset, header
from captures.redaction import CHALLENGES, CREDENTIALS
from dissectors.errors import DissectError
from dissectors.update_urls import PackagePath, Resource, classify

if TYPE_CHECKING:
    from dissectors.vocabulary import Vocabulary

MAX_REMEMBERED = 4096  # bytes of a body
LOGIN_HEADERS = CREDENTIALS | CHALLENGES
_LENGTHS = frozenset(map(len, LOGIN_HEADERS))  # tells most other names apart without looking at them


def facts_of(exchange: Exchange, vocabulary: Vocabulary | None = None) -> tuple[Fact, ...]:
    """All facts of an exchange; bodies that are not held tell nothing."""
    heads = head_facts(exchange.request, exchange.response, complete=exchange.complete)
    return (*check_facts(exchange, vocabulary), *heads)


def head_facts(request: Request, response: Response | None, *, complete: bool) -> tuple[Fact, ...]:
    """What target and headers alone tell; `complete` as of their exchange."""
    return (*target_facts(request, response, complete=complete), *login_facts(request, response))


def check_facts(exchange: Exchange, vocabulary: Vocabulary | None = None) -> Iterator[Fact]:
    """The update check and its answer, where the request goes to the update handler and is one."""
    if classify(exchange.request.target) is not Resource.UPDATE_HANDLER:
        return
    asked = _check_fact("check", exchange.request, vocabulary)
    if asked is None:
        return  # a log upload, or something else that is posted to the same handler
    yield asked
    if exchange.response is not None and (answered := _check_fact("answer", exchange.response, vocabulary)):
        yield answered


def _check_fact(kind: str, message: Request | Response, vocabulary: Vocabulary | None) -> Fact | None:
    body = message.body.data
    if not body:
        return None
    if vocabulary is None and len(body) <= MAX_REMEMBERED:
        return _remembered(kind, body, charset(message.headers))
    return _decoded(kind, body, charset(message.headers), vocabulary)


def _decoded(kind: str, body: bytes, charset: str | None, vocabulary: Vocabulary | None = None) -> Fact | None:
    # Most captures begin with something else, and many have no check at all.
    from dissectors.update_check import UpdateAnswer, UpdateCheck  # noqa: PLC0415
    from dissectors.vocabulary import Vocabulary  # noqa: PLC0415

    decode = UpdateCheck.decode if kind == "check" else UpdateAnswer.decode
    try:
        return decode(body, vocabulary or Vocabulary.default(), charset).to_json()
    except DissectError:
        return None


_remembered = lru_cache(maxsize=1024)(_decoded)  # a phone asks the same until something changes; so do answers


def target_facts(request: Request, response: Response | None, *, complete: bool) -> Iterator[Fact]:
    """What the target alone tells: which file of which package is fetched."""
    if classify(request.target) is not Resource.FIRMWARE_FILE:
        return
    try:
        package = PackagePath.parse(request.target)
    except DissectError:
        return
    yield {
        "fact": "firmware-fetch",
        "device_type": package.device_type,
        "vendor": package.vendor,
        "model": package.model,
        "revision": package.revision,
        "locale": package.locale,
        "version": str(package.version),
        "update_type": package.update_type,
        "file": package.file_name,
        "range": header(request.headers, "range"),
        "complete": complete and delivered(response),
    }


def login_facts(request: Request, response: Response | None) -> Iterator[Fact]:
    """The NTLM messages of a login, as NTLM or inside Negotiate; responses and keys are left out."""
    sides = (("request", request), ("response", response))
    for side, message in sides:
        for name, value in message.headers if message is not None else ():
            if (
                len(name) in _LENGTHS
                and name.lower() in LOGIN_HEADERS
                and value[:9].lower().startswith(("ntlm ", "negotiate"))
            ):
                from dissectors import ntlm  # noqa: PLC0415 - half of the start of `exchanges`, and seldom needed

                try:
                    tokens = ntlm.from_header(value)
                except DissectError:
                    continue
                yield from ({**token.to_json(), "side": side} for token in tokens)


def delivered(response: Response | None) -> bool:
    """Whether an answer brought (a part of) the file."""
    return response is not None and response.status in {200, 206}
