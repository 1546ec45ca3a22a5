"""Check a rules file, explain what it would do to a phone, print a commented example, or stop all rewriting.

Examples:
  upshim rules example > rules.toml
  upshim rules check rules.toml
  upshim rules explain rules.toml --model CX700 --version 1.0.522.73 --mac 0004F2000176
  upshim rules explain rules.toml --model CX700 --version 1.0.522.73 --at 2026-01-05T23:30 --record rec --json
  upshim rules explain rules.toml --model CX700 --version 1.0.522.73 --upstream http://10.0.0.5 --admin 127.0.0.1:9180
  upshim rules stop --kill-switch /run/upshim/stop
  upshim rules stop --admin 127.0.0.1:9180 --why "phones at Berlin do not come back"

What the phone would say beyond the options (vendor, revision, ...) is taken from the file's path for that model.
explain exits 0 if the phone would be given something, 1 if not; no limit counts without --record, which holds history.
stop and start act on a running proxy, from the next exchange on: through the file its --kill-switch names, or its
admin listener, which keeps a stop in the proxy's --state. What is stopped, a restart does not start.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from captures.database_url import place_of
from captures.errors import StoreError
from captures.exchange import rfc3339
from captures.phones import exchanges_of_phones
from captures.store import Store
from dissectors.mac_address import normal_mac
from dissectors.version import Version
from proxy_addons.history import KEPT_FOR, Histories, identity_of
from proxy_addons.interlocks import INTERLOCKS
from proxy_addons.kill_switch import why_file
from proxy_addons.ledger import Supposed
from proxy_addons.packages import files_of, package_url
from proxy_addons.phone import IDENTITY, Phone, same
from proxy_addons.phone_events import rebuild
from proxy_addons.phone_events import situation as check_in
from proxy_addons.policy import Decision, Situation, intended, mismatch
from proxy_addons.rules import Rule, Rules, RulesError
from proxy_addons.upstream_files import Origin, UpstreamFiles
from proxy_addons.upstream_url import parse_upstream
from tools import switch
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput
from tools.options import version_of

EXAMPLE = Path(__file__).with_name("rules_example.toml")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    actions = parser.add_subparsers(dest="action", metavar="check|explain|example|stop|start", required=True)
    check = actions.add_parser("check", help="say whether a file is good, else which line is not")
    explain = actions.add_parser("explain", help="say what would be done for a phone, and why")
    actions.add_parser("example", help="print a commented rules file")
    for name, what in (("stop", "rewrite nothing more"), ("start", "rewrite again")):
        switch.add_arguments(actions.add_parser(name, help=f"have a running proxy {what}"))
    for action in (check, explain):
        action.add_argument("file", type=Path, metavar="F", help="rules file (TOML)")
        action.add_argument("--json", action="store_true", help="one JSON object per line")
    explain.add_argument("--model", required=True)
    explain.add_argument("--version", required=True, metavar="V", help="the version the phone runs")
    explain.add_argument("--mac")
    for name in ("vendor", "revision", "locale", "device-type", "serial", "address"):
        explain.add_argument(f"--{name}")
    explain.add_argument("--at", metavar="TIME", help="ISO 8601, local unless it names a zone (default now)")
    explain.add_argument("--record", type=place_of, metavar="DIR|URL", help="recording that tells the phones' history")
    explain.add_argument("--upstream", metavar="URL", help="update server to ask whether the files are there")
    explain.add_argument("--kill-switch", type=Path, metavar="FILE", help="the proxy's own --kill-switch")
    explain.add_argument("--admin", metavar="HOST:PORT", help="the proxy's own --admin: asked whether it is stopped")
    explain.add_argument("--admin-token", type=Path, metavar="FILE", help="token that --admin asks for")


def run(args: argparse.Namespace) -> int:
    """Check, explain or print."""
    if args.action == "example":
        print(EXAMPLE.read_text("utf-8"), end="")
        return EXIT_OK
    if args.action in {"stop", "start"}:
        return switch.run(args)
    rules = read_rules(args.file)
    if args.action == "check":
        checked = {"paths": len(rules.paths), "rules": len(rules.rules), "sha256": rules.sha256}
        if args.json:
            print(json.dumps({"kind": "rules", "file": str(args.file), **checked}))
        else:
            print("{}: good: {paths} paths, {rules} rules (sha256 {sha256})".format(args.file, **checked))
        return EXIT_OK
    with ExitStack() as stack:
        explained = explain(rules, phone_of(args, rules), situation_of(args, stack))
    for line in explained:
        print(json.dumps(line.to_json()) if args.json else line)
    acts = any(line.kind == "decision" and line.name in {"report", "offer"} for line in explained)
    return EXIT_OK if acts else EXIT_PROBLEM


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an explanation; `verdict` is True where a rule matches, an interlock holds or something is sent."""

    kind: str  # "phone", "time", "rule", "would", "interlock", "decision"
    name: str
    verdict: bool
    text: str

    def to_json(self) -> dict[str, Any]:
        """The line as plain JSON values."""
        return {"kind": self.kind, "name": self.name, "verdict": self.verdict, "text": self.text}

    def __str__(self) -> str:
        match self.kind:
            case "rule":
                return f"rule {self.name}: {self.text}"
            case "interlock":
                through = f"lets it through{': ' * bool(self.text)}{self.text}"
                return f"    {self.name} {f'HOLDS: {self.text}' if self.verdict else through}"
            case "would":
                return f"    would {self.text}"
            case _:
                return f"{self.kind}: {self.text}"


