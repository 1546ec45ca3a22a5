from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import json_lines
from captures.exchange import Exchange
from captures.json_lines import JsonLines
from captures.redaction import redacted
from tests.captures.exchange_strategies import exchanges
from tests.captures.test_store import an_exchange

FACTS = st.lists(st.fixed_dictionaries({"fact": st.text(max_size=5), "size": st.integers() | st.none()}), max_size=2)
LOGIN = ("Authorization", "NTLM TlRMTVNTUAABAAAA")


@st.composite
def many(draw: st.DrawFn) -> list[Exchange]:
    """Exchanges of which some share heads, facts and credentials, as those of one phone do."""
    known = draw(st.lists(exchanges(), min_size=1, max_size=3))
    facts = tuple(draw(FACTS))
    result = []
    for index in range(draw(st.integers(1, 6))):
        one = draw(st.sampled_from(known)).with_facts(facts if draw(st.booleans()) else tuple(map(dict, facts)))
        request = replace(one.request, headers=(*one.request.headers, LOGIN)) if draw(st.booleans()) else one.request
        result.append(replace(one, index=index, request=request, complete=draw(st.booleans())))
    return result


@given(many(), st.booleans(), st.sampled_from([0, 300, json_lines.MAX_KEPT]))
def test_a_line_is_the_json_form(read: list[Exchange], secrets: bool, kept: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines, "MAX_KEPT", kept)
        lines = JsonLines(secrets=secrets)
        for exchange in read:
            form = exchange.to_json()
            assert lines.line(exchange) == json.dumps(form if secrets else redacted(form))


def test_credentials_are_left_out_unless_asked_for() -> None:
    exchange = replace(an_exchange(), request=replace(an_exchange().request, headers=(LOGIN,)))
    assert LOGIN[1] not in JsonLines().line(exchange)
    assert LOGIN[1] in JsonLines(secrets=True).line(exchange)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "MAX_KEPT", 2000)
    lines = JsonLines()
    for index in range(100):
        lines.line(
            replace(
                an_exchange(), request=replace(an_exchange().request, target=f"/{index}"), facts=({"fact": str(index)},)
            )
        )
    assert sum(map(len, lines._pieces.values())) + sum(len(text) for _, text in lines._facts.values()) <= 2000
