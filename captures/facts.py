"""What an exchange says in the terms of the field: facts, from its target, its headers and the bodies it holds."""

from __future__ import annotations

from collections.abc import Iterator

from captures.exchange import Exchange, Fact, Response, charset, header
from captures.redaction import CHALLENGES, CREDENTIALS
from dissectors import DissectError
from dissectors.update_check import UpdateAnswer, UpdateCheck
from dissectors.update_urls import PackagePath, Resource, classify
from dissectors.vocabulary import Vocabulary

LOGIN_HEADERS = CREDENTIALS | CHALLENGES


def facts_of(exchange: Exchange, vocabulary: Vocabulary | None = None) -> tuple[Fact, ...]:
    """All facts of an exchange; bodies that are not held tell nothing."""
    return (*check_facts(exchange, vocabulary or Vocabulary.default()), *head_facts(exchange))


def head_facts(exchange: Exchange) -> tuple[Fact, ...]:
    """What target and headers alone tell."""
    return (*target_facts(exchange), *login_facts(exchange))


def check_facts(exchange: Exchange, vocabulary: Vocabulary) -> Iterator[Fact]:
    """The update check and its answer, where the request goes to the update handler and is one."""
    if classify(exchange.request.target) is not Resource.UPDATE_HANDLER or not exchange.request.body.data:
        return
    try:
        yield UpdateCheck.decode(exchange.request.body.data, vocabulary, charset(exchange.request.headers)).to_json()
    except DissectError:
        return  # a log upload, or something else that is posted to the same handler
    if exchange.response is not None and exchange.response.body.data:
        try:
            yield UpdateAnswer.decode(
                exchange.response.body.data, vocabulary, charset(exchange.response.headers)
            ).to_json()
        except DissectError:
            return


def target_facts(exchange: Exchange) -> Iterator[Fact]:
    """What the target alone tells: which file of which package is fetched."""
    if classify(exchange.request.target) is not Resource.FIRMWARE_FILE:
        return
    try:
        package = PackagePath.parse(exchange.request.target)
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
        "range": header(exchange.request.headers, "range"),
        "complete": exchange.complete and delivered(exchange.response),
    }


def login_facts(exchange: Exchange) -> Iterator[Fact]:
    """The NTLM messages of a login, as NTLM or inside Negotiate; responses and keys are left out."""
    sides = (("request", exchange.request), ("response", exchange.response))
    for side, message in sides:
        for name, value in message.headers if message is not None else ():
            if name.lower() in LOGIN_HEADERS and value[:9].lower().startswith(("ntlm ", "negotiate")):
                from dissectors import ntlm  # noqa: PLC0415 - half of the start of `exchanges`, and seldom needed

                try:
                    tokens = ntlm.from_header(value)
                except DissectError:
                    continue
                yield from ({**token.to_json(), "side": side} for token in tokens)


def delivered(response: Response | None) -> bool:
    """Whether an answer brought (a part of) the file."""
    return response is not None and response.status in {200, 206}
