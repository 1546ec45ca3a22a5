"""Stand between the phones and the update server: record, decode and, where rules say so, rewrite.

Examples:
  upshim proxy --upstream http://10.0.0.5 --listen 0.0.0.0:80 --record /var/lib/upshim/rec
  upshim proxy --upstream http://10.0.0.5 --rules rules.toml --record rec --dry-run
  upshim proxy --upstream http://10.0.0.5 --rules rules.toml --record postgresql://upshim@db/upshim

Everything that is not an update check streams through untouched. Without --rules nothing is changed at all.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from captures.database_url import place_of
from captures.exchange import endpoint
from proxy_addons.upstream_url import parse_upstream
from tools.errors import EXIT_OK, UnusableInput
from tools.options import above_zero

if TYPE_CHECKING:
    from proxy_addons.limits import Bounds

MODES = ("reverse", "transparent", "regular")
VERSIONS = ("1.0", "1.1", "1.2")
NEWEST = VERSIONS[-1]
DEFAULT_LISTEN = "127.0.0.1:8080"
_OPTION = re.compile(r"\bupshim_([a-z_]+)")  # as the addon calls what is an option here


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--upstream",
        metavar="URL",
        action="append",
        default=[],
        help="the update server, e.g. http://10.0.0.5; --mode transparent: each of its addresses and ports",
    )
    parser.add_argument(
        "--listen", metavar="HOST:PORT", action="append", help=f"where phones connect (default {DEFAULT_LISTEN})"
    )
    parser.add_argument("--mode", choices=MODES, default="reverse", help="how phones reach upshim (default reverse)")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="what to rewrite (TOML)")
    parser.add_argument(
        "--record",
        type=place_of,
        metavar="DIR|URL",
        help="record every exchange into this folder, or this PostgreSQL database that several shims may share",
    )
    parser.add_argument(
        "--store", choices=("full", "no-bodies", "no-headers"), default="full", help="what is recorded (default full)"
    )
    parser.add_argument(
        "--store-users", action="store_true", help="keep who signs in at a phone, too, as its update checks tell"
    )
    parser.add_argument("--keep-days", type=int, default=0, metavar="N", help="remove what was recorded before that")
    parser.add_argument("--keep-bytes", type=int, default=0, metavar="N", help="remove the oldest above this size")
    parser.add_argument("--pcap", type=Path, metavar="FILE", help="also write the phones' side as a packet capture")
    parser.add_argument(
        "--pcap-bytes",
        type=int,
        default=0,
        metavar="N",
        help="write it to several files, and remove the oldest above this",
    )
    parser.add_argument("--profile", type=Path, metavar="FILE", help="vocabulary added to the built-in one (TOML)")
    parser.add_argument("--dry-run", action="store_true", help="decide and record, but change nothing")
    parser.add_argument(
        "--kill-switch",
        type=Path,
        metavar="FILE",
        help="while this file exists nothing is rewritten (SIGUSR1 switches too)",
    )
    parser.add_argument("--body-limit", type=int, metavar="BYTES", help="decode update checks up to this size")
    parser.add_argument(
        "--state", type=Path, metavar="DIR", help="where certificates are kept, and what waits for a database"
    )
    parser.add_argument("--certs", type=Path, metavar="FILE", help="key and certificates phones are shown (PEM)")
    parser.add_argument(
        "--tls-oldest", choices=VERSIONS, default="1.2", help="TLS phones may speak (default 1.2; Windows CE needs 1.0)"
    )
    parser.add_argument("--server-ca", type=Path, metavar="FILE", help="certificates the server is verified by (PEM)")
    parser.add_argument("--server-insecure", action="store_true", help="do not verify the server's certificate")
    parser.add_argument(
        "--server-tls-oldest", choices=VERSIONS, default="1.2", help="TLS the server may speak (default 1.2)"
    )
    parser.add_argument("--via", metavar="URL", help="HTTP proxy through which the server is reached")
    parser.add_argument("--admin", metavar="HOST:PORT", help="serve /health and /metrics here (default: nowhere)")
    parser.add_argument("--admin-token", type=Path, metavar="FILE", help="token that --admin asks for")
    parser.add_argument("--health", metavar="PATH", help="path of a load balancer's check (default /__upshim/health)")
    parser.add_argument(
        "--drain", type=float, default=30.0, metavar="SECONDS", help="let exchanges finish after SIGTERM (default 30)"
    )
    parser.add_argument(
        "--max-connections", type=int, metavar="N", default=1000, help="connections of phones (default 1000)"
    )
    parser.add_argument("--max-per-client", type=int, metavar="N", help="connections of one address (default half)")
    parser.add_argument(
        "--idle", type=float, default=150.0, metavar="SECONDS", help="close connections that stand still (default 150)"
    )
    parser.add_argument(
        "--trust-forwarded",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="a load balancer in front (address or network) whose X-Forwarded-For tells the phone's address",
    )
    parser.add_argument(
        "--hand-over",
        action="store_true",
        help="take the listeners of the upshim that runs with this --state; it finishes what it has begun and ends",
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="of the log (default text)")
    parser.add_argument("--verbose", action="store_true", help="log connections too")


def run(args: argparse.Namespace) -> int:
    """Run the proxy until it is told to stop."""
    from proxy_addons import lean_import  # noqa: PLC0415 - mitmproxy takes half a second

    lean_import.only_what_is_named()
    from proxy_addons import log_lines  # noqa: PLC0415
    from proxy_addons.launcher import Launch, StartError, serve  # noqa: PLC0415

    check_options(args)
    upstreams, modes = listeners(args.mode, args.upstream, args.listen or [DEFAULT_LISTEN])
    state = args.state or Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "upshim"
    log = log_lines.start(sys.stderr, args.log_format)
    # What no line of ours tells need not be found out (Python's logging HOWTO, Optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("upshim").setLevel(logging.INFO)
    # Until the proxy is up, whatever goes wrong is told by the one line of the error.
    logging.getLogger("mitmproxy").setLevel(logging.CRITICAL)
    launch = Launch(
        modes=modes,
        state=state,
        upstreams=upstreams,
        rules=args.rules,
        record=args.record,
        profile=args.profile,
        pcap=args.pcap,
        pcap_bytes=args.pcap_bytes,
        dry_run=args.dry_run,
        kill_switch=args.kill_switch,
        body_limit=args.body_limit,
        store=args.store,
        store_users=args.store_users,
        keep_days=args.keep_days,
        keep_bytes=args.keep_bytes,
        health=args.health,
        admin=None if args.admin is None else host_and_port("--admin", args.admin),
        admin_token=args.admin_token,
        drain=args.drain,
        hand_over=args.hand_over,
        bounds=bounds(args),
        certs=args.certs,
        tls_oldest=args.tls_oldest,
        server_ca=readable("--server-ca", args.server_ca),
        server_insecure=args.server_insecure,
        server_tls_oldest=args.server_tls_oldest,
        via=None if args.via is None else proxy_beyond(args.via, args.mode, args.upstream),
        trust_forwarded=args.trust_forwarded,
    )

    def ready(addresses: list[tuple[str, int]], _stop: object) -> None:
        logging.getLogger("mitmproxy").setLevel(logging.INFO if args.verbose else logging.WARNING)
        # What is there by now stays: looking through it for garbage again and again was 4 % of the work.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        log.flush()  # what led up to it is told first
        for host, port in addresses:
            shown = f"[{host}]" if ":" in host else host
            print(f"listening on {shown}:{port}", flush=True)

    try:
        asyncio.run(serve(launch, ready))
    except StartError as error:
        raise UnusableInput(_OPTION.sub(lambda match: "--" + match[1].replace("_", "-"), str(error))) from error
    finally:
        log.close()
    return EXIT_OK


def check_options(args: argparse.Namespace) -> None:
    """What can be said of the options by themselves. Raises `UnusableInput`."""
    for option, number in (
        ("--drain", args.drain),
        ("--keep-days", args.keep_days),
        ("--keep-bytes", args.keep_bytes),
        ("--pcap-bytes", args.pcap_bytes),
    ):
        if not 0 <= number < float("inf"):
            raise UnusableInput(f"{option}: expected 0 or more, found {number:g}")
    for option, number in (
        ("--max-connections", args.max_connections),
        ("--max-per-client", args.max_per_client),
        ("--idle", args.idle),
        ("--body-limit", args.body_limit),
    ):
        if number is not None:
            above_zero(option, number)
    if args.health and not args.health.startswith("/"):
        raise UnusableInput(f"--health: expected a path such as /healthz, found {args.health!r}")
    for needed, has_it, options in (
        ("--record", args.record, ("keep_days", "keep_bytes", "store_users", "pcap")),
        ("--admin", args.admin, ("admin_token",)),
        ("--pcap", args.pcap, ("pcap_bytes",)),
    ):
        for option in options if has_it is None else ():
            if getattr(args, option):
                raise UnusableInput(f"--{option.replace('_', '-')} needs {needed}")
    if args.record is None and args.store != "full":
        raise UnusableInput("--store needs --record")
    if args.certs is None and args.tls_oldest != NEWEST:
        raise UnusableInput("--tls-oldest needs --certs")


def bounds(args: argparse.Namespace) -> Bounds:
    """What phones may take."""
    from proxy_addons.limits import Bounds  # noqa: PLC0415

    idle: float = args.idle
    return Bounds(args.max_connections, args.max_per_client, head_within=min(30, idle), idle=idle, stalled=idle)


def readable(option: str, file: Path | None) -> Path | None:
    """A file with certificates. Raises `UnusableInput`."""
    try:
        if file is not None:
            ssl.create_default_context().load_verify_locations(file.expanduser())
    except ssl.SSLError as error:
        raise UnusableInput(f"{option}: {file}: expected certificates (PEM), found none") from error
    except OSError as error:
        raise UnusableInput(f"{option}: {file}: {error.strerror}") from error
    return file


Url = tuple[Literal["http", "https"], str, int]


def proxy_beyond(text: str, mode: str, upstreams: Sequence[str]) -> Url:
    """The proxy through which the server is reached. Raises `UnusableInput`."""
    if mode == "regular" or not upstreams:
        raise UnusableInput("--via needs --upstream, and --mode reverse or transparent")
    return place_of_server("--via", text)


def listeners(mode: str, upstreams: list[str], listen: list[str]) -> tuple[list[str], list[str]]:
    """The servers that may be connected to, and mitmproxy's mode specifications. Raises `UnusableInput`."""
    places = servers(mode, upstreams)
    if mode != "transparent" and not upstreams:
        raise UnusableInput(f"--mode {mode} needs --upstream")
    name = f"reverse:{upstreams[0].rstrip('/')}" if mode == "reverse" else mode
    listened = addresses(listen)
    if mode == "reverse" and any(comes_back(places[0][1:], one) for one in listened):
        raise UnusableInput(f"--upstream {upstreams[0]}: expected the server, found what --listen names")
    return [endpoint(host, port) for _, host, port in places], [f"{name}@{host}:{port}" for host, port in listened]


