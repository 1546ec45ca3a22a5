"""Who is in the fleet: models, locales, versions, and what goes wrong with whom. The same seed, the same fleet.

Three device families have rules: CX700 is reported as running nothing, CX500 is made an offer, and the first waypoint
of IP8540 is a bad image. Everybody else must never be touched.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Iterator
from dataclasses import dataclass

from dissectors.version import Version
from tools.ucphone.identity import PhoneIdentity

STUCK, OLDER = Version(1, 0, 522, 73), Version(1, 0, 199, 123)
INTERIM, LAST = Version(1, 0, 522, 103), Version(3, 5, 6907, 222)


class Behaviour(enum.Enum):
    """What a phone does with an update."""

    GOOD = "good"
    CUT = "cut"  # its connection breaks in downloads, it goes on from there
    POWER_LOSS = "power loss"  # it restarts in downloads, all is lost
    KEEPS_OLD = "keeps old"  # downloads, never installs, says nothing of it
    FAILS = "fails"  # tells an error as last update status instead of installing
    BRICKED = "bricked"  # installs a bad image and is never heard of again


@dataclass(frozen=True, slots=True)
class Member:
    """One phone of the fleet: `family` names the rule it is eligible for, blank for none."""

    identity: PhoneIdentity
    version: Version
    address: str
    behaviour: Behaviour
    family: str
    crash_loop: bool = False
    kind: str = ""

    @property
    def ends_on(self) -> Version | None:
        """What it must run in the end; None where that depends on when it was stopped."""
        if self.family == "ip8540":
            return None
        able = self.behaviour in {Behaviour.GOOD, Behaviour.CUT, Behaviour.POWER_LOSS}
        if self.family:
            return LAST if able else self.version
        return LAST if self.kind == "interim" else self.version


# Share in per cent, what it is, the rule it is eligible for, and what its identity says (else a CX700's).
KINDS: tuple[tuple[int, str, str, dict[str, str]], ...] = (
    (40, "cx700", "cx700", {}),
    (15, "cx500", "cx500", {"model": "CX500"}),
    (10, "ip8540", "ip8540", {"vendor": "LG-Nortel", "model": "IP8540"}),
    (5, "other revision", "", {"revision": "B"}),
    (5, "other locale", "", {"locale": "DEU"}),
    (7, "other model", "", {"model": "CX600"}),
    (4, "other vendor", "", {"vendor": "LG-Nortel"}),
    (3, "other device type", "", {"device_type": "RoundTable"}),
    (3, "nameless", "", {"mac": "", "serial": ""}),
    (4, "current", "", {}),
    (4, "interim", "", {}),
)
BEHAVIOURS = (
    (82, Behaviour.GOOD),
    (5, Behaviour.CUT),
    (6, Behaviour.POWER_LOSS),
    (5, Behaviour.KEEPS_OLD),
    (2, Behaviour.FAILS),
)
BAD_IMAGE = ((40, Behaviour.FAILS), (30, Behaviour.KEEPS_OLD), (30, Behaviour.BRICKED))


def populate(count: int, seed: int) -> Iterator[Member]:
    """So many phones; each kind is there from a hundred on."""
    drawn = random.Random(seed)
    for number in range(count):
        share, place = 0, number * 37 % 100  # coprime: a hundred in a row have every kind in its share
        for width, kind, family, told in KINDS:
            share += width
            if place < share:
                yield _member(drawn, number, kind, family, told)
                break


def _member(drawn: random.Random, number: int, kind: str, family: str, told: dict[str, str]) -> Member:
    mac = f"00-04-F2-{number >> 16 & 255:02X}-{number >> 8 & 255:02X}-{number & 255:02X}"
    vendor = drawn.choice(["Polycom", "POLYCOM"]) if kind == "cx700" else "Polycom"
    identity = PhoneIdentity(**{"mac": mac, "serial": f"07823-{number:05}", "vendor": vendor, **told})
    version = {"current": LAST, "interim": INTERIM}.get(kind) or (OLDER if drawn.random() < 0.1 else STUCK)
    shares = BAD_IMAGE if family == "ip8540" else BEHAVIOURS if family else ((100, Behaviour.GOOD),)
    (behaviour,) = drawn.choices([one for _, one in shares], [width for width, _ in shares])
    address = f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    return Member(identity, version, address, behaviour, family, drawn.random() < 0.02, kind)
