"""The redirect of a router: as nft prints it, and in a network of its own, what the kernel makes of what is printed."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import ROOT, require_tool
from tests.namespaces import ROUTER, SERVERS, Network, network
from tools.deploy import Address
from tools.doctor import redirect
from tools.doctor.result import OK, PROBLEM, WARN

HERE = "127.0.0.1"
REDIRECT, ECHO_REPLY, NEIGHBOUR = {False: 5, True: 137}, {False: 0, True: 129}, 136
FIRST, _, SIXTH = SERVERS
UPSTREAMS = [f"http://{FIRST}", f"http://[{SIXTH}]"]


def listing(*rules: str) -> str:
    lines = "".join(f"\t\t{rule}\n" for rule in rules)
    return f"table inet upshim {{\n\tchain prerouting {{\n\t\ttype nat hook prerouting;\n{lines}\t}}\n}}\n"


def states(text: str, upstreams: list[Address], listen: list[Address]) -> list[tuple[str, str]]:
    return [(result.status, result.found) for result in redirect.redirects(text, upstreams, listen)]


def test_what_a_table_does() -> None:
    server, sixth = Address("10.0.0.5", 80), Address("fd00::5", 443)
    with socket.create_server((HERE, 0)) as listener:
        port = listener.getsockname()[1]
        text = listing(
            f"ip daddr 10.0.0.5 tcp dport 80 redirect to :{port}",
            f"ip6 daddr fd00::5 tcp dport 443 redirect to :{port}",
        )
        assert states(text, [server, sixth], [Address("*", port)]) == [
            (OK, "redirects 10.0.0.5:80, [fd00::5]:443"),
        ]
        assert states(text, [server, Address("10.0.0.6", 80)], []) == [
            (PROBLEM, "does not redirect what goes to 10.0.0.6:80"),
        ]
        assert states(text, [Address("fd00:0::5", 443)], [Address("*", 1)]) == [
            (PROBLEM, f"redirects to port {port}, which no --listen names"),
        ]
    assert states(text, [server], []) == [
        (PROBLEM, f"redirects to port {port}, where nobody listens: phones are refused"),
    ]
    assert states(listing(), [server], []) == [(WARN, "redirects nothing: phones go straight to the server")]


@pytest.mark.parametrize(
    ("script", "status", "found"),
    [
        (
            "echo 'Error: No such file or directory' >&2; exit 1",
            WARN,
            "is not loaded: phones go straight to the server",
        ),
        (
            "echo 'Operation not permitted (you must be root)' >&2; exit 1",
            WARN,
            "cannot be looked at: Operation not permitted (you must be root)",
        ),
        ("exit 1", WARN, "cannot be looked at: no word of why"),
    ],
)
def test_what_nft_says(script: str, status: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nft"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr(redirect, "PATH", str(tmp_path))
    assert [(result.status, result.found) for result in redirect.table([], [])] == [(status, found)]
    program.unlink()
    assert [(result.status, result.found) for result in redirect.table([], [])] == [(PROBLEM, "is not installed")]


class Shortcut:
    """A phone, whose way to an address leads through the router and by the same wire to another one."""

    def __init__(self, net: Network) -> None:
        self.net = net
        self.set(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)
        ip = require_tool("ip")
        net.run("phone", ip, "route", "add", "10.88.0.5", "via", ROUTER)
        net.run("phone", ip, "-6", "route", "add", "fd88::5", "via", "fd77:1::1")
        net.run("router", ip, "route", "add", "10.88.0.5", "via", "10.77.1.3")
        net.run("router", ip, "-6", "route", "add", "fd88::5", "via", "fe80::3", "dev", "phone")
        for other in ("10.77.1.3", "fe80::3"):
            net.run("router", ip, "neighbour", "add", other, "lladdr", "02:00:00:00:00:09", "dev", "phone")
        while net.run("router", ip, "-6", "address", "show", "tentative"):  # the router's own link-local one
            pass

    def told(self, *, sixth: bool = False) -> bool:
        """Whether the router tells the phone of the other, before it answers what the phone asks next."""
        family, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if sixth else (socket.AF_INET, socket.IPPROTO_ICMP)
        with ExitStack() as stack:
            with self.net.inside("phone"):
                raw = stack.enter_context(socket.socket(family, socket.SOCK_RAW, protocol))
                plain = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
            raw.settimeout(20)
            plain.sendto(b"x", ("fd88::5" if sixth else "10.88.0.5", 9))
            # The checksum of IPv6 is the kernel's business.
            echo = struct.pack("!BBHHH", 128, 0, 0, 1, 1) if sixth else struct.pack("!BBHHH", 8, 0, 0xF7FD, 1, 1)
            raw.sendto(echo, ("fd77:1::1" if sixth else ROUTER, 0))
            seen = []
            while ECHO_REPLY[sixth] not in seen:
                packet = raw.recv(2000)
                seen.append(packet[0] if sixth else packet[20])
        assert set(seen) <= {ECHO_REPLY[sixth], REDIRECT[sixth], NEIGHBOUR}
        return REDIRECT[sixth] in seen

    def set(self, **settings: int) -> None:
        """Settings of the router; `__` stands for a slash."""
        for name, value in settings.items():
            self.net.run("router", "sh", "-c", f"echo {value} > /proc/sys/net/{name.replace('__', '/')}")


@pytest.fixture
def shortcut() -> Iterator[Shortcut]:
    """The kernel tells a phone once and then not for a while: a network of its own for every case."""
    with network() as net:
        yield Shortcut(net)


@pytest.fixture(scope="module")
def printed() -> str:
    """The very text."""
    words = [sys.executable, "-m", "tools", "deploy", "nftables", "--shim", f"{HERE}:8080"]
    for one in UPSTREAMS:
        words += ["--upstream", one]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.mark.parametrize(("everywhere", "there", "told"), [(0, 0, False), (0, 1, True), (1, 0, True)])
def test_one_setting_is_enough_to_tell_phones(everywhere: int, there: int, told: bool, shortcut: Shortcut) -> None:
    shortcut.set(ipv4__conf__all__send_redirects=everywhere, ipv4__conf__phone__send_redirects=there)
    assert shortcut.told() is told


def test_ipv4_is_routed_where_it_comes_in(shortcut: Shortcut) -> None:
    shortcut.set(ipv4__conf__phone__forwarding=0)
    assert not shortcut.told()  # it is not even routed
    shortcut.set(ipv4__conf__all__forwarding=0, ipv4__conf__phone__forwarding=1)
    assert shortcut.told()


def test_ipv6_is_routed_everywhere_or_nowhere(shortcut: Shortcut) -> None:
    shortcut.set(ipv6__conf__all__forwarding=0, ipv6__conf__phone__forwarding=1)
    assert not shortcut.told(sixth=True)
    shortcut.set(ipv6__conf__all__forwarding=1, ipv6__conf__phone__forwarding=0)
    assert shortcut.told(sixth=True)


@pytest.mark.parametrize("sixth", [False, True])
def test_with_what_is_printed_phones_are_told_nothing(sixth: bool, printed: str, shortcut: Shortcut) -> None:
    shortcut.net.become_router(printed)
    assert not shortcut.told(sixth=sixth)


def test_what_doctor_says_of_a_router(printed: str, tmp_path: Path) -> None:
    def doctor(*upstreams: str, root: bool = True) -> dict[str, tuple[str, str]]:
        words = [sys.executable, "-m", "tools", "doctor", "--json", "--mode", "transparent"]
        for listen in ("0.0.0.0:8080", "[::]:8080"):
            words += ["--listen", listen]
        for one in upstreams:
            words += ["--upstream", one]
        if not root:
            words = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", *words]
        with net.inside("router"):
            ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        assert lines, ended.stderr
        return {
            line["subject"] if line["check"] == "routing" else line["check"]: (line["status"], line["found"])
            for line in lines
            if line["check"] in {"routing", "nftables"}
        }

    with network() as net:
        found = doctor(*UPSTREAMS)
        assert found["ip_forward"] == (PROBLEM, "is 0: without it this machine is no router")
        assert found["ipv6 forwarding"] == (PROBLEM, "is 0: without it this machine is no router for IPv6")
        told = "is 1 for all, default, phone, server: phones would be told the shorter way, past upshim"
        assert found["send_redirects"] == (WARN, told)
        assert found["nftables"] == (WARN, "is not loaded: phones go straight to the server")
        assert "ipv6 forwarding" not in doctor(UPSTREAMS[0])
        assert doctor()["ipv6 forwarding"][0] == PROBLEM
        net.become_router(printed)
        with net.inside("router"):
            listener = socket.create_server((HERE, 8080))
        with listener:
            found = doctor(*UPSTREAMS)
        assert {status for status, _ in found.values()} == {OK}
        assert found["nftables"] == (OK, f"redirects {FIRST}:80, [{SIXTH}]:80")
        refused = "redirects to port 8080, where nobody listens: phones are refused"
        assert doctor(*UPSTREAMS)["nftables"] == (PROBLEM, refused)
        unknown = doctor(*UPSTREAMS, root=False)["nftables"]
        assert (unknown[0], unknown[1].partition(":")[0]) == (WARN, "cannot be looked at")
