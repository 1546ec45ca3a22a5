"""An emulated phone: polls an update server, takes what it is offered, reboots and reports.

Examples:
  upshim phone --server http://127.0.0.1:8080 --version 1.0.522.73 --polls 3
  upshim phone --server http://ucupdates-r2.example.com --version 0.0.0.0 --until 3.5.6907.222 --poll-scale 86400

It behaves as documented, and as 1.0.522.73 did in the field (signs in, crashes, reboots, for ever). Images are hashed
and checked against their catalog, not kept. It polls every 24 hours; --poll-scale 86400 makes that a second. The XML it
sends is upshim's own and says "synthetic": the real one is not public. Exit 0: the last check went well (and --until
was reached); 1: it did not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import ssl
import threading
from pathlib import Path

from rich.console import Console

from proxy_addons.upstream_tls import verifying
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput
from tools.options import above_zero, version_of
from tools.ucphone.events import Kind, PhoneEvent
from tools.ucphone.identity import Pace, PhoneIdentity, PhoneOptions
from tools.ucphone.phone import Phone
from tools.ucphone.runner import PhoneRunner
from tools.ucphone.transport import TIMEOUT, HttpTransport

_STYLES = {
    Kind.CRASH: "red",
    Kind.FAILED: "red",
    Kind.REFUSED: "red",
    Kind.OFFER: "green",
    Kind.INSTALLED: "bold green",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    usual = PhoneIdentity()
    parser.add_argument("--server", required=True, metavar="URL", help="the update server or the proxy in front of it")
    parser.add_argument("--version", required=True, help="what it runs at first; 0.0.0.0 is nothing installed")
    parser.add_argument("--mac", default=usual.mac, help="default %(default)s; may be blank")
    parser.add_argument("--serial", default=usual.serial, help="default %(default)s; may be blank")
    parser.add_argument("--device-type", default=usual.device_type, help="default %(default)s")
    parser.add_argument("--vendor", default=usual.vendor, help="default %(default)s")
    parser.add_argument("--model", default=usual.model, help="default %(default)s")
    parser.add_argument("--revision", default=usual.revision, help="default %(default)s")
    parser.add_argument("--locale", default=usual.locale, help="default %(default)s")
    parser.add_argument("--user", default="", help="the account signed in last, domain\\user")
    parser.add_argument("--domain", default="example.com", help="the DNS domain DHCP gives it (default %(default)s)")
    parser.add_argument("--external", action="store_true", help="a phone outside of the firewall")
    parser.add_argument("--only-newer", action="store_true", help="ignore offers of an older version")
    parser.add_argument("--polls", type=int, metavar="N", help="end after N checks (default: never)")
    parser.add_argument("--until", metavar="VERSION", help="end once this version has been reported")
    parser.add_argument("--poll-scale", type=float, default=1.0, metavar="S", help="its clock runs S times faster")
    parser.add_argument(
        "--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="for each network step (default %(default)s)"
    )
    parser.add_argument("--ca", type=Path, metavar="FILE", help="root certificates (PEM) to trust for https")
    parser.add_argument("--insecure", action="store_true", help="do not verify https certificates")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Let the phone live."""
    until = None if args.until is None else version_of("--until", args.until)
    if args.polls is not None and args.polls < 1:
        raise UnusableInput(f"--polls: expected 1 or more, found {args.polls}")
    stop = threading.Event()
    reached = threading.Event()
    show = show_json if args.json else Shown()

    def on_event(event: PhoneEvent) -> None:
        show(event)
        if event.kind in (Kind.NO_UPDATE, Kind.OFFER) and until is not None and event.data["version"] == str(until):
            reached.set()
            stop.set()

    try:
        phone = Phone(
            args.server,
            version_of("--version", args.version),
            PhoneIdentity(
                args.mac,
                args.serial,
                args.device_type,
                args.vendor,
                args.model,
                args.revision,
                args.locale,
                args.user,
            ),
            pace=Pace(scale=above_zero("--poll-scale", args.poll_scale)),
            options=PhoneOptions(args.polls, args.only_newer, args.external, args.domain),
            on_event=on_event,
        )
    except ValueError as error:
        raise UnusableInput(f"--server: {error}") from error
    transport = HttpTransport(above_zero("--timeout", args.timeout), tls_context(args.ca, insecure=args.insecure))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        PhoneRunner(phone, transport).run(stop)
    good = phone.status.ok if until is None else reached.is_set()
    return EXIT_OK if good else EXIT_PROBLEM


def tls_context(ca: Path | None, *, insecure: bool) -> ssl.SSLContext:
    """How https servers are verified: by these roots, or the system's. Raises `UnusableInput`."""
    try:
        context = verifying(None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise UnusableInput(f"--ca: {ca}: {error}") from error
    context.hostname_checks_common_name = True  # as a phone does
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def show_json(event: PhoneEvent) -> None:
    """One JSON object per line."""
    print(json.dumps(event.to_json()), flush=True)


class Shown:
    """Shows events to people, one line each."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)

    def __call__(self, event: PhoneEvent) -> None:
        """Print one."""
        line = f"{event.time.astimezone():%H:%M:%S} {event.kind:10} {event.text}"
        self._console.print(line, style=_STYLES.get(event.kind), markup=False)
