from __future__ import annotations

import json

import pytest

from captures.exchange import Exchange, Request, Response
from captures.json_lines import JsonLines
from captures.redaction import for_export, redacted, redacted_value
from dissectors.redaction import REDACTED
from tests.captures.test_store import an_exchange

TOKEN = "TlRMTVNTUAADAAAAGAAYAHYAAAA="


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("Authorization", f"NTLM {TOKEN}", f"NTLM <redacted, {len(TOKEN)} characters>"),
        ("PROXY-authorization", f"Negotiate  {TOKEN}", f"Negotiate <redacted, {len(TOKEN) + 1} characters>"),
        ("Authorization", TOKEN, f"<redacted, {len(TOKEN)} characters>"),
        ("WWW-Authenticate", f"NTLM {TOKEN}", f"NTLM <redacted, {len(TOKEN)} characters>"),
        ("WWW-Authenticate", "NTLM", "NTLM"),
        ("WWW-Authenticate", 'Basic realm="pool"', 'Basic realm="pool"'),
        ("Cookie", "session=1", "<redacted, 9 characters>"),
        ("Content-Type", "text/xml", "text/xml"),
    ],
)
def test_a_login_can_be_followed_and_not_stolen(name: str, value: str, shown: str) -> None:
    assert redacted_value(name, value) == shown


def test_no_side_of_an_exchange_keeps_them() -> None:
    plain = an_exchange()
    secret = Request("GET", "/", headers=(("Authorization", f"NTLM {TOKEN}"),))
    answer = Response(
        200, headers=(("Set-Cookie", TOKEN),), interim=((100, "", (("Proxy-Authenticate", f"NTLM {TOKEN}"),)),)
    )
    exchange = Exchange(
        "", 0, plain.client, plain.server, plain.started, plain.ended, secret, answer,
        rewritten_request=secret, rewritten_response=answer,
    )  # fmt: skip
    assert json.dumps(exchange.to_json()).count(TOKEN) == 6
    assert TOKEN not in json.dumps(redacted(exchange.to_json()))
    assert redacted(plain.to_json()) == plain.to_json()


USER = "sip:amy@contoso.com"


@pytest.mark.parametrize("fact", ["update-check", "update-answer"])
def test_who_signs_in_at_a_phone_is_neither_shown_nor_exported(fact: str) -> None:
    exchange = an_exchange().with_facts(({"fact": fact, "user": USER, "model": "CX700"}, {"fact": "ntlm", "user": "x"}))
    assert USER not in json.dumps(redacted(exchange.to_json()))
    assert USER not in JsonLines().line(exchange)
    assert USER in JsonLines(secrets=True).line(exchange)
    exported, count = for_export(exchange)
    assert count == 1
    assert [one["user"] for one in exported.facts] == [REDACTED, "x"]
    assert exported.facts[0]["model"] == "CX700"


def test_what_names_nobody_is_exported_as_it_is() -> None:
    exchange = an_exchange().with_facts(({"fact": "update-check", "user": ""}, {"fact": "update-check"}))
    assert for_export(exchange) == (exchange, 0)
