from __future__ import annotations

import json

import pytest

from captures.exchange import Exchange, Request, Response
from captures.redaction import redacted, redacted_value
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
