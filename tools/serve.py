"""An update server of its own: the documented rules, over update packages in the documented folders.

Examples:
  upshim serve --updates updates --synthetic 1.0.522.103 --synthetic 3.5.6907.222:60M
  upshim serve --updates updates --listen 0.0.0.0:80 --rules-of-server rules.toml --poll-scale 86400

Packages lie in DIR/{DeviceType}/{Vendor}/{Model}/{Revision}/{Locale}/{Version}/{UpdateType}/ with a .nbt and a .cat.
Without a rules file the highest version of every device found is approved. A rules file holds [[rule]] (brand, model,
approved, pending, ...), [[test_device]] (mac or serial) and [[field_story]] (reported, answer). URLs in answers name
the address by which the phone came, so a phone behind a proxy stays there. The audit log is below Logs of the updates.
The XML of its answers is upshim's own and says "synthetic": the real one is not public.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from dissectors.version import Version
from tools.errors import EXIT_OK, UnusableInput
from tools.options import above_zero, version_of
from tools.update_server.audit import AuditLogWriter
from tools.update_server.config import ServerRules, read_server_rules
from tools.update_server.field_story import CX700_STUCK
from tools.update_server.http import ServerEvent, UpdateServer
from tools.update_server.messages import NoOffer
from tools.update_server.packages import CX700, Package, find_packages, make_synthetic
from tools.update_server.rules import DeviceKey, RuleBook, approve_highest
from tools.update_server.service import Layout, UpdateService, UrlSettings

DEFAULT_LISTEN = "127.0.0.1:8088"
DEFAULT_SIZE = 1 << 20
MAX_SIZE = 1 << 30

_SYNTHETIC = re.compile(r"(?P<version>[\d.]+)(:(?P<size>\d{1,10})(?P<unit>[KMG]?))?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--updates", type=Path, required=True, metavar="DIR", help="the folder of update packages")
    parser.add_argument(
        "--synthetic",
        action="append",
        default=[],
        metavar="VERSION[:SIZE]",
        help="put a made-up package there first, e.g. 1.0.522.103 or 3.5.6907.222:60M (default size 1M)",
    )
    parser.add_argument(
        "--device",
        default="/".join(CX700),
        metavar="TYPE/VENDOR/MODEL/REVISION/LOCALE",
        help="the device of --synthetic packages (default %(default)s)",
    )
    parser.add_argument(
        "--listen", default=DEFAULT_LISTEN, metavar="HOST:PORT", help="default %(default)s; port 0: any"
    )
    parser.add_argument(
        "--rules-of-server", type=Path, metavar="FILE", help="rules, test devices, field stories (TOML)"
    )
    parser.add_argument("--approve", metavar="VERSION", help="approve this version, not the highest one found")
    parser.add_argument(
        "--field-story",
        action="store_true",
        help="as seen in the field: 1.0.522.73 is answered with nothing, the zero version with 1.0.522.103",
    )
    parser.add_argument("--layout", choices=[one.value for one in Layout], default="r2", help="folders in offered URLs")
    parser.add_argument("--internal-url", metavar="URL", help="base of offered URLs (default: as the phone came)")
    parser.add_argument("--external-url", metavar="URL", help="the same for phones outside")
    parser.add_argument("--no-urls", action="store_true", help="offers with blank URLs, as a server never set up sends")
    parser.add_argument(
        "--no-offer", choices=[one.value for one in NoOffer], default="absent", help="how 'nothing new' is written"
    )
    parser.add_argument("--deny-external", action="store_true", help="answer the external check with 401 and NTLM")
    parser.add_argument(
        "--logs", type=Path, metavar="DIR", help="where Logs/Server/Audit/... is made (default: updates)"
    )
    parser.add_argument("--name", default="POOL01", help="the server's name in the audit log (default %(default)s)")
    parser.add_argument(
        "--poll-scale", type=float, default=1.0, metavar="S", help="the clock runs S times faster (audit log flushes)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    address, port = listen_address(args.listen)
    packages = prepare_packages(args.updates, args.synthetic, args.device)
    rules = server_rules(args.rules_of_server, args.approve, packages)
    if args.field_story:
        rules = rules._replace(stories=(*rules.stories, *CX700_STUCK))
    if not packages and args.rules_of_server is None:
        layout = "{DeviceType}/{Vendor}/{Model}/{Revision}/{Locale}/{Version}/{UpdateType}/*.nbt"
        raise UnusableInput(f"{args.updates}: expected update packages ({layout}), found none; see --synthetic")
    urls = UrlSettings("" if args.no_urls else args.internal_url, "" if args.no_urls else args.external_url)
    service = UpdateService(args.updates, rules.book, rules.stories, replace(urls, layout=Layout(args.layout)))
    if not re.fullmatch(r"[\w.-]+", args.name):
        raise UnusableInput(f"--name: expected letters, digits, dots and dashes, found {args.name!r}")
    stop = threading.Event()
    try:
        server = UpdateServer(
            service,
            address=address,
            port=port,
            audit=AuditLogWriter(args.logs or args.updates, args.name),
            time_scale=above_zero("--poll-scale", args.poll_scale),
            no_offer=NoOffer(args.no_offer),
            deny_external=args.deny_external,
            on_event=printer(as_json=args.json, stop=stop),
        )
    except OSError as error:
        raise UnusableInput(f"audit log: {error}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.start()
    except OSError as error:
        raise UnusableInput(f"--listen {args.listen}: {error.strerror or error}") from error
    with contextlib.suppress(KeyboardInterrupt):
        approved = [f"{rule.key} {rule.approved_version}" for rule in service.rules.rules if rule.approved_version]
        text = f"{server.url}, {len(packages)} packages, approved: {', '.join(approved) or 'none'}"
        server.emit("listening", text, url=server.url, approved=approved, packages=len(packages))
        stop.wait()
    server.stop()
    return EXIT_OK


def listen_address(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT`. Raises `UnusableInput`."""
    match = re.fullmatch(r"(?:\[(?P<six>[0-9a-fA-F:.]+)\]|(?P<host>[^:\[\]]+)):(?P<port>\d{1,5})", text, re.ASCII)
    if match is None or int(match["port"]) > 65535:
        raise UnusableInput(f"--listen: expected HOST:PORT, found {text!r}")
    return match["six"] or match["host"], int(match["port"])


