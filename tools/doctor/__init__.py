"""Look whether everything upshim needs is there and right, before it runs and while it does.

Examples:
  upshim doctor --upstream http://10.0.0.5 --listen 0.0.0.0:80 --domain contoso.com --record rec --rules rules.toml
  upshim doctor --upstream http://10.0.0.5 --admin 127.0.0.1:9180 --json

The options are those of upshim proxy: what is not given is not looked at. The server is asked one HEAD of the update
handler; nothing is changed anywhere. Exit code 0: nothing but warnings; 1: something will not work.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from captures.database_url import DatabaseUrl, place_of
from tools.deploy import HEALTH, Address, address, server_of
from tools.doctor.result import OK, PROBLEM, WARN, Result
from tools.errors import EXIT_OK, EXIT_PROBLEM
from tools.options import above_zero

WIDTH = 140  # characters of a line where it is not a terminal's business
STYLES = {OK: "green", WARN: "yellow", PROBLEM: "bold red"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--domain", default="", metavar="D", help="look up ucupdates-r2.D; certificates must cover it")
    parser.add_argument("--upstream", metavar="URL", help="the update server")
    parser.add_argument("--listen", metavar="HOST:PORT", action="append", default=[], help="where phones connect")
    parser.add_argument("--mode", choices=("reverse", "transparent", "regular"), default="reverse")
    parser.add_argument("--rules", type=Path, metavar="FILE", help="the rules file")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="the vocabulary")
    parser.add_argument("--record", type=place_of, metavar="DIR|URL", help="the recording")
    parser.add_argument("--state", type=Path, metavar="DIR", help="where upshim keeps its keys")
    parser.add_argument("--certs", type=Path, metavar="FILE", help="key and certificates phones are shown (PEM)")
    parser.add_argument("--server-ca", type=Path, metavar="FILE", help="certificates the server is verified by (PEM)")
    parser.add_argument("--admin", metavar="HOST:PORT", help="the admin listener of a running upshim")
    parser.add_argument("--admin-token", type=Path, metavar="FILE", help="token that it asks for")
    parser.add_argument("--health", default=HEALTH, metavar="PATH", help=f"its health check (default {HEALTH})")
    parser.add_argument("--max-connections", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Look, and say what was found."""
    above_zero("--max-connections", args.max_connections)
    listen = [address("--listen", text) for text in args.listen]
    secure, upstream = server_of(args.upstream) if args.upstream is not None else (False, None)
    results = []
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("", "check", "found, and what to do"):
        table.add_column(title, overflow="fold")
    for result in examine(args, listen, upstream, secure=secure):
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


def examine(
    args: argparse.Namespace, listen: list[Address], upstream: Address | None, *, secure: bool
) -> Iterator[Result]:
    """Every check that the options allow, each result as soon as it is known."""
    from tools.doctor import files, network, running, system, tls  # noqa: PLC0415 - mitmproxy takes half a second

    yield from system.versions()
    yield from system.descriptors(args.max_connections)
    if listen:
        yield from system.privileges([one.port for one in listen], args.mode)
    if args.domain:
        yield from network.update_name(args.domain, upstream, args.mode)
    for one in listen:
        yield from network.port(one, args.health)
        if args.certs is not None or one.port % 1000 == 443:  # elsewhere phones speak HTTP, and upshim would do both
            yield from tls.served(one, args.domain)
    if args.certs is not None:
        yield from tls.certificate_file(args.certs, args.domain)
    if upstream is not None:
        yield from network.server(upstream, secure, listen)
        if secure:
            yield from tls.server(upstream, args.server_ca)
    rules = None
    if args.rules is not None:
        found, rules = files.rules(args.rules)
        yield from found
    if args.profile is not None:
        yield files.profile(args.profile)
    if isinstance(args.record, DatabaseUrl):
        yield from files.database(args.record, args.state)
    elif args.record is not None:
        yield from files.recording(args.record)
    if args.state is not None:
        yield from files.state(args.state)
    if args.admin_token is not None:
        yield from files.private(args.admin_token, "key")
    if args.admin is not None:
        yield from running.running(args.admin, args.admin_token, rules)
