"""The parts of the proxy's bench and soak that can be wrong without a proxy."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from dissectors.update_check import UpdateCheck
from dissectors.vocabulary import Vocabulary
from proxy_addons.policy import decide
from proxy_addons.rewriter import phone_of
from proxy_addons.rules import Rules
from tests.servers import Received, message, serving
from tools.bench import checks
from tools.bench.proxy import Checks, bars, file_turns, summary
from tools.bench.proxy_load import KINDS, download, run_own
from tools.bench.proxy_targets import Target
from tools.bench.soak import Look, judge, settled, trend
from tools.bench.soak import summary as soak_summary
from tools.bench.soak_phones import Phones

FILE = bytes(1000) * 1000


def update_server(request: Received) -> Iterator[bytes]:
    yield message(checks.ANSWER, "Content-Type: text/xml") if request.method == "POST" else message(FILE)


def action(number: int, *, mixed: bool) -> str:
    body = checks.check(number, mixed=mixed).partition(b"\r\n\r\n")[2]
    phone = phone_of(UpdateCheck.decode(body, Vocabulary.default(), "utf-8"))
    return decide(Rules.parse(checks.RULES.encode()), phone).action


def test_every_check_is_rewritten_by_the_rules_and_of_a_mixed_fleet_a_few() -> None:
    assert [action(number, mixed=False) for number in (0, 1, 499)] == ["report"] * 3
    assert [action(number, mixed=True) for number in range(50)].count("report") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_of_our_own_counts_what_came(kind: str) -> None:
    with serving(update_server) as server:
        measured = run_own(server.port, 2, 0.3, kind)
    assert measured.failed == 0
    assert 0 < measured.requests <= len(server.received)
    assert 0 < measured.p50 <= measured.p99
    assert (server.connections == 2) == KINDS[kind][0]


def test_a_download_is_hashed_or_only_taken() -> None:
    with serving(update_server) as server:
        assert download(server.port).sha256 == hashlib.sha256(FILE).hexdigest()
        taken = download(server.port, hashing=False)
    assert taken.sha256 == ""
    assert taken.mb_per_s > 0
    assert taken.first_byte > 0


def test_a_download_that_breaks_off_is_told() -> None:
    with (
        serving(lambda _request: iter([message(FILE)[:1000], b""])) as server,
        pytest.raises(OSError, match="bytes came of 1000000"),
    ):
        download(server.port)


def test_phones_count_answers_and_failures() -> None:
    def sometimes(request: Received) -> Iterator[bytes]:
        if len(server.received) % 10 == 0:
            yield message(b"", status="503 Service Unavailable")
        else:
            yield from update_server(request)

    with serving(sometimes) as server:
        phones = Phones(server.port, 200, len(FILE))
        asyncio.run(phones.run(0.5))
    broken = sum(phones.failures.values())
    assert 0 < broken == sum(len(server.received) >= n for n in range(10, len(server.received) + 1, 10))
    assert phones.sent == len(server.received)
    assert len(phones.latencies) + broken <= phones.sent
    assert all("503" in failure for failure in phones.failures)


def test_a_leak_is_told_from_noise() -> None:
    phones = Phones(1, 1, 1)
    noise = [Look(at, 150_000_000, 100_000_000 + at * 7919 % 13 * 500_000, 10, 4, 0, at * 100) for at in range(240)]
    leak = [one._replace(heap=one.heap + int(one.at) * 200_000) for one in noise]
    warming = [one._replace(heap=one.heap + min(100, int(one.at)) * 200_000) for one in noise]
    for looks in (noise, warming):
        quiet = soak_summary(phones, looks, 240)
        assert judge(phones, quiet, looks[0], looks[0], 12) == []
        assert abs(quiet["heap_growth"][0]) < quiet["heap_growth"][1]
    found = soak_summary(phones, leak, 240)
    assert found["heap_bytes_per_check"][0] == pytest.approx(2000, abs=found["heap_bytes_per_check"][1])
    assert found["heap_mb_per_hour"][0] == pytest.approx(720, abs=found["heap_mb_per_hour"][1])
    assert judge(phones, found, leak[0], leak[0], 12)[0].startswith("the heap grew by 2")
    more = noise[0]._replace(descriptors=40)
    assert not settled(noise[0], more)
    assert "40 descriptors" in judge(phones, soak_summary(phones, noise, 240), noise[0], more, 12)[0]


def test_a_line_and_how_far_it_may_be_off() -> None:
    assert trend([(at, 3.0 * at + 5) for at in range(20)]) == pytest.approx((3, 0))
    assert trend([(at, 0.0) for at in range(9)]) is None
    # Ten points of 0, 1, 0, 1 ...: slope and standard error as any textbook has them.
    line = trend([(float(at), float(at % 2)) for at in range(10)])
    assert line == pytest.approx((1 / 33, 2.306 * (2.4242424 / 8 / 82.5) ** 0.5))


def test_a_download_is_compared_with_the_direct_one_of_the_same_moment() -> None:
    with serving(update_server) as server, serving(lambda _request: iter([message(FILE[:-1])])) as other:
        targets = [Target("direct", server.port), Target("same", server.port), Target("spoilt", other.port)]
        turns = dict(file_turns(targets, hashlib.sha256(FILE).hexdigest()))
    assert turns["direct"].of_direct == 1
    assert turns["same"].of_direct == turns["same"].mb_per_s / turns["direct"].mb_per_s
    assert [turn.failed for turn in turns.values()] == [0, 1, 0]  # same, spoilt, direct
    told = summary(
        targets[1], [Checks(3, 2, 1, 2, 1, 1, 0, 0.1, 1), Checks(1, 2, 1, 2, 1, 1, 0, 0.1, 0)], [turns["same"]]
    )
    assert (told["checks_per_s"], told["failed"], told["spread"]) == (2, 1, [1, 3])
    assert told["first_byte"] == round(turns["same"].first_byte, 3)


def test_bars_are_for_what_is_installed() -> None:
    good = {"installed": True, "checks_per_s": 1000.0, "of_direct": 1.0, "first_byte": 2.0, "peak": 90e6, "failed": 0}
    names = ("direct", "mitmdump", "upshim, rules and recording", "HAProxy + 2 upshims")
    results: dict[str, dict[str, Any]] = {name: dict(good, program=name) for name in names}
    results["mitmdump"]["checks_per_s"] = 500.0
    assert list(bars(results)) == []
    results["mitmdump"]["checks_per_s"] = 900.0
    results[names[3]]["of_direct"] = 0.8
    assert len(list(bars(results))) == 2
    for name in (names[1], names[3]):
        results[name] = {"program": name, "installed": False}
    assert list(bars(results)) == []
    results[names[2]]["failed"] = 3
    assert list(bars(results)) == ["upshim, rules and recording: 3 checks or downloads failed"]