def prepare_packages(updates: Path, synthetic: list[str], device: str) -> list[Package]:
    """Make the synthetic packages asked for and list all there are. Raises `UnusableInput`."""
    key = DeviceKey(*device.split("/")) if device.count("/") == len(DeviceKey._fields) - 1 else None
    if key is None:
        raise UnusableInput(f"--device: expected TYPE/VENDOR/MODEL/REVISION/LOCALE, found {device!r}")
    if not synthetic and not updates.is_dir():
        raise UnusableInput(f"{updates}: expected a folder of update packages")
    try:
        for wanted in synthetic:
            version, size = synthetic_package(wanted)
            make_synthetic(updates, version, size, key)
        return find_packages(updates)
    except (OSError, ValueError) as error:
        raise UnusableInput(f"{updates}: {error}") from error


def synthetic_package(text: str) -> tuple[Version, int]:
    """Version and size in bytes of `3.5.6907.222:60M`. Raises `UnusableInput`."""
    match = _SYNTHETIC.fullmatch(text)
    size = int(match["size"]) * _UNITS[match["unit"].upper()] if match and match["size"] else DEFAULT_SIZE
    if match is None or size > MAX_SIZE:
        raise UnusableInput(f"--synthetic: expected VERSION or VERSION:SIZE up to 1G, found {text!r}")
    return version_of("--synthetic", match["version"]), size


def server_rules(file: Path | None, approve: str | None, packages: list[Package]) -> ServerRules:
    """The rules of a file, or those that follow from the packages. Raises `UnusableInput`."""
    if file is not None:
        if approve is not None:
            raise UnusableInput("--approve and --rules-of-server: expected one of them")
        try:
            return read_server_rules(file.read_text(encoding="utf-8-sig"))
        except (OSError, ValueError) as error:
            raise UnusableInput(f"{file}: {error}") from error
    found = [(package.key, package.update_type, package.version) for package in packages]
    if approve is not None:
        version = version_of("--approve", approve)
        found = [one for one in found if one[2] == version]
        if not found:
            there = ", ".join(sorted({str(package.version) for package in packages})) or "none"
            raise UnusableInput(f"--approve: expected one of the versions there ({there}), found {version}")
    return ServerRules(RuleBook(approve_highest(found)), ())


def printer(*, as_json: bool, stop: threading.Event) -> Callable[[ServerEvent], None]:
    """Shows events on stdout, a line each; a reader that has gone ends the server."""
    console = Console(highlight=False, soft_wrap=True)

    def show(event: ServerEvent) -> None:
        try:
            if as_json:
                print(json.dumps(event.to_json()), flush=True)
            else:
                console.print(f"{event.time.astimezone():%H:%M:%S} {event.kind:9} {event.text}", markup=False)
        except BrokenPipeError:
            stop.set()

    return show