def explain(rules: Rules, phone: Phone, situation: Situation) -> list[Line]:
    """What the rules make of a phone, and why: each rule, then of the first that matches each interlock."""
    identity = identity_of(phone.mac, phone.serial, phone.address)
    known = situation.history.get(identity) if situation.history is not None else None
    told = ", ".join(f"{name} {getattr(phone, name) or 'not told'}" for name in (*IDENTITY, "version", "mac", "serial"))
    lines = [Line("phone", phone.mac or "", True, f"{told}; history: {known.state if known else 'not known'}")]
    lines.append(Line("time", "", True, rfc3339(situation.now) if situation.now else "not known"))
    if situation.now is not None:
        # As in the proxy, the check itself is part of the history when it is decided on.
        situation = check_in(situation.history, phone, situation.now, situation.stopped, situation.files)
    decided: Decision | None = None
    for rule in rules.rules:
        why_not = mismatch(rule, phone)
        if why_not is not None:
            lines.append(Line("rule", rule.name, False, f"does not match: {why_not}"))
        elif decided is not None:
            lines.append(Line("rule", rule.name, False, "would match, but an earlier rule decides"))
        else:
            lines.append(Line("rule", rule.name, True, "matches, and decides"))
            decided, more = judged(rule, phone, situation)
            lines += more
    decision = decided or Decision("leave", "no rule matches")
    lines.append(Line("decision", decision.action, decision.action not in {"leave", "hold"}, str_of(decision)))
    return lines


def judged(rule: Rule, phone: Phone, situation: Situation) -> tuple[Decision, list[Line]]:
    """What a rule that matches would do, and what each interlock says."""
    decision, plan = intended(rule, phone, situation)
    lines = [Line("would", decision.action, True, text) for text in sent(decision)]
    if plan is None:
        return decision, lines
    # The last one asks a server. Those before it ask a database, which keeps other decisions waiting from then on.
    holding = [(interlock.__name__, interlock(plan)) for interlock in reversed(INTERLOCKS)][::-1]
    lines += [
        Line("interlock", name, reason is not None, reason or note(name, rule, situation)) for name, reason in holding
    ]
    first = next((f"{name}: {reason}" for name, reason in holding if reason is not None), None)
    return (decision if first is None else Decision("hold", first, rule)), lines


def note(interlock: str, rule: Rule, situation: Situation) -> str:
    """What to know of an interlock that does not hold; blank for nothing."""
    if interlock == "files_upstream" and rule.checks_files and situation.files is None:
        return "not looked at, --upstream URL does"
    return ""


