"""A phone, a router and a server in network namespaces of their own: real packets, and nobody else's network."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import cannot_run, require_tool

CLONE_NEWNET = 0x40000000
SUBNETS = {"phone": 1, "server": 2}  # each with the router at .1
PHONE, PHONE6 = "10.77.1.2", "fd77:1::2"
SERVERS = ("10.77.2.5", "10.77.2.6", "fd77:2::5")
ROUTER = "10.77.1.1"
_SETTING = re.compile(r"^#\s+(net\..* = \d)$", re.MULTILINE)

_libc = ctypes.CDLL(None, use_errno=True)


class Network:
    """phone - router - server."""

    def __init__(self) -> None:
        self._names = {name: f"upshim-{os.getpid()}-{name}" for name in ("phone", "router", "server")}

    @contextlib.contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Sockets opened and processes started by this thread within the block belong there."""
        with Path("/proc/thread-self/ns/net").open() as before, Path(f"/run/netns/{self._names[name]}").open() as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(before.fileno())

    def run(self, name: str, *words: str, text: str = "") -> str:
        """The output of a program there."""
        with self.inside(name):
            ended = subprocess.run(words, input=text, capture_output=True, text=True, timeout=30, check=False)
        assert ended.returncode == 0, f"{words}: {ended.stderr}"
        return ended.stdout

    def build(self) -> None:
        """Make the namespaces and their wires."""
        ip = require_tool("ip")
        for name in self._names:
            made = subprocess.run(
                [ip, "netns", "add", self._names[name]], capture_output=True, text=True, timeout=30, check=False
            )
            if made.returncode and name == "phone":
                cannot_run(f"network namespaces cannot be made here: {made.stderr.strip()}")
            self.run(name, ip, "link", "set", "lo", "up")
        for name, subnet in SUBNETS.items():
            self.run(
                "router", ip, "link", "add", name, "type", "veth", "peer", "name", "wire", "netns", self._names[name]
            )
            hosts = {"router": ("1",), name: ("2",) if name == "phone" else ("5", "6")}
            for where, ends in hosts.items():
                wire = name if where == "router" else "wire"
                for end in ends:
                    self.run(where, ip, "address", "add", f"10.77.{subnet}.{end}/24", "dev", wire)
                    self.run(where, ip, "address", "add", f"fd77:{subnet}::{end}/64", "dev", wire, "nodad")
                self.run(where, ip, "link", "set", wire, "up")
            self.run(name, ip, "route", "add", "default", "via", f"10.77.{subnet}.1")
            self.run(name, ip, "-6", "route", "add", "default", "via", f"fd77:{subnet}::1")

    def become_router(self, printed: str) -> None:
        """Do as the printed text of nftables says: its lines for sysctl, and the table."""
        settings = "".join(f"{setting}\n" for setting in _SETTING.findall(printed))
        self.run("router", require_tool("sysctl"), "-p", "-", text=settings)
        for _ in range(2):  # it may be loaded again
            self.run("router", require_tool("nft"), "-f", "-", text=printed)

    def remove(self) -> None:
        """Remove everything; the wires go with their namespaces."""
        for name in self._names.values():
            subprocess.run([require_tool("ip"), "netns", "delete", name], capture_output=True, timeout=30, check=False)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, CLONE_NEWNET):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """The three of them, for as long as the block lasts; skips where that cannot be had."""
    require_tool("ip")
    require_tool("nft")
    if os.geteuid():
        cannot_run("only root makes network namespaces")
    made = Network()
    try:
        made.build()
        yield made
    finally:
        made.remove()
