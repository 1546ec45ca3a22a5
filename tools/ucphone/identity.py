"""Who a phone is, how fast its clock runs, and what it does differently when told to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PhoneIdentity:
    """What a phone says of itself in every check; MAC, serial and user may be blank."""

    mac: str = "00-04-F2-00-01-76"
    serial: str = "07823-A345"
    device_type: str = "UCPhone"
    vendor: str = "Polycom"
    model: str = "CX700"
    revision: str = "A"
    locale: str = "ENU"
    user: str = ""

    @property
    def name(self) -> str:
        """How people tell it apart."""
        return self.mac or self.serial or "phone"


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take, in seconds on the phone's clock, and how many of those pass in a real second (`scale`).

    The 24 hours are documented; the duration of a reboot and the wait before a cut download is resumed are not.
    A reboot never takes less than `least_reboot` real seconds: a crash loop on a fast clock is not to become a flood.
    """

    scale: float = 1.0
    poll: float = 86_400.0
    reboot: float = 150.0
    retry: float = 30.0
    least_reboot: float = 0.25

    @property
    def poll_wait(self) -> float:
        """Real seconds between two polls."""
        return self.poll / self.scale

    @property
    def reboot_wait(self) -> float:
        """Real seconds a reboot takes."""
        return max(self.reboot / self.scale, self.least_reboot)

    @property
    def retry_wait(self) -> float:
        """Real seconds before a download is resumed."""
        return self.retry / self.scale


@dataclass(frozen=True, slots=True)
class PhoneOptions:
    """Behaviour that differs between sources, or that tests need otherwise.

    One source has a phone take any version that differs, another only a newer one (protocol.md section 2.3):
    `only_newer` is the latter. `polls` ends the phone's life after so many checks. `external` is a phone outside of
    the firewall. `domain` is what DHCP would have told it.
    """

    polls: int | None = None
    only_newer: bool = False
    external: bool = False
    domain: str = "example.com"
