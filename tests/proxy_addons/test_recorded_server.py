from __future__ import annotations

from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.sources import read_exchanges
from proxy_addons.pytest_plugin import ReplayFixture
from tests.bodies import OFFER_NEXT, REPORT_ZERO
from tests.conftest import ROOT

SAMPLES = ROOT / "captures" / "samples"


def recorded(path: Path) -> list[Exchange]:
    return [one for one in read_exchanges(path) if isinstance(one, Exchange)]


def story(exchanges: list[Exchange]) -> list[tuple[str, str, str, int | None, str | None]]:
    return [
        (
            one.request.method, one.request.target, one.request.body.sha256,
            one.response.status if one.response else None, one.response.body.sha256 if one.response else None,
        )
        for one in exchanges
    ]  # fmt: skip


@pytest.mark.parametrize("scene", ["stuck", "interim", "external-denied"])
def test_without_rules_a_proxy_passes_on_what_was_recorded(upshim_play: ReplayFixture, scene: str) -> None:
    path = SAMPLES / f"{scene}.pcapng"
    played = upshim_play(path)
    assert story(played) == story(recorded(path))
    assert not any(one.rewritten_request or one.rewritten_response for one in played)


def outcome(one: Exchange) -> tuple[str, str | None, str | None]:
    (decision,) = (fact for fact in one.facts if fact["fact"] == "decision")
    asked, answered = one.rewritten_request, one.rewritten_response
    return decision["action"], asked.body.sha256 if asked else None, answered.body.sha256 if answered else None


@pytest.mark.parametrize(
    ("rules", "actions"), [(REPORT_ZERO, ["report"] * 3), (OFFER_NEXT, ["offer"] * 3)], ids=["report", "offer"]
)
def test_sockets_and_hooks_say_the_same(
    upshim_play: ReplayFixture, upshim_replay: ReplayFixture, tmp_path: Path, rules: str, actions: list[str]
) -> None:
    (tmp_path / "rules.toml").write_text(rules)
    path = SAMPLES / "stuck.pcapng"
    played, replayed = (each(path, tmp_path / "rules.toml") for each in (upshim_play, upshim_replay))
    told = [[outcome(one) for one in each] for each in (played, replayed)]
    assert told[0] == told[1]
    assert [action for action, *_ in told[0]] == actions


def test_the_corpus_goes_through_a_proxy(upshim_play: ReplayFixture, corpus: Path) -> None:
    """Keep-alive, logins, ranges, chunks and ends by closing, over real sockets."""
    for name in ("http-ntlm-webdav.pcap", "wu-cab-multiconn-range.pcap", "http-no-length-close.pcap"):
        path = corpus / "pcap" / name
        assert story(upshim_play(path)) == story(recorded(path)), name
