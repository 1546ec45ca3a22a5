"""From exchanges to the events a history is fed with: the same for live traffic and for a recording read again."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from captures.exchange import Exchange, Request, Response, header
from dissectors import DissectError
from dissectors.redaction import REDACTED
from dissectors.update_status import LastUpdateStatus
from dissectors.update_urls import PackagePath, Resource, classify
from dissectors.version import Version
from proxy_addons.history import Download, Histories, identity_of
from proxy_addons.interlocks import Situation
from proxy_addons.phone import Phone
from proxy_addons.policy import Decision
from proxy_addons.rules import Rule

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII | re.IGNORECASE)
ACTIONS = ("report", "offer")


def situation(
    histories: Histories | None,
    phone: Phone,
    now: datetime,
    stopped: str,
    files: Callable[[Rule, Version], str | None] | None = None,
    unknown: str = "",
) -> Situation:
    """What to decide by, the check itself being part of the history already."""
    identity = identity_of(phone.mac, phone.serial, phone.address)
    if histories is not None and identity is not None:
        histories.checked(
            identity, now, version=phone.version, address=phone.address, status=phone.status, user=phone.user
        )
    return Situation(now, histories, stopped, files, unknown)


def decided(histories: Histories, phone: Phone, now: datetime, decision: Decision, *, dry_run: bool) -> None:
    """A decision has been made."""
    identity = identity_of(phone.mac, phone.serial, phone.address)
    if identity is not None:
        acts = decision.action in ACTIONS and not dry_run
        rule = decision.rule if acts else None
        path = rule.path.name if rule is not None and rule.path is not None else ""
        histories.decided(identity, now, decision.action, rule.name if rule is not None else "", path)


def answered(histories: Histories, exchange: Exchange) -> None:
    """The exchange of an update check is over; anything else is ignored."""
    facts = {fact["fact"]: fact for fact in reversed(exchange.facts)}
    check, decision, answer = (facts.get(name) for name in ("update-check", "decision", "update-answer"))
    if check is None or (identity := _identity(check, exchange)) is None:
        return
    now = exchange.ended
    action, rule, path = (str(decision[name] or "") for name in ("action", "rule", "path")) if decision else ("",) * 3
    offered = [version for one in answer["offers"] if not one["empty"]
               for version in (_version(one["offered_version"]),)] if answer else []  # fmt: skip
    ours = bool(decision) and action in ACTIONS and not (decision or {}).get("dry_run")
    if ours and action == "offer" and _changed(exchange.response, exchange.rewritten_response):
        offered = [_version((decision or {})["version"])]
    elif ours and (action == "offer" or not _changed(exchange.request, exchange.rewritten_request)):
        # Decided, but not done: what the server offers is its own idea.
        histories.answered(identity, now, rule=rule, path=path, offers=False, version=None)
        ours = False
    histories.answered(
        identity,
        now,
        rule=rule if ours else "",
        path=path if ours else "",
        offers=bool(offered),
        version=offered[0] if offered else None,
    )


def fetching(histories: Histories, method: str, target: str, address: str, now: datetime) -> str | None:
    """A request begins; returns the phone's identity where it fetches a file of an update and can be told."""
    version = fetched_version(method, target)
    return None if version is None else histories.fetching(address, version, now)


def fetched_version(method: str, target: str) -> Version | None:
    """The version whose file a request fetches; None where it fetches none."""
    if method != "GET" or classify(target) is not Resource.FIRMWARE_FILE:
        return None
    try:
        return PackagePath.parse(target).version
    except DissectError:
        return None


def fetched(histories: Histories, identity: str, exchange: Exchange) -> None:
    """The fetch that `fetching` named a phone for is over."""
    package = PackagePath.parse(exchange.request.target)
    complete, resumed = _had(exchange)
    download = Download(exchange.ended, package.version, package.file_name, complete, resumed)
    histories.fetched(identity, exchange.ended, download)


def rebuild(histories: Histories, exchanges: Iterable[Exchange]) -> None:
    """Feed a history with recorded exchanges, in the order they ended."""
    for exchange in exchanges:
        again(histories, exchange)


def again(histories: Histories, exchange: Exchange) -> None:
    """Feed a history with one recorded exchange."""
    _check_again(histories, exchange)
    address = address_of(exchange.client)
    identity = fetching(histories, exchange.request.method, exchange.request.target, address, exchange.started)
    if identity is not None:
        fetched(histories, identity, exchange)


def address_of(endpoint: str) -> str:
    """The address of `ip:port` or `[ip]:port`."""
    return endpoint.rpartition(":")[0].strip("[]")


def _check_again(histories: Histories, exchange: Exchange) -> None:
    facts = {fact["fact"]: fact for fact in reversed(exchange.facts)}
    check, decision = facts.get("update-check"), facts.get("decision")
    if check is None or (identity := _identity(check, exchange)) is None:
        return
    versions = {module.get("version") for module in check["modules"]} - {None}
    status = check.get("update_status")
    histories.checked(
        identity,
        exchange.started,
        version=_version(versions.pop()) if len(versions) == 1 else None,
        address=address_of(exchange.client),
        status=LastUpdateStatus.parse(status["text"]) if status else None,
        user=None if check.get("user") == REDACTED else check.get("user"),
    )
    if decision is not None:
        acts = decision["action"] in ACTIONS and not decision.get("dry_run")
        rule, path = (str(decision[name] or "") if acts else "" for name in ("rule", "path"))
        histories.decided(identity, exchange.started, decision["action"], rule, path)
    answered(histories, exchange)


def identity_in(exchange: Exchange) -> str | None:
    """The phone that names itself in this exchange."""
    check = next((fact for fact in exchange.facts if fact["fact"] == "update-check"), None)
    return None if check is None else _identity(check, exchange)


def _identity(check: Any, exchange: Exchange) -> str | None:
    return identity_of(check.get("mac_address"), check.get("serial"), address_of(exchange.client))


def _version(text: str | None) -> Version | None:
    try:
        return Version.parse(text or "")
    except DissectError:
        return None


def _changed(message: Request | Response | None, rewritten: Request | Response | None) -> bool:
    """Whether the body went on as another one."""
    return message is not None and rewritten is not None and message.body.sha256 != rewritten.body.sha256


def _had(exchange: Exchange) -> tuple[bool, bool]:
    """Whether a phone had all of a file after this fetch, and whether it had asked for the rest only."""
    response = exchange.response
    if response is None:
        return False, False
    if response.status != 206:
        return exchange.complete and response.status == 200, False
    match = _CONTENT_RANGE.fullmatch((header(response.headers, "content-range") or "").strip())
    if match is None:
        return False, False
    first, last, size = (int(number) for number in match.groups())
    return exchange.complete and last + 1 == size, first > 0
