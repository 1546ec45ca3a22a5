"""What the process would run with: versions, descriptors, rights."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from cryptography import __version__ as cryptography
from mitmproxy.version import VERSION as MITMPROXY
from OpenSSL import SSL

from proxy_addons.limits import RESERVE
from tools.doctor.result import OK, PROBLEM, WARN, Result

CAP_NET_BIND_SERVICE, CAP_NET_ADMIN = 10, 12
STATUS = Path("/proc/self/status")
SETTINGS = Path("/proc/sys/net/ipv4")


def versions() -> Iterator[Result]:
    """Do Python, mitmproxy and OpenSSL fit together?"""
    library = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode().removeprefix("OpenSSL ").split(" ")[0]
    said = f"Python {platform.python_version()}, mitmproxy {MITMPROXY}, OpenSSL {library}"
    if MITMPROXY.split(".")[0] not in {"11", "12"}:
        yield Result("versions", "", WARN, said, "upshim is tested with mitmproxy 11.0.2 and 12.2.")
    elif MITMPROXY.startswith("12.") and int(cryptography.split(".")[0]) >= 47:
        advice = "pip install 'cryptography<47': mitmproxy 12.2 dies as soon as a TLS version is set."
        yield Result("versions", "", PROBLEM, f"{said}, cryptography {cryptography}", advice)
    else:
        yield Result("versions", "", OK, said)


def descriptors(connections: int) -> Iterator[Result]:
    """Are there descriptors for so many phones?"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + RESERVE
    highest = max(soft, hard) if resource.RLIM_INFINITY not in {soft, hard} else None
    if highest is not None and highest < wanted:
        advice = f"LimitNOFILE={wanted} in the unit, or ulimit -n {wanted}; upshim takes fewer connections until then."
        yield Result("descriptors", "", WARN, f"{highest}; {connections} connections want {wanted}", advice)
    else:
        yield Result(
            "descriptors", "", OK, f"{'no limit' if highest is None else highest}: enough for {connections} connections"
        )


def capabilities() -> set[int]:
    """The effective ones of this process."""
    for line in STATUS.read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return {bit for bit in range(64) if bits >> bit & 1}
    return set()


def privileges(ports: list[int], mode: str) -> Iterator[Result]:
    """May this user listen on low ports, and redirect traffic where that is wanted?"""
    have = capabilities()
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    first_free = int(_setting("ip_unprivileged_port_start") or 1024)
    low = [number for number in ports if 0 < number < first_free]
    if low and CAP_NET_BIND_SERVICE not in have:
        advice = "AmbientCapabilities=CAP_NET_BIND_SERVICE, as in `upshim deploy systemd`."
        yield Result("privileges", who, PROBLEM, f"may not listen on {', '.join(map(str, low))}", advice)
    else:
        yield Result("privileges", who, OK, "may listen where it is told to")
    if mode != "transparent":
        return
    if CAP_NET_ADMIN not in have:
        advice = "Load the table of `upshim deploy nftables` as root; upshim itself needs no right for it."
        yield Result("privileges", who, WARN, "may not change nftables", advice)
    if shutil.which("nft", path="/usr/sbin:/sbin:" + os.environ.get("PATH", "")) is None:
        yield Result("nftables", "nft", PROBLEM, "is not installed", "apt install nftables")
    for name, wanted, why in (
        ("ip_forward", "1", "without it this machine is no router"),
        ("conf/all/send_redirects", "0", "phones would be told the shorter way"),
    ):
        found = _setting(name)
        if found is not None and found != wanted:
            advice = f"sysctl -w net.ipv4.{name.replace('/', '.')}={wanted}"
            yield Result("routing", name, PROBLEM if name == "ip_forward" else WARN, f"is {found}: {why}", advice)
        elif found is not None:
            yield Result("routing", name, OK, f"is {found}")


def _setting(name: str) -> str | None:
    try:
        return (SETTINGS / name).read_text().strip()
    except OSError:
        return None
