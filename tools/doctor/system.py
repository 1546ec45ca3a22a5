"""What the process would run with: versions, descriptors, rights."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from cryptography import __version__ as cryptography
from mitmproxy.version import VERSION as MITMPROXY
from OpenSSL import SSL

from proxy_addons.limits import RESERVE
from tools.doctor.result import OK, PROBLEM, WARN, Result

CAP_NET_BIND_SERVICE = 10
STATUS = Path("/proc/self/status")
SETTINGS = Path("/proc/sys/net")
SYSCTL_FILE = "/etc/sysctl.d/90-upshim.conf"


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


def privileges(ports: list[int]) -> Iterator[Result]:
    """May this user listen on low ports?"""
    have = capabilities()
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    first_free = int(_setting("ipv4/ip_unprivileged_port_start") or 1024)
    low = [number for number in ports if 0 < number < first_free]
    if low and CAP_NET_BIND_SERVICE not in have:
        advice = "AmbientCapabilities=CAP_NET_BIND_SERVICE, as in `upshim deploy systemd`."
        yield Result("privileges", who, PROBLEM, f"may not listen on {', '.join(map(str, low))}", advice)
    else:
        yield Result("privileges", who, OK, "may listen where it is told to")


def routing(*, sixth: bool) -> Iterator[Result]:
    """Does the kernel route, IPv6 too where that is asked for, and keep to itself that there is a shorter way?"""
    # IPv4: a packet is forwarded if the interface it comes by says so; ip_forward is what sets them all.
    off = _interfaces("forwarding", "0")
    if "all" in off:
        yield _routing("ip_forward", PROBLEM, "is 0: without it this machine is no router", "net.ipv4.ip_forward = 1")
    elif off:
        line = f"net/ipv4/conf/{off[0]}/forwarding = 1"
        yield _routing("forwarding", WARN, f"is 0 at {', '.join(off)}: what comes in there is not routed", line)
    else:
        yield _routing("ip_forward", OK, "is 1")
    # A router tells a host of a shorter way if `all` or the interface says so.
    telling = _interfaces("send_redirects", "1")
    if telling:
        found = f"is 1 for {', '.join(telling)}: phones would be told the shorter way, past upshim"
        yield _routing("send_redirects", WARN, found, "net.ipv4.conf.*.send_redirects = 0")
    else:
        yield _routing("send_redirects", OK, "is 0 everywhere")
    # IPv6: `all` alone counts.
    forwarding = _setting("ipv6/conf/all/forwarding")
    if sixth and forwarding != "1":
        found = f"is {forwarding or 'not there'}: without it this machine is no router for IPv6"
        line = "net.ipv6.conf.all.forwarding = 1"
        also = " An interface that gets its address or route by router advertisements needs accept_ra = 2 then."
        yield _routing("ipv6 forwarding", PROBLEM, found, line, also)
    elif sixth:
        yield _routing("ipv6 forwarding", OK, "is 1")


def _routing(name: str, status: str, found: str, line: str = "", also: str = "") -> Result:
    advice = f"The line `{line}` in {SYSCTL_FILE}, and `sysctl --system`.{also}" if line else ""
    return Result("routing", name, status, found, advice)


def _interfaces(name: str, value: str) -> list[str]:
    """Where a setting of IPv4 interfaces has this value; `all`, and `default` for those to come, among them."""
    files = sorted((SETTINGS / "ipv4/conf").glob(f"*/{name}"))
    return [file.parent.name for file in files if file.parent.name != "lo" and _read(file) == value]


def _setting(name: str) -> str | None:
    return _read(SETTINGS / name)


def _read(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
