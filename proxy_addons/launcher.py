"""`upshim proxy` without the parts of mitmproxy it does not need: the one file that uses mitmproxy's inner interfaces.

Four of mitmproxy's thirty-odd addons do the proxying; leaving the rest out saves a good part of the cost of a request.
No flow is kept once it is over.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mitmproxy import exceptions, options
from mitmproxy.addons import core, next_layer, proxyserver, tlsconfig
from mitmproxy.master import Master

from proxy_addons.addon import Upshim


class StartError(Exception):
    """The proxy cannot start: an option, a file or an address is unusable; one line for people."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start. `modes` are mitmproxy's mode specifications, each with its `@host:port`."""

    modes: Sequence[str]
    state: Path
    upstreams: Sequence[str] = ()
    rules: Path | None = None
    record: Path | None = None
    profile: Path | None = None
    pcap: Path | None = None
    dry_run: bool = False
    kill_switch: Path | None = None
    body_limit: int | None = None
    store: str = "full"
    keep_days: int = 0
    keep_bytes: int = 0


async def serve(launch: Launch, ready: Callable[[list[tuple[str, int]], Callable[[], None]], None]) -> None:
    """Run until SIGTERM, SIGINT or the stop function that `ready` is given along with the addresses listened on.

    Raises `StartError`.
    """
    master = Master(options.Options())
    server = proxyserver.Proxyserver()
    addon = Upshim()
    try:
        launch.state.mkdir(mode=0o700, parents=True, exist_ok=True)  # a certificate authority's key goes there
        master.addons.add(core.Core(), server, next_layer.NextLayer(), tlsconfig.TlsConfig(), addon)
        # First what everything else is checked against: an update that fails is rolled back and checked once more.
        master.options.update(mode=list(launch.modes), upshim_upstream=list(launch.upstreams))
        master.options.update(
            confdir=str(launch.state),
            # What the phone sent is what the server gets, and a probe of our port is not passed on to the server.
            keep_host_header=True,
            validate_inbound_headers=False,
            connection_strategy="lazy",
            http2=False,
            upshim_rules=as_option(launch.rules),
            upshim_record=as_option(launch.record),
            upshim_store=launch.store,
            upshim_keep_days=launch.keep_days,
            upshim_keep_bytes=launch.keep_bytes,
            upshim_profile=as_option(launch.profile),
            upshim_pcap=as_option(launch.pcap),
            upshim_dry_run=launch.dry_run,
            upshim_kill_switch=as_option(launch.kill_switch),
            **({} if launch.body_limit is None else {"upshim_body_limit": launch.body_limit}),
        )
        if not await server.setup_servers():
            causes = [str(instance.last_exception) for instance in server.servers if instance.last_exception]
            raise StartError(first_line("; ".join(causes) or "cannot listen"))
    except (exceptions.OptionsError, OSError) as error:
        addon.done()
        raise StartError(first_line(str(error))) from error
    except StartError:
        addon.done()
        raise
    if threading.current_thread() is threading.main_thread():  # nowhere else may signals be handled
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, master.shutdown)
        loop.add_signal_handler(signal.SIGHUP, addon.reload)
    loop.add_signal_handler(signal.SIGUSR1, addon.toggle)
    ready([(str(address[0]), int(address[1])) for address in server.listen_addrs()], master.shutdown)
    await master.run()
    await server.servers.update([])  # mitmproxy leaves its sockets to the end of the process


def as_option(path: Path | None) -> str | None:
    """A path as an option value."""
    return None if path is None else str(path)


def first_line(text: str) -> str:
    """An error as one line."""
    return text.splitlines()[0] if text else "unknown error"
