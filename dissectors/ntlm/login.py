"""Domain and user of a login, exactly as the phone sent them, and what their form means."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Any, NamedTuple

from dissectors.ntlm.av_pairs import AvId, AvPair


class Form(enum.Enum):
    """How the account was written."""

    ANONYMOUS = "anonymous"
    NETBIOS_DOMAIN = "domain\\user"
    DNS_DOMAIN = "domain.local\\user"
    PRINCIPAL = "user@domain"
    DOMAIN_IN_USER = "domain inside the user field"
    NO_DOMAIN = "user alone"


_NOTES = {
    Form.ANONYMOUS: "no account was sent",
    Form.NETBIOS_DOMAIN: "NetBIOS domain name: one CX700 behind OCS 2007 R2 met certificate download errors with this "
    "form and signed in with the DNS name of the domain instead (domain.local\\user)",
    Form.DNS_DOMAIN: "DNS domain name: the form with which one CX700 behind OCS 2007 R2 did sign in",
    Form.PRINCIPAL: "user principal name: one CX700 behind OCS 2007 R2 met certificate download errors with this form "
    "and signed in as domain.local\\user instead",
    Form.DOMAIN_IN_USER: "the user field holds the domain too: the phone did not split what was typed",
    Form.NO_DOMAIN: "no domain was sent: the server looks for the account in its own domain",
}


_NAMES = {
    AvId.MsvAvNbComputerName,
    AvId.MsvAvNbDomainName,
    AvId.MsvAvDnsComputerName,
    AvId.MsvAvDnsDomainName,
    AvId.MsvAvDnsTreeName,
}


class Login(NamedTuple):
    """What stood in the DomainName and UserName fields, case kept."""

    domain: str
    user: str

    @property
    def form(self) -> Form:
        """Which way of writing an account this is."""
        if not self.user:
            return Form.ANONYMOUS
        if "\\" in self.user or "/" in self.user:
            return Form.DOMAIN_IN_USER
        if self.domain:
            return Form.DNS_DOMAIN if "." in self.domain.strip(".") else Form.NETBIOS_DOMAIN
        return Form.PRINCIPAL if "@" in self.user else Form.NO_DOMAIN

    @property
    def note(self) -> str:
        """What is known of this form with such phones."""
        return _NOTES[self.form]

    def names_in(self, target_info: Iterable[AvPair]) -> tuple[str, ...]:
        """Which of the server's names the domain is (`MsvAvNbDomainName`, ...); none: the server knows no such domain.

        `target_info` is that of the challenge this login answers.
        """
        wanted = self.domain.casefold()
        return tuple(pair.name for pair in target_info if pair.id in _NAMES and pair.text.casefold() == wanted)

    def __str__(self) -> str:
        return f"{self.domain}\\{self.user}" if self.domain else self.user

    def to_json(self) -> dict[str, Any]:
        """`domain`, `user`, `form`, `note`."""
        return {"domain": self.domain, "user": self.user, "form": self.form.value, "note": self.note}
