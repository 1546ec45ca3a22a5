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
from functools import lru_cache
from typing import TYPE_CHECKING

from proxy_addons.toml_table import Network

if TYPE_CHECKING:
    from proxy_addons.phone import Phone
    from proxy_addons.rules import Rule, UpgradePath

MAX_REMEMBERED = 200  # characters of what a phone says it is

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Numbers = list[int]  # of rules, rising
Identity = tuple[str, ...]


@dataclass(slots=True)
class _Shelf:
    """The rules for one identity, by number."""

    macs: dict[str, Numbers] = field(default_factory=dict)
    serials: dict[str, Numbers] = field(default_factory=dict)
    subnets: dict[tuple[int, int], dict[int, Numbers]] = field(default_factory=dict)  # version, prefix -> network
    others: Numbers = field(default_factory=list)

    def put(self, number: int, rule: Rule) -> None:
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


class RuleIndex:
    """The rules of a file, found by phone."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = rules
        self._shelves: dict[Identity | None, _Shelf] = {}
        for number, rule in enumerate(rules):
            identity = identity_of_path(rule.path) if rule.path is not None else None
            self._shelves.setdefault(identity, _Shelf()).put(number, rule)

    def candidates(self, phone: Phone) -> Iterator[Rule]:
        """Every rule that matches and few others, in the order of the file."""
        shelves = (self._shelves.get(key) for key in (identity_of_phone(phone), None))
        found = [numbers for shelf in shelves if shelf for numbers in shelf.take(phone) if numbers]
        last = -1
        for number in heapq.merge(*found) if len(found) > 1 else found[0] if found else ():
            if number != last:
                last = number
                yield self._rules[number]


def identity_of_path(path: UpgradePath) -> Identity:
    """What a path is for, in the form identities are compared in."""
    return _identity(path.device_type, path.vendor, path.model, path.revision, path.locale)


def identity_of_phone(phone: Phone) -> Identity:
    """What a phone is; what it does not tell is blank, as no path is."""
    told = (phone.device_type, phone.vendor, phone.model, phone.revision, phone.locale)
    return _of_many(*told) if sum(len(part or "") for part in told) > MAX_REMEMBERED else _identity(*told)


def _of_many(*told: str | None) -> Identity:
    return tuple(folded(part or "") for part in told)


_identity = lru_cache(1024)(_of_many)  # thousands of phones are of a few kinds


def folded(text: str) -> str:
    """Without the differences that do not count: letter case and surrounding white space."""
    return text.strip().casefold()


def address_of(text: str | None) -> Address | None:
    """An address as subnets are compared with it; None for what is none."""
    try:
        # A zone, as in fe80::1%eth0, is no part of what a subnet is compared with.
        found = ipaddress.ip_address((text or "").partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found  # IPv4 phones of a socket that listens for both
