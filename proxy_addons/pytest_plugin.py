"""Fixtures for an engineer's own tests; pytest finds them where upshim is installed.

    def test_only_stuck_phones_are_touched(upshim_replay):
        exchanges = upshim_replay("capture.pcap", rules="rules.toml")
        assert [e.rewritten_request is not None for e in exchanges] == [True, False]

`upshim_replay` sends the exchanges of a capture through the addon's own hooks under the given rules, without sockets.
`upshim_play` sends them through a whole proxy in this process, over sockets, between a client and a server that say
what was recorded. `upshim_proxy` is that proxy alone, on a free port of 127.0.0.1, in front of a server the test names.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from captures.store import Store

HOLD = 16 << 20  # a body up to this size is held with its exchange
START_WITHIN = 30  # seconds

ReplayFixture = Callable[..., list[Exchange]]


@dataclass(frozen=True, slots=True)
class RunningProxy:
    """A proxy in this process; `recorded` gives what it has seen so far."""

    port: int
    recording: Path

    @property
    def url(self) -> str:
        """Where phones connect."""
        return f"http://127.0.0.1:{self.port}"

    def recorded(self) -> list[Exchange]:
        """The exchanges recorded so far."""
        store = Store.open(self.recording)
        try:
            return list(store.exchanges())
        finally:
            store.close()


@pytest.fixture
def upshim_replay() -> ReplayFixture:
    """A function `(capture, rules, profile=None) -> exchanges`; `rewritten_*` say what the rules changed."""
    from proxy_addons.addon import BODY_LIMIT  # noqa: PLC0415 - mitmproxy is slow to import
    from proxy_addons.replay import Replay  # noqa: PLC0415
    from proxy_addons.rewriter_files import load_rewriter  # noqa: PLC0415

    def run(capture: str | Path, rules: str | Path, profile: str | Path | None = None) -> list[Exchange]:
        rewriter = load_rewriter(str(rules), None if profile is None else str(profile), BODY_LIMIT, dry_run=False)
        items = read_exchanges(Path(capture), ReadOptions(hold=HOLD))
        with Replay(rewriter) as replay:
            return [replay.run(item) for item in items if isinstance(item, Exchange)]

    return run


@pytest.fixture
def upshim_play(tmp_path: Path) -> ReplayFixture:
    """A function `(capture, rules=None, profile=None) -> exchanges` as the proxy recorded them, in the order played.

    What the capture has no whole request of is left out.
    """
    from proxy_addons.recorded_server import RecordedServer  # noqa: PLC0415

    def run(capture: str | Path, rules: str | Path | None = None, profile: str | Path | None = None) -> list[Exchange]:
        items = read_exchanges(Path(capture), ReadOptions(hold=HOLD))
        folder = tmp_path / f"upshim-play-{len(list(tmp_path.glob('upshim-play-*')))}"
        given = [None if name is None else Path(name) for name in (rules, profile)]
        with (
            RecordedServer(item for item in items if isinstance(item, Exchange)) as server,
            proxy_in_thread(server.url, folder, given[0], dry_run=False, profile=given[1]) as proxy,
        ):
            played = sum(1 for _ in server.play("127.0.0.1", proxy.port))
        # The proxy has ended, so all is recorded.
        recorded = sorted(proxy.recorded(), key=lambda exchange: exchange.started)
        assert len(recorded) >= played  # noqa: S101 - a test's fixture
        return recorded

    return run


@pytest.fixture
def upshim_proxy(tmp_path: Path) -> Iterator[Callable[..., RunningProxy]]:
    """A function `(upstream, rules=None, dry_run=False) -> RunningProxy`; the proxy ends with the test.

    mitmproxy allows for one proxy in a process: starting another ends the one before.
    """
    with ExitStack() as stack:

        def start(upstream: str, rules: str | Path | None = None, *, dry_run: bool = False) -> RunningProxy:
            stack.close()
            folder = tmp_path / f"upshim-{len(list(tmp_path.glob('upshim-*')))}"
            path = None if rules is None else Path(rules)
            return stack.enter_context(proxy_in_thread(upstream, folder, path, dry_run=dry_run))

        yield start


@contextmanager
def proxy_in_thread(
    upstream: str, folder: Path, rules: Path | None, *, dry_run: bool, profile: Path | None = None
) -> Iterator[RunningProxy]:
    """A proxy with an event loop of its own. Raises `StartError`."""
    from proxy_addons.launcher import Launch, serve  # noqa: PLC0415

    launch = Launch(
        modes=[f"reverse:{upstream}@127.0.0.1:0"],
        state=folder / "state",
        rules=rules,
        profile=profile,
        record=folder / "recording",
        dry_run=dry_run,
    )
    listening = threading.Event()
    ports: list[int] = []
    stops: list[Callable[[], None]] = []
    failures: list[BaseException] = []

    def ready(addresses: list[tuple[str, int]], stop: Callable[[], None]) -> None:
        ports.extend(port for _, port in addresses)
        stops.append(stop)
        listening.set()

    def live() -> None:
        try:
            asyncio.run(serve(launch, ready))
        except BaseException as error:  # noqa: BLE001 - it belongs to the test's thread
            failures.append(error)
        listening.set()

    thread = threading.Thread(target=live, name="upshim-proxy", daemon=True)
    thread.start()
    listening.wait(START_WITHIN)
    if failures:
        raise failures[0]
    try:
        yield RunningProxy(ports[0], folder / "recording")
    finally:
        for stop in stops:
            stop()
        thread.join(START_WITHIN)
