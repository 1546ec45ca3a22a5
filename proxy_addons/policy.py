"""What to do about an update check: pure, so that live traffic, replay and tests decide alike.

A rule applies only to a phone that names device type, vendor, model, revision and locale, all five equal to the
rule's path (letter case aside: vendors are written `Polycom` and `POLYCOM`, protocol.md section 12).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dissectors.update_urls import PackagePath
from dissectors.version import Version
from proxy_addons.rules import IDENTITY, Offer, Report, Rule, Rules, UpgradePath


@dataclass(frozen=True, slots=True)
class Phone:
    """What an update check says about its sender; `mac` in the form of `normal_mac`."""

    device_type: str | None = None
    vendor: str | None = None
    model: str | None = None
    revision: str | None = None
    locale: str | None = None
    version: Version | None = None
    mac: str | None = None
    serial: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one update check. `reason` tells an engineer why, in one line."""

    action: str  # "leave", "observe", "report", "offer"
    reason: str
    rule: Rule | None = None
    report: Report | None = None
    offer: Offer | None = None

    def to_json(self) -> dict[str, Any]:
        """The fact that a recording keeps of it."""
        return {
            "fact": "decision",
            "action": self.action,
            "rule": self.rule and self.rule.name,
            "reason": self.reason,
            "version": str(self.report.version) if self.report else str(self.offer.version) if self.offer else None,
        }


def decide(rules: Rules, phone: Phone) -> Decision:
    """The decision of the first rule that matches."""
    for rule in rules.rules:
        if mismatch(rule, phone) is None:
            return _apply(rule, phone)
    return Decision("leave", "no rule matches")


def mismatch(rule: Rule, phone: Phone) -> str | None:
    """Why a rule does not match a phone, or None where it does."""
    if rule.path is not None:
        for part in IDENTITY:
            wanted, found = getattr(rule.path, part), getattr(phone, part)
            if found is None or not same(wanted, found):
                return f"{part} is {found or 'not told'}, the path wants {wanted}"
    if rule.version is not None:
        if phone.version is None:
            return "the phone tells no version"
        if phone.version not in rule.version:
            return f"version {phone.version} is outside the rule's range"
    if rule.macs is not None and phone.mac not in rule.macs:
        return f"MAC {phone.mac or 'not told'} is not listed"
    if rule.serials is not None and (phone.serial or "").strip().casefold() not in rule.serials:
        return f"serial number {phone.serial or 'not told'} is not listed"
    return None


def same(one: str, other: str) -> bool:
    """Equal but for letter case and surrounding white space."""
    return one.strip().casefold() == other.strip().casefold()


def _apply(rule: Rule, phone: Phone) -> Decision:
    if rule.report is not None:
        if rule.report.version == phone.version:
            return Decision("leave", f"the phone reports {phone.version} itself", rule)
        return Decision("report", f"{phone.version} is reported as {rule.report.version}", rule, report=rule.report)
    if rule.offer is not None and rule.path is not None and phone.version is not None:
        return _offer(rule, rule.offer, rule.path, phone.version)
    return Decision("observe", "the rule only observes", rule)


def _offer(rule: Rule, offer: Offer, path: UpgradePath, reported: Version) -> Decision:
    version = offer.version or path.next_after(reported)
    if version is None:
        return Decision("leave", f"{reported} is past the last waypoint of {path.name}", rule)
    if version == reported:
        return Decision("leave", f"the phone runs {version} already", rule)
    if version < reported and not rule.allow_downgrade:
        return Decision("leave", f"{version} would be a downgrade from {reported}", rule)
    skipped = [waypoint for waypoint in path.required if reported < waypoint < version]
    if skipped:
        return Decision("leave", f"{version} would skip the required waypoint {min(skipped)}", rule)
    chosen = Offer(version, offer.base_url, offer.external_base_url, offer.file, offer.signature_file, offer.timestamp)
    return Decision("offer", f"{reported} is offered {version}", rule, offer=chosen)


def package_url(path: UpgradePath, version: Version, authority: str, *, external: bool) -> str:
    """Where the documented layout keeps a version (protocol.md section 2.2), as a URL on the given host."""
    root = "DeviceUpdateFiles_Ext" if external else "DeviceUpdateFiles_Int"
    package = PackagePath(
        root, path.device_type, path.vendor, path.model, path.revision, path.locale, version, path.update_type
    )
    return f"{'https' if external else 'http'}://{authority}{package}"
