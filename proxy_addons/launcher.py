"""`upshim proxy` without the parts of mitmproxy it does not need (lean_master.py): start, run, hand over, drain.

Four of mitmproxy's thirty-odd addons do the proxying; leaving the rest out saves a good part of the cost of a request.
No flow is kept once it is over.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

from mitmproxy import exceptions, options
from mitmproxy.addons import core, proxyserver, tlsconfig
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server import ConnectionHandler

from captures.database_url import DatabaseUrl, Place
from proxy_addons import early_signals, http1_guard
from proxy_addons.addon import Upshim
from proxy_addons.admin import Admin, read_token
from proxy_addons.drain import Drain
from proxy_addons.lean_master import LeanMaster
from proxy_addons.limits import Bounds, Limits, Seat, Transport, descriptors
from proxy_addons.listeners import Address, HandedOver, Offer, address_of, ask, from_manager, normal
from proxy_addons.memory import keep_small
from proxy_addons.notify import keep_alive, notify, watchdog_period
from proxy_addons.phone_tls import PhoneTls
from proxy_addons.upstream_tls import NAMES
from proxy_addons.upstreams import Upstreams
from proxy_addons.via import Via

logger = logging.getLogger("upshim")

QUIET = 1.0  # seconds without a byte after which a connection that has nothing in flight is closed while draining
LOOK_EVERY = 0.05  # seconds between looks at what is left while draining
TAKING_UP = 3  # turns of the event loop within which an accepted connection is sure to be its listener's
ACCEPTING = 50  # and within which it is sure to have become a known one
SWEEP_EVERY = 1.0  # seconds between looks for connections that overstay


class StartError(Exception):
    """The proxy cannot start: an option, a file or an address is unusable; one line for people."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What to start. `modes` are mitmproxy's mode specifications, each with its `@host:port`."""

    modes: Sequence[str]
    state: Path
    upstreams: Sequence[str] = ()
    rules: Path | None = None
    record: Place | None = None
    profile: Path | None = None
    pcap: Path | None = None
    pcap_bytes: int = 0
    dry_run: bool = False
    kill_switch: Path | None = None
    body_limit: int | None = None
    store: str = "full"
    store_users: bool = False
    keep_days: int = 0
    keep_bytes: int = 0
    health: str | None = None
    admin: tuple[str, int] | None = None
    admin_token: Path | None = None
    drain: float = 30.0  # seconds that exchanges in flight may take after SIGTERM
    hand_over: bool = False  # take the listeners of the upshim that runs with this state folder, and its place
    bounds: Bounds = field(default_factory=Bounds)
    certs: Path | None = None  # key and certificates that phones are shown
    tls_oldest: str = "1.2"  # version that phones may speak
    server_ca: Path | None = None
    server_insecure: bool = False
    server_tls_oldest: str = "1.2"
    via: tuple[Literal["http", "https"], str, int] | None = None  # the proxy the servers are reached through
    trust_forwarded: Sequence[str] = ()


class TlsConfig(tlsconfig.TlsConfig):
    """mitmproxy's, which looks at every request for one of its own list of revoked certificates: it revokes none."""

    request = None  # type: ignore[assignment]