def sent(decision: Decision) -> Iterator[str]:
    """What would be sent to whom."""
    if decision.report is not None:
        timestamp = f";{decision.report.timestamp}" if decision.report.timestamp else ""
        yield f"tell the server {decision.report.version}{timestamp} instead of what the phone reports"
    if decision.offer is not None and decision.offer.version is not None and decision.rule and decision.rule.path:
        at = decision.offer.base_url or package_url(
            decision.rule.path, decision.offer.version, "HOST-THE-PHONE-ASKED", external=False
        )
        yield f"tell the phone, where the server offers nothing, {decision.offer.version} at {at}"
    for side, edits in (("server", decision.request_headers), ("phone", decision.response_headers)):
        for name, value in edits.set:
            yield f"send the {side} the header {name}: {value}"
        for name in edits.remove:
            yield f"not send the {side} the header {name}"


def str_of(decision: Decision) -> str:
    """A decision in one line."""
    return f"{decision.action}{f' by rule {decision.rule.name}' if decision.rule else ''}: {decision.reason}"


def read_rules(path: Path) -> Rules:
    """Read and check a rules file. Raises `UnusableInput`."""
    try:
        return Rules.parse(path.read_bytes())
    except OSError as error:
        raise UnusableInput(f"{path}: {error.strerror}") from error
    except RulesError as error:
        raise UnusableInput(f"{path}: {error}") from error


def phone_of(args: argparse.Namespace, rules: Rules) -> Phone:
    """The phone that the options describe, completed from the path for its model. Raises `UnusableInput`."""
    mac = normal_mac(args.mac) if args.mac is not None else None
    if args.mac is not None and mac is None:
        raise UnusableInput(f"--mac: expected an address such as 00:04:f2:00:01:76, found {args.mac!r}")
    path = next((path for path in rules.paths if same(path.model, args.model)), None)
    told: dict[str, Any] = {name: getattr(args, name) or (path and getattr(path, name)) for name in IDENTITY}
    return Phone(
        **told, version=version_of("--version", args.version), mac=mac, serial=args.serial, address=args.address
    )


def situation_of(args: argparse.Namespace, stack: ExitStack) -> Situation:
    """The time and the history that the options name, held open by `stack`. Raises `UnusableInput`."""
    try:
        now = datetime.fromisoformat(args.at) if args.at else datetime.now()
        now = now.astimezone()
    except (ValueError, OverflowError):
        raise UnusableInput(f"--at: expected a time such as 2026-01-05T23:30, found {args.at!r}") from None
    histories = Histories()
    if args.record is not None:
        try:
            store = stack.enter_context(closing(Store.open(args.record)))
            if store.folded:
                histories = stack.enter_context(closing(Supposed(store.engine)))
            else:
                rebuild(histories, exchanges_of_phones(store, now - KEPT_FOR))
        except StoreError as error:
            raise UnusableInput(str(error)) from error
    return Situation(now, histories, stopped_of(args), files_look(args.upstream))


def stopped_of(args: argparse.Namespace) -> str:
    """Why a running proxy rewrites nothing, as far as the options let it be seen. Raises `UnusableInput`."""
    why = why_file(args.kill_switch) if args.kill_switch is not None else ""
    if args.admin is not None:
        why = str(switch.ask(args.admin, args.admin_token, "GET", "/health").get("stopped") or "") or why
    return why


def files_look(upstream: str | None) -> Callable[[Rule, Version], str | None] | None:
    """A look at the files on an update server, which waits for the answer. Raises `UnusableInput`."""
    if upstream is None:
        return None
    try:
        host, port = parse_upstream(upstream)
    except ValueError as error:
        raise UnusableInput(f"--upstream: {error}") from error
    origin = Origin("https" if upstream.startswith("https:") else "http", host, port)

    def look(rule: Rule, version: Version) -> str | None:
        wanted = files_of(rule, version, external=False)
        files = UpstreamFiles(lambda *server: server == (host, port))
        return asyncio.run(files.look(origin, wanted)) if wanted is not None else None

    return look
