"""Look whether everything upshim needs is there and right, before it runs and while it does.

Examples:
  upshim doctor --upstream http://10.0.0.5 --listen 0.0.0.0:80 --domain contoso.com --record rec --rules rules.toml
  upshim doctor --upstream http://10.0.0.5 --admin 127.0.0.1:9180 --json

The options are those of upshim proxy, so that the ExecStart line of a unit may be put behind it (with folders in the
place of systemd's %S and %d): what is not given is not looked at. Each server is asked a HEAD of the update handler;
nothing is changed anywhere. Exit code 0: nothing but warnings; 1: something will not work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from captures.database_url import DatabaseUrl
from proxy_addons.forwarded import Fronts
from tools import proxy
from tools.deploy import HEALTH, Address
from tools.doctor.result import OK, PROBLEM, WARN, Result
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput

WIDTH = 140  # characters of a line where it is not a terminal's business
STYLES = {OK: "green", WARN: "yellow", PROBLEM: "bold red"}


@dataclass(frozen=True, slots=True)
class Asked:
    """The options, and what those name that are more than a path; a server with whether it is spoken to by TLS."""

    args: argparse.Namespace
    listen: list[Address]
    servers: list[tuple[bool, Address]]
    via: proxy.Url | None
    fronts: Fronts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    proxy.add_arguments(parser)
    parser.add_argument("--domain", default="", metavar="D", help="look up ucupdates-r2.D; certificates must cover it")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Look, and say what was found."""
    proxy.check_options(args)
    asked = Asked(
        args,
        [Address(host, port) for host, port in proxy.addresses(args.listen or [])],
        [(scheme == "https", Address(host, port)) for scheme, host, port in proxy.servers(args.mode, args.upstream)],
        None if args.via is None else proxy.proxy_beyond(args.via, args.mode, args.upstream),
        fronts_of(args.trust_forwarded),
    )
    if args.admin is not None:
        proxy.host_and_port("--admin", args.admin)
    results = []
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "check", "found, and what to do"):
        table.add_column(title, overflow="fold")
    for result in examine(asked):
        results.append(result)
        if args.json:
            print(json.dumps(result.to_json()), flush=True)
            continue
        advice = f"\n[dim]{_plain(result.advice)}[/]" if result.advice else ""
        what = _plain(f"{result.check} {result.subject}".strip())
        table.add_row(f"[{STYLES[result.status]}]{result.status}[/]", what, _plain(result.found) + advice)
    if not args.json:
        console = Console(highlight=False)
        console.width = console.width if console.is_terminal else WIDTH
        console.print(table)
    return EXIT_PROBLEM if any(result.status == PROBLEM for result in results) else EXIT_OK


def _plain(text: str) -> str:
    """Text that is no markup, whatever a server or a file says."""
    return "".join(character if character.isprintable() else "?" for character in text).replace("[", r"\[")


def fronts_of(texts: Sequence[str]) -> Fronts:
    """The fronts that are trusted. Raises `UnusableInput`."""
    try:
        return Fronts.of(texts)
    except ValueError as error:
        raise UnusableInput(f"--trust-forwarded: {error}") from error


def examine(asked: Asked) -> Iterator[Result]:
    """Every check that the options allow, each result as soon as it is known."""
    from tools.doctor import files, network, redirect, running, system, tls  # noqa: PLC0415 - mitmproxy takes half a second

    args, listen, upstreams = asked.args, asked.listen, [server for _, server in asked.servers]
    yield from system.versions()
    yield from system.descriptors(args.max_connections)
    if listen:
        yield from system.privileges([one.port for one in listen])
    if args.mode == "transparent":
        # Without --upstream whatever comes is for us; with it, what is not for the servers is none of our business.
        yield from system.routing(sixth=any(":" in one.host for one in upstreams or listen))
        yield from redirect.table(upstreams, listen)
    if args.domain:
        yield from network.update_name(args.domain, upstreams, args.mode)
    free = []
    for one in listen:
        found = list(network.port(one, args.health or HEALTH))
        free.append(all(result.found == network.FREE for result in found))
        yield from found
        if args.certs is not None or one.port % 1000 == 443:  # elsewhere phones speak HTTP, and upshim would do both
            yield from tls.served(one, args.domain)
    if args.certs is not None:
        yield from tls.certificate_file(args.certs, args.domain, args.tls_oldest)
    yield from servers(asked)
    rules = None
    if args.rules is not None:
        of_rules, rules = files.rules(args.rules)
        yield from of_rules
    if args.profile is not None:
        yield files.profile(args.profile)
    if args.kill_switch is not None:
        yield files.kill_switch(args.kill_switch)
    if isinstance(args.record, DatabaseUrl):
        yield from files.database(args.record, args.state)
    elif args.record is not None:
        yield from files.recording(args.record)
    if args.pcap is not None:
        yield files.capture(args.pcap)
    if args.state is not None:
        yield from files.state(args.state)
    yield from files.fronts(asked.fronts)
    if args.admin_token is not None:
        yield from files.private(args.admin_token, "key")
    if args.admin is not None:
        # Where all ports are still free it does not run yet, and nobody need wonder.
        yield from running.running(args.admin, args.admin_token, rules, expected=not (free and all(free)))


def servers(asked: Asked) -> Iterator[Result]:
    """Can each of the servers be reached, by the way that the proxy would go?"""
    from tools.doctor import network, tls  # noqa: PLC0415
    from tools.doctor.reach import Way, lenient  # noqa: PLC0415

    args = asked.args
    verifying = tls.Verifying(args.server_ca, args.server_insecure, args.server_tls_oldest)
    bad = list(tls.unusable(verifying))
    yield from bad
    way = Way()
    if asked.via is not None:
        scheme, host, port = asked.via
        secured = None if scheme == "http" else lenient() if bad else verifying.context()
        way = Way(Address(host, port), secured)
    for secure, server in asked.servers:
        yield from network.server(server, secure, asked.listen, way)
        if secure and not bad:
            yield from tls.server(server, verifying, way)
