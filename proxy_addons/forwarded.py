"""The phone's address where a load balancer stands in front: X-Forwarded-For, believed of named fronts only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from captures.exchange import Headers

MAX_HOPS = 10  # fronts behind one another


@dataclass(frozen=True, slots=True)
class Fronts:
    """The networks whose word about a phone's address is taken."""

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Fronts:
        """From addresses or networks. Raises `ValueError` with one line."""
        networks = []
        for text in texts:
            try:
                networks.append(ip_network(text.strip().strip("[]"), strict=False))
            except ValueError:
                raise ValueError(f"expected an address or a network such as 10.0.0.0/28, found {text!r}") from None
        return cls(tuple(networks))

    def trusts(self, address: str) -> bool:
        """Whether this peer is one of the fronts."""
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def client(self, peer: str, headers: Headers) -> str:
        """The phone's address for a request that came from `peer`.

        The last address that no front of ours has added itself to is the phone's; what stands before it is what the
        phone says, which nobody believes. Without a front, or where it does not tell, the peer is the phone.
        """
        if not self.networks or not self.trusts(peer):
            return peer
        told = ",".join(value for name, value in headers if len(name) == 15 and name.lower() == "x-forwarded-for")
        for hop in reversed(told.rsplit(",", MAX_HOPS)[-MAX_HOPS:]):
            parsed = _parsed(hop.strip(" \t"))
            if parsed is None:
                break
            peer = str(parsed)
            if not any(parsed in network for network in self.networks):
                break
        return peer


@lru_cache(maxsize=1024)
def _of(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return parsed.ipv4_mapped or parsed if isinstance(parsed, IPv6Address) else parsed


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    return _of(text) if len(text) <= 64 else None