async def serve(launch: Launch, ready: Callable[[list[tuple[str, int]], Callable[[], None]], None]) -> None:
    """Run until SIGTERM, SIGINT or the stop function that `ready` is given along with the addresses listened on.

    The first SIGTERM lets exchanges in flight finish, everything else ends at once. Raises `StartError`.
    """
    master = LeanMaster(options.Options())
    server = proxyserver.Proxyserver()
    addon, drain = Upshim(views=False), Drain()

    def transport_of(name: str) -> Transport | None:
        handler = server.connections.get(name)
        return None if handler is None else phones_end(handler)

    limits = Limits(descriptors(launch.bounds), addon.failures, addon.metrics, transport_of)
    http1_guard.install(http1_guard.Guard(limits, launch.bounds.head_bytes))
    admin: Admin | None = None
    before: HandedOver | None = None
    try:
        make_state(launch.state)
        via = None if launch.via is None else Via(addon.failures, *launch.via)
        tls = PhoneTls(addon.failures, launch.certs, launch.tls_oldest, via)
        between = [] if via is None else [via]
        master.addons.add(core.Core(), server, tls, TlsConfig(), limits, *between, addon, drain)
        # First what everything else is checked against: an update that fails is rolled back and checked once more, and
        # the error told is that of the second check.
        Upstreams.of(launch.modes, launch.upstreams)
        master.options.update(mode=list(launch.modes), upshim_upstream=list(launch.upstreams))
        if via is not None and launch.via is not None:
            via.upstreams, addon.upstreams = addon.upstreams, Upstreams(frozenset({launch.via[1:]}))
            addon.upstream_watch.configure([launch.via])
        server_oldest = NAMES[launch.server_tls_oldest]
        master.options.update(
            confdir=str(launch.state),
            # What the phone sent is what the server gets, and a probe of our port is not passed on to the server.
            keep_host_header=True,
            validate_inbound_headers=False,
            connection_strategy="lazy",
            http2=False,
            ssl_insecure=launch.server_insecure,
            ssl_verify_upstream_trusted_ca=as_option(launch.server_ca),
            # mitmproxy dies of some versions of OpenSSL as soon as one is set.
            **({} if server_oldest == NAMES["1.2"] else {"tls_version_server_min": server_oldest}),
            upshim_rules=as_option(launch.rules),
            upshim_record=launch.record.secret if isinstance(launch.record, DatabaseUrl) else as_option(launch.record),
            upshim_state=str(launch.state),
            upshim_store=launch.store,
            upshim_store_users=launch.store_users,
            upshim_keep_days=launch.keep_days,
            upshim_keep_bytes=launch.keep_bytes,
            upshim_profile=as_option(launch.profile),
            upshim_pcap=as_option(launch.pcap),
            upshim_pcap_bytes=launch.pcap_bytes,
            upshim_dry_run=launch.dry_run,
            upshim_trust_forwarded=list(launch.trust_forwarded),
            upshim_kill_switch=as_option(launch.kill_switch),
            **({} if launch.body_limit is None else {"upshim_body_limit": launch.body_limit}),
            **({} if launch.health is None else {"upshim_health": launch.health}),
        )
        limits.fronts = addon.fronts
        inherited = {address_of(listener): listener for listener in from_manager()}
        if launch.hand_over and (before := ask(launch.state)) is not None:
            inherited |= {address_of(listener): listener for listener in before.listeners}
            wanted = {listens_at(mode) for mode in launch.modes}
            if deserted := {address_of(listener) for listener in before.for_phones} - wanted:
                host, port = min(deserted)
                raise StartError(f"the upshim before listens for phones on {host}:{port}, which no --listen names")
        master.inherited = inherited
        if not await server.setup_servers():
            raise StartError("; ".join(filter(None, map(why_not_listening, server.servers))) or "cannot listen")
        addon.metrics.connections.set_function(lambda: len(server.connections))
        addon.metrics.certificate_expires.set_function(tls.expires)
        addon.metrics.server_unreachable.set_function(lambda: bool(addon.upstream_watch.unreachable))
        addon.metrics.certificate_accepted.set_function(lambda: not tls.refused)
        if launch.admin is not None:
            admin = await start_admin(launch.admin, launch.admin_token, addon, server, drain, inherited)
        for address, unused in inherited.items():  # nobody would accept what waits there
            logger.warning("upshim: a socket for %s:%d was passed, but is not listened on", *address)
            unused.close()
    except (exceptions.OptionsError, OSError, ValueError, StartError) as error:
        addon.done()
        if before is not None:
            before.drop()
        raise StartError(first_line(str(error))) from error
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def reload() -> None:
        addon.reload()
        tls.reload()

    def stop() -> None:
        if stopping:
            master.shutdown()
            return
        addon.draining = drain.draining = True
        addon.metrics.draining.set(1)
        notify("STOPPING=1")
        if offer is not None:
            offer.close()
        stopping.append(loop.create_task(wind_down(server, drain, launch.drain)))
        stopping[0].add_done_callback(lambda _task: master.shutdown())

    def descriptors_of_listeners() -> tuple[list[int], list[int]]:
        return listening(server), admin.descriptors() if admin is not None else []

    def replaced() -> None:
        if admin is not None:
            admin.close()  # its questions are the next one's to answer
        if not stopping:
            stop()

    offer = offer_listeners(launch.state, descriptors_of_listeners, replaced)
    if before is not None:
        before.done()
    if threading.current_thread() is threading.main_thread():  # nowhere else may signals be handled
        loop.add_signal_handler(signal.SIGTERM, stop)
        loop.add_signal_handler(signal.SIGINT, master.shutdown)
        actions = {signal.SIGHUP: reload, signal.SIGUSR1: addon.kill_switch.toggle}
        for number, action in actions.items():
            loop.add_signal_handler(number, action)
        early_signals.release(actions)
    ready([(str(address[0]), int(address[1])) for address in server.listen_addrs()], master.shutdown)
    notify("READY=1")
    period = watchdog_period()
    alive = loop.create_task(keep_alive(period)) if period is not None else None
    sweeping, shrinking = loop.create_task(sweep(server, limits)), loop.create_task(keep_small())
    try:
        await master.run()
    finally:
        for task in (alive, sweeping, shrinking, *stopping):
            if task is not None:
                task.cancel()
        if admin is not None:
            admin.close()
        if offer is not None:
            offer.close()
    await server.servers.update([])  # mitmproxy leaves its sockets to the end of the process


def make_state(folder: Path) -> None:
    """The folder where a certificate authority's key goes. Raises `StartError`."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StartError(f"{folder}: expected a folder, found something else") from error
    except OSError as error:
        raise StartError(f"{folder}: {error.strerror}") from error


def why_not_listening(instance: ServerInstance[Any]) -> str:
    """In one line; blank where it does."""
    error = instance.last_exception
    if error is None:
        return ""
    host, port = listens_at(instance.mode.full_spec)
    return f"cannot listen on {host}:{port}: {in_words(error.__cause__ or error)}"


def in_words(error: BaseException) -> str:
    """Why an address cannot be had, without what asyncio writes around it."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else first_line(str(error))


