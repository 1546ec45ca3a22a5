"""The table of `upshim deploy nftables`: is it loaded, and does it lead where upshim listens?"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress

from proxy_addons.listeners import normal
from tools.deploy import Address
from tools.doctor import reach
from tools.doctor.result import OK, PROBLEM, WARN, Result

TABLE = ("inet", "upshim")
PATH = "/usr/sbin:/sbin:" + os.environ.get("PATH", "")
PRINT = "`upshim deploy nftables` prints it, `nft -f FILE` loads it; the systemd unit does when upshim is up."
_REDIRECT = re.compile(r"^\s*ip6? daddr (\S+) tcp dport (\d+) .*redirect to :(\d+)$", re.MULTILINE)


def table(upstreams: Sequence[Address], listen: Sequence[Address]) -> Iterator[Result]:
    """What of the phones' traffic is redirected, as far as this user may know."""
    subject = " ".join(TABLE)
    program = shutil.which("nft", path=PATH)
    if program is None:
        yield Result("nftables", "nft", PROBLEM, "is not installed", "apt install nftables")
        return
    words = [program, "--numeric", "list", "table", *TABLE]
    try:
        ended = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=reach.WITHIN, check=False
        )
        complaint = (ended.stderr.splitlines() or ["no word of why"])[0].removeprefix("Error: ")
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Result(
            "nftables", subject, WARN, f"cannot be looked at: {error}", "Look as root: nft list table inet upshim"
        )
        return
    if "No such file or directory" in complaint:
        yield Result("nftables", subject, WARN, "is not loaded: phones go straight to the server", PRINT)
        return
    if ended.returncode:
        yield Result(
            "nftables", subject, WARN, f"cannot be looked at: {complaint}", "Run upshim doctor as root for it."
        )
        return
    yield from redirects(ended.stdout, upstreams, listen)


def redirects(text: str, upstreams: Sequence[Address], listen: Sequence[Address]) -> Iterator[Result]:
    """What a loaded table does, as nft prints it."""
    subject = " ".join(TABLE)
    found = {(normal(host), int(port)): int(to) for host, port, to in _REDIRECT.findall(text)}
    if not found:
        yield Result("nftables", subject, WARN, "redirects nothing: phones go straight to the server", PRINT)
        return
    missing = [one for one in upstreams if (normal(one.host), one.port) not in found]
    for one in missing:
        advice = f"Print and load it with every --upstream. {PRINT}"
        yield Result("nftables", subject, PROBLEM, f"does not redirect what goes to {one}", advice)
    elsewhere = sorted(set(found.values()) - {one.port for one in listen}) if listen else []
    silent = sorted(to for to in set(found.values()) if not _somebody_at(to))
    for to in elsewhere:
        advice = "`upshim deploy nftables --shim HOST:PORT` takes the port."
        yield Result("nftables", subject, PROBLEM, f"redirects to port {to}, which no --listen names", advice)
    for to in silent:
        advice = "Start upshim, or `nft flush chain inet upshim prerouting` until it is there."
        yield Result(
            "nftables", subject, PROBLEM, f"redirects to port {to}, where nobody listens: phones are refused", advice
        )
    if not (missing or elsewhere or silent):
        yield Result("nftables", subject, OK, f"redirects {', '.join(str(Address(*place)) for place in found)}")


def _somebody_at(port: int) -> bool:
    for host in ("127.0.0.1", "::1"):
        with suppress(OSError), socket.create_connection((host, port), reach.WITHIN):
            return True
    return False
