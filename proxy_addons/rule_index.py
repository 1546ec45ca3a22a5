"""Which rules may match a phone, found without looking at the others.

Rules are kept by the identity of their path, and among those of one identity by the strongest list they have: MAC
addresses, serial numbers, or subnets. What comes out is a superset in the order of the file; whether a rule matches is
for the policy to say.
"""

from __future__ import annotations

import heapq
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from proxy_addons.phone import Identity, Phone, UpgradePath, folded, identity_of_path, identity_of_phone
from proxy_addons.toml_table import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Numbers = list[int]  # of rules, rising


class Conditions(Protocol):
    """What of a rule tells whose it may be."""

    @property
    def path(self) -> UpgradePath | None:
        """None: of every kind of phone."""

    @property
    def macs(self) -> frozenset[str] | None:
        """The phones of these addresses; None: of all."""

    @property
    def serials(self) -> frozenset[str] | None:
        """The phones of these serial numbers; None: of all."""

    @property
    def subnets(self) -> tuple[Network, ...] | None:
        """The phones there; None: everywhere."""


R = TypeVar("R", bound=Conditions)


@dataclass(slots=True)
class _Shelf:
    """The rules for one identity, by number."""

    macs: dict[str, Numbers] = field(default_factory=dict)
    serials: dict[str, Numbers] = field(default_factory=dict)
    subnets: dict[tuple[int, int], dict[int, Numbers]] = field(default_factory=dict)  # version, prefix -> network
    others: Numbers = field(default_factory=list)

    def put(self, number: int, rule: Conditions) -> None:
        if rule.macs is not None:
            for mac in rule.macs:
                self.macs.setdefault(mac, []).append(number)
        elif rule.serials is not None:
            for serial in rule.serials:
                self.serials.setdefault(serial, []).append(number)
        elif rule.subnets is not None:
            for subnet in rule.subnets:
                self._put_subnet(number, subnet)
        else:
            self.others.append(number)

    def _put_subnet(self, number: int, subnet: Network) -> None:
        networks = self.subnets.setdefault((subnet.version, subnet.prefixlen), {})
        networks.setdefault(int(subnet.network_address), []).append(number)

    def take(self, phone: Phone) -> Iterator[Numbers]:
        yield self.others
        if self.macs and phone.mac is not None:
            yield self.macs.get(phone.mac, [])
        if self.serials and phone.serial is not None:
            yield self.serials.get(folded(phone.serial), [])
        address = address_of(phone.address) if self.subnets else None
        if address is not None:
            for (version, prefix), networks in self.subnets.items():
                if version == address.version:
                    below = address.max_prefixlen - prefix
                    yield networks.get(int(address) >> below << below, [])


class RuleIndex(Generic[R]):
    """The rules of a file, found by phone."""

    def __init__(self, rules: Sequence[R]) -> None:
        self._rules = rules
        self._shelves: dict[Identity | None, _Shelf] = {}
        for number, rule in enumerate(rules):
            identity = identity_of_path(rule.path) if rule.path is not None else None
            self._shelves.setdefault(identity, _Shelf()).put(number, rule)

    def candidates(self, phone: Phone) -> Iterator[R]:
        """Every rule that matches and few others, in the order of the file."""
        shelves = (self._shelves.get(key) for key in (identity_of_phone(phone), None))
        found = [numbers for shelf in shelves if shelf for numbers in shelf.take(phone) if numbers]
        last = -1
        for number in heapq.merge(*found) if len(found) > 1 else found[0] if found else ():
            if number != last:
                last = number
                yield self._rules[number]


def address_of(text: str | None) -> Address | None:
    """An address as subnets are compared with it; None for what is none."""
    try:
        # A zone, as in fe80::1%eth0, is no part of what a subnet is compared with.
        found = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found  # IPv4 phones of a socket that listens for both
