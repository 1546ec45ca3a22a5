"""Which servers may be connected to: upshim is not an open proxy.

In transparent mode the address a phone was going to is the server, so servers given by name are looked up at start;
with none given it is any address but this machine's own.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

from mitmproxy.proxy import mode_specs

from proxy_addons.upstream_url import parse_upstream


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The servers by host and port. None means any: transparent mode goes where the phone was going."""

    allowed: frozenset[tuple[str, int]] | None = frozenset()

    @classmethod
    def of(cls, modes: Iterable[str], extra: Iterable[str]) -> Upstreams:
        """From mitmproxy's `mode` and the `upshim_upstream` option. Raises `ValueError` with one line."""
        allowed = {parse_upstream(text) for text in extra}
        for text in modes:
            mode = mode_specs.ProxyMode.parse(text)
            if isinstance(mode, mode_specs.ReverseMode | mode_specs.UpstreamMode):
                host, port = mode.address[:2]
                allowed.add((host.lower(), port))
            elif isinstance(mode, mode_specs.TransparentMode):
                if not allowed:
                    return cls(None)
                allowed |= {place for host, port in allowed for place in addresses_of(host, port)}
            elif not allowed:
                raise ValueError(f"mode {text!r} is an open proxy: expected upshim_upstream=host:port beside it")
        return cls(frozenset(allowed))

    def allow(self, host: str, port: int) -> bool:
        """Whether this server may be connected to."""
        if self.allowed is not None:
            return (host.lower(), port) in self.allowed
        return not is_ours(host)


def addresses_of(host: str, port: int) -> set[tuple[str, int]]:
    """The addresses of a name. Raises `ValueError` where there are none."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ValueError(f"{host}: {error.strerror}") from error
    return {(str(address[0]).lower(), port) for *_, address in found}


def is_ours(host: str) -> bool:
    """Whether this is an address of this machine, or none that a server has: connecting there may go round in circles.

    A port redirected for everyone brings what was meant for this machine, which other than by us may not be reached.
    """
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return True
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.bind((host, 0))  # the kernel lets us have none but our own
        return True
    return False


def origins_of(modes: Iterable[str]) -> list[tuple[str, str, int]]:
    """Scheme, host and port of the servers that are known before a phone comes: those of reverse mode."""
    parsed = [mode_specs.ProxyMode.parse(text) for text in modes]
    reverse = [mode for mode in parsed if isinstance(mode, mode_specs.ReverseMode) and mode.scheme in {"http", "https"}]
    return [(mode.scheme, mode.address[0].lower(), mode.address[1]) for mode in reverse]
