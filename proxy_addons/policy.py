"""What to do about an update check: pure, so that live traffic, replay and tests decide alike.

A rule applies only to a phone that names device type, vendor, model, revision and locale, all five equal to the
rule's path (letter case aside: vendors are written `Polycom` and `POLYCOM`, protocol.md section 12). The first rule
that matches decides; what may hold it back is in interlocks.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from proxy_addons.interlocks import Plan, Situation, held
from proxy_addons.packages import package_url
from proxy_addons.phone import Phone, identity_mismatch
from proxy_addons.rule_index import address_of
from proxy_addons.rules import HeaderEdits, Offer, Report, Rule, Rules

NO_EDITS = HeaderEdits()


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome for one update check. `reason` tells an engineer why, in one line."""

    action: str  # "leave", "hold", "observe", "report", "offer"
    reason: str
    rule: Rule | None = None
    report: Report | None = None
    offer: Offer | None = None

    @property
    def request_headers(self) -> HeaderEdits:
        """What to do to the headers of the request; nothing where the rule is held."""
        return self.rule.request_headers if self.rule is not None and self.action != "hold" else NO_EDITS

    @property
    def response_headers(self) -> HeaderEdits:
        """What to do to the headers of the answer."""
        return self.rule.response_headers if self.rule is not None and self.action != "hold" else NO_EDITS

    def to_json(self) -> dict[str, Any]:
        """The fact that a recording keeps of it."""
        return {
            "fact": "decision",
            "action": self.action,
            "rule": self.rule and self.rule.name,
            "path": self.rule and self.rule.path and self.rule.path.name,
            "reason": self.reason,
            "version": str(self.report.version) if self.report else str(self.offer.version) if self.offer else None,
        }


def decide(rules: Rules, phone: Phone, situation: Situation | None = None) -> Decision:
    """The decision of the first rule that matches. Without a situation the phone is a new one, and no time is known."""
    for rule in rules.index.candidates(phone):
        if mismatch(rule, phone) is None:
            decision, plan = intended(rule, phone, situation or Situation())
            holds = held(plan) if plan is not None else None
            return decision if holds is None else Decision("hold", holds, rule)
    return Decision("leave", "no rule matches")


def mismatch(rule: Rule, phone: Phone) -> str | None:
    """Why a rule does not match a phone, or None where it does."""
    if rule.path is not None and (different := identity_mismatch(rule.path, phone)):
        return different
    if rule.version is not None:
        if phone.version is None:
            return "the phone tells no version"
        if phone.version not in rule.version:
            return f"version {phone.version} is outside the rule's range ({rule.version})"
    if rule.macs is not None and phone.mac not in rule.macs:
        return f"MAC {phone.mac or 'not told'} is not listed"
    if rule.serials is not None and (phone.serial or "").strip().casefold() not in rule.serials:
        return f"serial number {phone.serial or 'not told'} is not listed"
    if rule.subnets is not None and not _within(rule, phone.address):
        return f"address {phone.address or 'not known'} is in none of the subnets"
    return None


def _within(rule: Rule, address: str | None) -> bool:
    found = address_of(address)
    return found is not None and any(found in subnet for subnet in rule.subnets or ())


def intended(rule: Rule, phone: Phone, situation: Situation) -> tuple[Decision, Plan | None]:
    """What a rule that matches would do if nothing held it; the plan is None where it would change nothing."""
    decision = _apply(rule, phone)
    edits = rule.request_headers != NO_EDITS or rule.response_headers != NO_EDITS
    version = decision.report.version if decision.report else decision.offer.version if decision.offer else None
    if version is None and not edits:
        return decision, None
    return decision, Plan(rule, phone, version, decision.offer is not None, situation)


def _apply(rule: Rule, phone: Phone) -> Decision:
    if rule.report is not None:
        if rule.report.version == phone.version:
            return Decision("leave", f"the phone reports {phone.version} itself", rule)
        return Decision("report", f"{phone.version} is reported as {rule.report.version}", rule, report=rule.report)
    if rule.offer is not None and rule.path is not None and phone.version is not None:
        version = rule.offer.version or rule.path.next_after(phone.version)
        if version is None:
            return Decision("leave", f"{phone.version} is past the last waypoint of {rule.path.name}", rule)
        if version == phone.version:
            return Decision("leave", f"the phone runs {version} already", rule)
        offer = replace(rule.offer, version=version)
        return Decision("offer", f"{phone.version} is offered {version}", rule, offer=offer)
    return Decision("observe", "the rule only observes", rule)


__all__ = ["Decision", "Phone", "Situation", "decide", "intended", "mismatch", "package_url"]
