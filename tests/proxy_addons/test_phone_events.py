"""The history as live traffic feeds it, and the same one built again from the recording."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.test import taddons, tflow

from captures.base_recording import BaseRecording
from captures.database_url import DatabaseUrl, Place
from captures.store import Store
from dissectors.redaction import REDACTED
from proxy_addons import recording_process
from proxy_addons.addon import Upshim
from proxy_addons.history import DAY, Histories, PhoneHistory
from proxy_addons.ledger import StoredHistories
from proxy_addons.phone_events import address_of, rebuild
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.captures.test_store import an_exchange

FIRMWARE = f"/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/{INTERIM}/CPE/"
NAME = "mac:00:04:f2:00:01:76"
FOLDS_NOTHING = """
import sys
from captures.store import Store
from proxy_addons.recording_process import main
Store.fold_rest = lambda *_: False
main(sys.argv[1:])
"""
SERVERS_OFFER = answer_body(f"http://server{FIRMWARE}", INTERIM)


def in_mitmproxy(test: Callable[[Upshim], Awaitable[None]], **options: Any) -> None:
    """Run a coroutine test with an addon of its own."""

    async def run() -> None:
        upshim = Upshim()
        with taddons.context(upshim) as context:
            context.master._legacy_log_events.uninstall()  # the next log line may come when its event loop is closed
            try:
                context.configure(upshim, mode=["reverse:http://127.0.0.1:9"], **options)
                await test(upshim)
                assert not [cause for cause in upshim.failures.counts if re.search(r" in .*:\d+$", cause)]
            finally:
                upshim.done()

    asyncio.run(run())


async def check(
    upshim: Upshim, *, version: str = "1.0.522.73", answer: bytes = answer_body(), user: str = ""
) -> http.HTTPFlow:
    """One update check; returns the flow as it went on."""
    flow = tflow.tflow(resp=True)
    body = check_body(version)
    if user:
        body = body.replace(b"<Modules>", f"<UserID>{user}</UserID><Modules>".encode())
    flow.request.method, flow.request.path, flow.request.content = "POST", CHECK_TARGET, body
    assert flow.response is not None
    flow.response.content = answer
    return await passed(upshim, flow)


async def fetch(
    upshim: Upshim, file: str, *, status: int = 200, content_range: str = "", cut: bool = False
) -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    flow.request.method, flow.request.path, flow.request.content = "GET", FIRMWARE + file, b""
    assert flow.response is not None
    flow.response.status_code, flow.response.content = status, b"firmware"
    if content_range:
        flow.response.headers["Content-Range"] = content_range
    return await passed(upshim, flow, cut=cut)


async def passed(upshim: Upshim, flow: http.HTTPFlow, *, cut: bool = False) -> http.HTTPFlow:
    now = asyncio.get_running_loop().time() + 1_700_000_000
    flow.request.timestamp_start = flow.request.timestamp_end = now
    assert flow.response is not None
    flow.response.timestamp_start = flow.response.timestamp_end = now
    upshim.requestheaders(flow)
    await upshim.request(flow)
    upshim.responseheaders(flow)
    stream = flow.response.stream
    if callable(stream):
        stream(flow.response.raw_content or b"")
        stream(b"")
    await (upshim.error(flow) if cut else upshim.response(flow))
    return flow


def offered(flow: http.HTTPFlow) -> bool:
    assert flow.response is not None
    return INTERIM.encode() in (flow.response.content or b"")


def reported(flow: http.HTTPFlow) -> bool:
    return b'"0.0.0.0"' in (flow.request.content or b"")


@contextmanager
def histories_of(upshim: Upshim) -> Iterator[Histories]:
    """What is recorded, else what is known to this process."""
    if isinstance(upshim.recording, BaseRecording):
        with closing(Store.connect(upshim.recording.place)) as store:
            yield StoredHistories(store.engine)
    else:
        assert upshim.histories is not None
        yield upshim.histories


def known(upshim: Upshim) -> PhoneHistory:
    with histories_of(upshim) as histories:
        return histories.get(NAME)


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(OFFER_NEXT + "limits.per_phone_per_day = 2\n")
    return path


def recorded_to(place: Place) -> str:
    return place.secret if isinstance(place, DatabaseUrl) else str(place)


def test_a_limit_survives_a_restart(rules: Path, place: Place) -> None:
    options = {"upshim_rules": str(rules), "upshim_record": recorded_to(place)}

    async def first(upshim: Upshim) -> None:
        assert offered(await check(upshim))
        assert known(upshim).state == "offered"
        assert offered(await check(upshim))
        assert not offered(await check(upshim))

    async def second(upshim: Upshim) -> None:
        assert known(upshim).offers_within(known(upshim).offers[-1].at, DAY) == 2
        assert not offered(await check(upshim))

    in_mitmproxy(first, **options)
    in_mitmproxy(second, **options)


def test_the_history_kept_is_the_one_that_was_fed_and_the_one_built_again(rules: Path, place: Place) -> None:
    options = {"upshim_rules": str(rules), "upshim_record": recorded_to(place)}
    lived: list[dict[str, Any]] = []

    async def life(upshim: Upshim) -> None:
        await check(upshim)
        await fetch(upshim, "CPE.cat")
        await fetch(upshim, "CPE.nbt", cut=True)
        await fetch(upshim, "CPE.nbt", status=404)
        assert known(upshim).state == "downloading"
        assert known(upshim).attempt is not None
        assert known(upshim).attempt.downloaded is None  # type: ignore[union-attr]
        await fetch(upshim, "CPE.nbt", status=206, content_range="bytes 4-11/12")
        assert known(upshim).attempt.downloaded is not None  # type: ignore[union-attr]
        assert not offered(await check(upshim))  # it is about to install what it has
        await check(upshim, version=INTERIM)
        assert known(upshim).state == "installed"
        downloads = [(one.file, one.complete, one.resumed) for one in known(upshim).downloads]
        assert downloads == [
            ("CPE.cat", True, False),
            ("CPE.nbt", False, False),
            ("CPE.nbt", False, False),
            ("CPE.nbt", True, True),
        ]
        lived.append(known(upshim).to_json())

    async def again(upshim: Upshim) -> None:
        assert known(upshim).to_json() == lived[0]
        with histories_of(upshim) as histories:
            assert histories.outcomes("cx700", known(upshim).downloads[-1].at, DAY)[1] == 1

    in_mitmproxy(life, **options)
    in_mitmproxy(again, **options)
    rebuilt = Histories()
    with closing(Store.open(place)) as store:
        rebuild(rebuilt, store.exchanges())
    assert rebuilt.get(NAME).to_json() == lived[0]


def test_a_history_that_is_not_known_means_no_offer_and_traffic_flows(
    rules: Path, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"upshim_rules": str(rules), "upshim_record": recorded_to(place)}

    async def one(upshim: Upshim) -> None:
        assert offered(await check(upshim))

    async def other(upshim: Upshim) -> None:
        flow = await check(upshim)
        assert flow.response is not None
        assert flow.response.content == answer_body()
        await fetch(upshim, "CPE.nbt")

    in_mitmproxy(one, **options)
    with closing(Store.create(place)) as store:
        store.add([an_exchange()])  # by whoever does not keep the history
    with monkeypatch.context() as patched:
        patched.setattr(Store, "fold_rest", lambda *_: False)  # not yet
        patched.setattr(recording_process, "COMMAND", [sys.executable, "-c", FOLDS_NOTHING])
        in_mitmproxy(other, **options)
    with closing(Store.open(place)) as store:
        reasons = [fact["reason"] for one in store.exchanges() for fact in one.facts if fact["fact"] == "decision"]
    assert "known_history" in reasons[-1]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("recorded", [True, False])
def test_who_signs_in_is_kept_where_it_is_asked_for(rules: Path, tmp_path: Path, recorded: bool, kept: bool) -> None:
    amy, bob = "sip:amy@contoso.com", "sip:bob@contoso.com"

    async def test(upshim: Upshim) -> None:
        for user in (amy, amy, "", bob, amy):
            await check(upshim, user=user)
        phone = known(upshim)
        assert [user for _, user in phone.users] == ([amy, bob, amy] if kept else [])
        assert [user for _, user in phone.to_json()["users"]] == ([REDACTED] * 3 if kept else [])
        assert [user for _, user in phone.to_json(secrets=True)["users"]] == ([amy, bob, amy] if kept else [])

    options = {"upshim_record": str(tmp_path / "rec")} if recorded else {}
    in_mitmproxy(test, upshim_rules=str(rules), upshim_store_users=kept, **options)
    if recorded:
        found = (tmp_path / "rec" / "store.sqlite").read_bytes() + (tmp_path / "rec" / "journal.jsonl").read_bytes()
        assert (amy.encode() in found) is kept


def test_what_the_server_offers_after_a_report_counts(rules: Path) -> None:
    rules.write_text(REPORT_ZERO + "limits.per_phone_per_day = 1\n")

    async def test(upshim: Upshim) -> None:
        assert reported(await check(upshim))
        assert not known(upshim).offers
        assert reported(await check(upshim, answer=SERVERS_OFFER))
        assert [str(offer.version) for offer in known(upshim).offers] == [INTERIM]
        assert not reported(await check(upshim))

    in_mitmproxy(test, upshim_rules=str(rules))


def test_dry_run_and_the_servers_own_offers_do_not_count(rules: Path) -> None:
    async def dry(upshim: Upshim) -> None:
        for _ in range(5):
            await check(upshim)
        assert not known(upshim).offers
        assert known(upshim).state == "eligible"

    async def servers(upshim: Upshim) -> None:
        for _ in range(3):
            await check(upshim, answer=SERVERS_OFFER)
        assert [offer.rule for offer in known(upshim).offers] == ["", "", ""]
        assert known(upshim).pending == 0
        assert offered(await check(upshim))

    in_mitmproxy(dry, upshim_rules=str(rules), upshim_dry_run=True)
    in_mitmproxy(servers, upshim_rules=str(rules))


def test_the_kill_switch_works_from_the_next_exchange_on(rules: Path, tmp_path: Path) -> None:
    rules.write_text(REPORT_ZERO + 'then.request_headers.set = { X-New = "1" }\n')
    switch = tmp_path / "stop"

    async def test(upshim: Upshim) -> None:
        assert reported(await check(upshim))
        switch.touch()
        flow = await check(upshim)
        assert not reported(flow)
        assert "X-New" not in flow.request.headers
        switch.unlink()
        assert "X-New" in (await check(upshim)).request.headers
        upshim.kill_switch.toggle()
        assert not reported(await check(upshim))
        upshim.kill_switch.toggle()
        assert reported(await check(upshim))

    in_mitmproxy(test, upshim_rules=str(rules), upshim_kill_switch=str(switch))


@pytest.mark.parametrize(("endpoint", "address"), [("10.0.0.1:80", "10.0.0.1"), ("[fe80::1]:80", "fe80::1"), ("", "")])
def test_the_address_of_an_endpoint(endpoint: str, address: str) -> None:
    assert address_of(endpoint) == address
