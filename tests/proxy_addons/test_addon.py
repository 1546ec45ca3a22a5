"""The addon's own parts, inside mitmproxy's test context: options, reloading, and failing open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions, http
from mitmproxy.test import taddons, tflow

from proxy_addons import addon as addon_module
from proxy_addons.addon import Upshim
from proxy_addons.failures import Failures, fail_open
from proxy_addons.rewriter import Rewriter
from proxy_addons.streams import Hold, Tee
from proxy_addons.upstream_url import parse_upstream
from proxy_addons.upstreams import Upstreams
from tests.bodies import CHECK_TARGET, OFFER_NEXT, REPORT_ZERO, answer_body, check_body


def check_flow() -> http.HTTPFlow:
    flow = tflow.tflow(resp=True)
    flow.request.method, flow.request.path = "POST", CHECK_TARGET
    flow.request.content = check_body()
    assert flow.response is not None
    flow.response.content = answer_body()
    return flow


async def pass_through(upshim: Upshim, flow: http.HTTPFlow) -> None:
    upshim.requestheaders(flow)
    await upshim.request(flow)
    upshim.responseheaders(flow)
    await upshim.response(flow)


def in_mitmproxy(test: Callable[[Upshim, Any], Any], **options: Any) -> None:
    """Run a coroutine test with the addon loaded and configured."""

    async def run() -> None:
        upshim = Upshim()
        with taddons.context(upshim) as context:
            context.master._legacy_log_events.uninstall()  # the next log line may come when its event loop is closed
            context.configure(upshim, mode=["reverse:http://127.0.0.1:9"], **options)
            await test(upshim, context)
            upshim.done()

    asyncio.run(run())


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(REPORT_ZERO)
    return path


def test_options_that_cannot_be_used_are_one_line(tmp_path: Path, rules: Path) -> None:
    (tmp_path / "bad.toml").write_text("[[rule]]\n")

    async def test(upshim: Upshim, context: Any) -> None:
        for option, value, complaint in (
            ("upshim_rules", tmp_path / "none.toml", "none.toml: No such file"),
            ("upshim_rules", tmp_path / "bad.toml", "bad.toml: line 1: name: expected text"),
            ("upshim_profile", tmp_path / "none.toml", "none.toml: No such file"),
            ("upshim_record", "/dev/null/rec", "cannot record here"),
            ("upshim_pcap", tmp_path / "x.pcapng", "needs upshim_record"),
            ("upshim_upstream", ["x y"], "expected a server"),
        ):
            with pytest.raises(exceptions.OptionsError, match=complaint):
                context.configure(upshim, **{option: value if isinstance(value, list) else str(value)})
        with pytest.raises(exceptions.OptionsError, match="open proxy"):
            context.configure(upshim, mode=["regular"], upshim_upstream=[])

    in_mitmproxy(test)


def test_a_changed_rules_file_comes_into_force_and_a_broken_one_does_not(
    rules: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(addon_module, "LOOK_EVERY", 0.01)
    caplog.set_level(logging.INFO, "upshim")

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def test(upshim: Upshim, _context: Any) -> None:
        first = upshim.rewriter
        upshim.running()
        rules.write_text(OFFER_NEXT)
        await until(lambda: upshim.rewriter is not first)
        offering = upshim.rewriter
        assert offering.rules.rules[0].offer is not None
        rules.write_text("nonsense")
        await until(lambda: bool(upshim.failures.counts["rules refused"]))
        assert upshim.rewriter is offering
        rules.unlink()
        await until(lambda: upshim.failures.counts["rules refused"] == 2)
        assert upshim.rewriter is offering
        rules.write_text(REPORT_ZERO)
        await until(lambda: upshim.rewriter is not offering)
        assert upshim.rewriter.rules.rules[0].report is not None

    in_mitmproxy(test, upshim_rules=str(rules))
    assert "the old rules stay in force" in caplog.text


@pytest.mark.parametrize("broken", ["read", "decide", "answer"])
def test_a_fault_in_our_code_leaves_the_exchange_as_it_was(
    broken: str, rules: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rules.write_text(OFFER_NEXT if broken == "answer" else REPORT_ZERO)

    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr(Rewriter, broken, fault)

    async def test(upshim: Upshim, _context: Any) -> None:
        for _ in range(3):
            flow = check_flow()
            await pass_through(upshim, flow)
            assert flow.request.content == check_body()
            assert flow.response is not None
            assert flow.response.content == answer_body()
        assert sum(upshim.failures.counts.values()) >= 3

    in_mitmproxy(test, upshim_rules=str(rules))
    assert caplog.text.count("ZeroDivisionError") == 1


def test_every_hook_is_guarded(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a bug of ours")

    async def test(upshim: Upshim, _context: Any) -> None:
        flow = check_flow()
        monkeypatch.setattr(addon_module, "headers_of", fault)
        await pass_through(upshim, flow)
        await upshim.error(flow)
        assert flow.request.stream is True
        assert upshim.failures.counts.total() == 1
        monkeypatch.undo()
        monkeypatch.setattr(Upshim, "_commit", fault)
        flow = check_flow()
        await pass_through(upshim, flow)
        assert flow.request.content == check_body()
        assert upshim.failures.counts.total() >= 2

    in_mitmproxy(test, upshim_rules=str(rules))


def test_a_failure_is_logged_once_per_cause(caplog: pytest.LogCaptureFixture) -> None:
    class Part:
        failures = Failures()

        @fail_open
        def hook(self, argument: int) -> None:
            raise ValueError(argument)

    part = Part()
    for number in range(5):
        part.hook(number)
    assert list(part.failures.counts.values()) == [5]
    assert len(caplog.records) == 1


def test_streams_never_raise(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenRecording:
        def stream(self) -> object:
            return object()

        def chunk(self, *_: object) -> None:
            raise OSError("broken")

        finish = chunk

    def edit(body: bytes) -> bytes:
        raise ValueError(body)

    failures = Failures()
    tee = Tee(failures, BrokenRecording())  # type: ignore[arg-type]
    assert tee(b"data") == b"data"
    assert tee(b"") == b""
    assert failures.counts.total() == 1
    hold = Hold(failures, 10, edit, Tee(failures, None))
    assert hold(b"half") == []
    assert hold(b"") == [b"half"]
    assert failures.counts.total() == 2


@pytest.mark.parametrize("sizes", [(3, 3, 3), (10,), (11,), (5, 6, 1), (1,) * 30])
def test_a_held_body_comes_out_whole(sizes: tuple[int, ...]) -> None:
    body = bytes(range(sum(sizes)))
    hold = Hold(Failures(), 10, lambda whole: b"<" + whole + b">", Tee(Failures(), None))
    sent, position = b"", 0
    for size in sizes:
        pieces = hold(body[position : position + size])
        assert all(pieces)  # an empty piece would end a chunked body
        sent += b"".join(pieces)
        position += size
    sent += b"".join(hold(b""))
    assert sent == (b"<" + body + b">" if len(body) <= 10 else body)


@pytest.mark.parametrize(
    ("text", "upstream"),
    [
        ("http://10.0.0.5", ("10.0.0.5", 80)),
        ("https://Pool.contoso.com/", ("pool.contoso.com", 443)),
        ("10.0.0.5:8080", ("10.0.0.5", 8080)),
        ("http://[fd00::5]:81", ("fd00::5", 81)),
    ],
)
def test_upstreams(text: str, upstream: tuple[str, int]) -> None:
    assert parse_upstream(text) == upstream


@pytest.mark.parametrize(
    "host", ["10.0.0.5%0a", "10.0.0.500", "a..b", "-a", "a b", "a;b", "*", "x" * 64, "[fd00::5%25a;b]", "b\u00fccher"]
)
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(ValueError, match="expected a server"):
        parse_upstream(f"http://{host}")


def test_which_servers_may_be_connected_to() -> None:
    reverse = Upstreams.of(["reverse:http://10.0.0.5@8080"], [])
    assert reverse.allow("10.0.0.5", 80)
    assert not reverse.allow("10.0.0.5", 81)
    assert not reverse.allow("10.0.0.6", 80)
    assert Upstreams.of(["transparent"], []).allow("10.9.9.9", 80)
    narrowed = Upstreams.of(["transparent"], ["10.0.0.5:80"])
    assert not narrowed.allow("10.9.9.9", 80)
    with pytest.raises(ValueError, match="open proxy"):
        Upstreams.of(["regular"], [])
    assert Upstreams.of(["regular"], ["POOL:80"]).allow("pool", 80)


def test_a_profile_teaches_other_names(rules: Path, tmp_path: Path) -> None:
    profile = tmp_path / "profile.toml"
    profile.write_text('[aliases]\nmodel = ["Baureihe"]\n')
    body = check_body().replace(b"Model>", b"Baureihe>")

    async def reported(upshim: Upshim, _context: Any) -> None:
        flow = check_flow()
        flow.request.content = body
        await pass_through(upshim, flow)
        assert (flow.request.content == body) is not knows

    for knows in (False, True):
        options = {"upshim_profile": str(profile)} if knows else {}
        in_mitmproxy(reported, upshim_rules=str(rules), **options)