def listens_at(mode: str) -> Address:
    """Where a mode specification has mitmproxy listen."""
    parsed = ProxyMode.parse(mode)
    return normal(parsed.listen_host("")), parsed.listen_port(0) or 0


def phones_end(handler: ConnectionHandler) -> Transport | None:
    """The socket of a connection's phone."""
    phone = handler.transports.get(handler.client)
    if phone is None or not isinstance(phone.writer, asyncio.StreamWriter):
        return None
    return cast(Transport, phone.writer.transport)


async def sweep(server: proxyserver.Proxyserver, limits: Limits) -> None:
    """Look for connections that overstay, again and again."""
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        seats = {}
        for handler in server.connections.values():
            if (transport := phones_end(handler)) is not None:
                activity = handler.timeout_watchdog.last_activity
                seats[handler.client.id] = Seat(transport, activity, len(handler.transports) > 1)
        try:
            limits.sweep(seats, time.monotonic())
        except Exception as error:  # noqa: BLE001 - the next look may do better
            limits.failures.exception(error)


def offer_listeners(
    state: Path, descriptors: Callable[[], tuple[list[int], list[int]]], replaced: Callable[[], None]
) -> Offer | None:
    """Offer what is listened on to the next upshim; without that, a proxy still does its work."""
    try:
        return Offer(state, descriptors, replaced)
    except OSError as error:
        logger.warning("upshim: cannot be handed over: %s", error)
        return None


def listening(server: proxyserver.Proxyserver) -> list[int]:
    """The descriptors of the sockets that phones come by."""
    listeners = [one for instance in server.servers for one in getattr(instance, "_servers", ())]
    return [one.fileno() for listener in listeners for one in getattr(listener, "sockets", ())]


async def wind_down(server: proxyserver.Proxyserver, drain: Drain, limit: float) -> None:
    """Listen no longer, and wait until every connection has ended what it was at; `limit` is in seconds."""
    # asyncio finds a connection in one turn of its loop, accepts it in the same and takes it up in the next: one that
    # is between these when the listener closes is dropped.
    await asyncio.sleep(0)
    for descriptor in listening(server):
        asyncio.get_running_loop().remove_reader(descriptor)
    for _ in range(TAKING_UP):
        await asyncio.sleep(0)
    await server.servers.update([])
    for _ in range(ACCEPTING):
        await asyncio.sleep(0)
    deadline = time.monotonic() + limit
    while server.connections and time.monotonic() < deadline:
        busy = drain.busy()
        for handler in list(server.connections.values()):
            # A request may be on its way on a connection that was at work just now.
            silent = time.time() - handler.timeout_watchdog.last_activity > QUIET
            phone = handler.transports.get(handler.client)
            if silent and handler.client.id not in busy and phone is not None and phone.writer is not None:
                phone.writer.close()  # what is still to be sent is sent first
        await asyncio.sleep(LOOK_EVERY)
    if server.connections:
        logger.warning("upshim: %d connections were still open after %g s: cut", len(server.connections), limit)


async def start_admin(
    address: Address,
    token: Path | None,
    addon: Upshim,
    server: proxyserver.Proxyserver,
    drain: Drain,
    inherited: dict[Address, socket.socket],
) -> Admin:
    """Start the operator's listener. Raises `OSError` and `ValueError`."""
    started = time.monotonic()
    secret = None if token is None else read_token(token)

    def health() -> tuple[bool, dict[str, Any]]:
        return not drain.draining, {
            "status": "draining" if drain.draining else "ok",
            "connections": len(server.connections),
            "exchanges_in_flight": len(drain),
            "rules": len(addon.rewriter.rules.rules),
            "rules_sha256": addon.rewriter.rules.sha256,
            "server_unreachable": addon.upstream_watch.unreachable or None,
            "stopped": addon.why_stopped() or None,
            "recording": addon.recording is not None,
            "recording_lost": sum(getattr(addon.recording, "lost", {}).values()),  # exchanges, bodies, packets
            "failures": sum(addon.failures.counts.values()),
            "uptime_seconds": round(time.monotonic() - started, 1),
        }

    def command(stop: bool, said: str) -> dict[str, Any]:
        if stop:
            addon.kill_switch.stop("command", said)
        else:
            addon.kill_switch.start()
        return {"stopped": addon.why_stopped() or None}

    admin = Admin(health, addon.metrics.render, command, secret)
    listener = inherited.pop((normal(address[0]), address[1]), None)
    try:
        host, port = await admin.start(*address, listener)
    except OSError as error:
        raise ValueError(f"admin listener: cannot listen on {address[0]}:{address[1]}: {in_words(error)}") from error
    logger.info("upshim: admin listener at http://%s:%d", f"[{host}]" if ":" in host else host, port)
    return admin


def as_option(path: Path | None) -> str | None:
    """A path as an option value."""
    return None if path is None else str(path)


def first_line(text: str) -> str:
    """An error as one line."""
    return text.splitlines()[0] if text else "unknown error"