def comes_back(server: tuple[str, int], listened: tuple[str, int]) -> bool:
    """Whether what is sent to a server arrives here, as far as the addresses themselves tell."""
    (host, port), (own, own_port) = server, listened
    loopback = host == "localhost" or host.startswith("127.") or host == "::1"
    return port == own_port != 0 and (own == host or (loopback and own in {"0.0.0.0", "::", "localhost"}))


def servers(mode: str, upstreams: Sequence[str]) -> list[Url]:
    """The servers by scheme, host and port. Raises `UnusableInput`."""
    if mode != "transparent" and len(upstreams) > 1:
        raise UnusableInput(f"--mode {mode} takes one --upstream")
    return [place_of_server("--upstream", one) for one in upstreams]


def place_of_server(option: str, text: str) -> Url:
    """What a URL names. Raises `UnusableInput`."""
    scheme = text.partition("://")[0]
    if scheme not in {"http", "https"} and "@" not in text:
        raise UnusableInput(f"{option}: expected http://HOST[:PORT] or https://HOST[:PORT], found {text!r}")
    try:
        host, port = parse_upstream(text)
    except ValueError as error:
        raise UnusableInput(f"{option}: {error}") from error
    return ("https" if scheme == "https" else "http"), host, port


def addresses(listen: Sequence[str]) -> list[tuple[str, int]]:
    """Where to listen. Raises `UnusableInput`, also where it is told twice."""
    found: list[tuple[str, int]] = []
    for text in listen:
        place = host_and_port("--listen", text)
        if place in found:
            raise UnusableInput(f"--listen {text} is given twice")
        found.append(place)
    return found


def host_and_port(option: str, text: str) -> tuple[str, int]:
    """Split a HOST:PORT; an IPv6 address may have its brackets. Raises `UnusableInput`."""
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) < 65536):
        raise UnusableInput(f"{option}: expected HOST:PORT, found {text!r}")
    return host.strip("[]"), int(port)
