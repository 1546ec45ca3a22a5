"""Run recorded exchanges through rules, or send them to a server, and show what differs.

Examples:
  upshim replay capture.pcap --rules rules.toml       # what the rules would have changed, as a diff
  upshim replay rec --to http://10.0.0.7              # the same requests in order; what is answered differently

With --rules nothing is sent anywhere: the exchanges go through the very hooks that live traffic goes through. With --to
the requests are sent as recorded, but for credentials, which no server would take twice. Send them to a server and not
to `upshim proxy`: there they would be the phones' own checks, with what that does to their states, limits and failures,
and be rewritten. The exit code is 1 where answers differ.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

from captures.database_url import Place, place_of
from captures.errors import CaptureError
from captures.exchange import Exchange, Headers, Request, Response
from captures.items import CaptureSummary
from captures.read_options import ReadOptions
from captures.redaction import redacted_value
from captures.sources import read_exchanges
from tools import captures_in
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput
from tools.exchange_lines import printable
from tools.options import above_zero
from tools.proxy import readable

HOLD = 16 << 20  # a request body up to this size is sent again


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("capture", type=place_of, metavar="CAPTURE", help="a capture file or a recording")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--rules", type=Path, metavar="FILE", help="show what these rules would have changed")
    what.add_argument("--to", metavar="URL", help="send the requests to this server, which is no proxy of upshim")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="vocabulary added to the built-in one (TOML)")
    parser.add_argument(
        "--speed", type=float, metavar="N", help="with --to: N times the recorded pace (default: without pauses)"
    )
    parser.add_argument(
        "--server-ca",
        type=Path,
        metavar="FILE",
        help="with --to: the CA's certificate, for https (PEM)",
    )
    captures_in.add_secrets(parser)
    parser.add_argument(
        "--json", action="store_true", help="one JSON object per exchange, and one where not all was read"
    )


def run(args: argparse.Namespace) -> int:
    """Replay."""
    source = Source(args.capture, captures_in.with_secrets(args, ReadOptions(hold=HOLD)))
    try:
        code = show_changes(args, source) if args.rules is not None else compare_answers(args, source)
    except CaptureError as error:
        raise UnusableInput(str(error)) from error
    return max(code, source.tell(as_json=args.json))


class Source:
    """The capture. Its account is had once its exchanges are gone through."""

    def __init__(self, path: Place, options: ReadOptions) -> None:
        self._path = path
        self._options = options
        self._summary: CaptureSummary | None = None

    def exchanges(self) -> Iterator[Exchange]:
        """The exchanges, with their bodies. Raises `CaptureError`."""
        for item in read_exchanges(self._path, self._options):
            if isinstance(item, Exchange):
                yield item
            elif isinstance(item, CaptureSummary):
                self._summary = item

    def tell(self, *, as_json: bool) -> int:
        """Say what of the capture was not read; returns the exit code for that."""
        if self._summary is None or not self._summary.problems:
            return EXIT_OK
        if as_json:
            print(json.dumps(self._summary.to_json()))
        else:
            for problem in self._summary.problems:
                print(printable(f"{self._path}: {problem}"))
        return captures_in.exit_code(self._summary)


def show_changes(args: argparse.Namespace, source: Source) -> int:
    """What the rules would have changed."""
    from mitmproxy.exceptions import OptionsError  # noqa: PLC0415 - mitmproxy takes half a second

    from proxy_addons.addon import BODY_LIMIT  # noqa: PLC0415
    from proxy_addons.replay import Replay  # noqa: PLC0415
    from proxy_addons.rewriter_files import load_rewriter  # noqa: PLC0415

    try:
        rewriter = load_rewriter(str(args.rules), args.profile and str(args.profile), BODY_LIMIT, dry_run=False)
    except OptionsError as error:
        raise UnusableInput(str(error)) from error
    seen = changed = 0
    with Replay(rewriter) as replay:
        for exchange in source.exchanges():
            told = replay.run(exchange)
            decisions = [fact for fact in told.facts if fact["fact"] == "decision"]
            if not decisions and not told.rewritten_request and not told.rewritten_response:
                continue
            seen += 1
            diffs = {
                side: message_diff(side, before, after)
                for side, before, after in (
                    ("request", told.request, told.rewritten_request),
                    ("response", told.response, told.rewritten_response),
                )
                if before is not None and after is not None
            }
            changed += bool(diffs)
            show_one(told, decisions, diffs, as_json=args.json)
    if not args.json:
        print(f"{seen} update checks, {changed} of them changed")
    return EXIT_OK


def show_one(told: Exchange, decisions: list[Any], diffs: dict[str, list[str]], *, as_json: bool) -> None:
    """One exchange under the rules."""
    if as_json:
        shown = {"kind": "replay", "capture": told.capture, "index": told.index, "client": told.client}
        shown |= {"decision": decisions[0] if decisions else None, "problems": list(told.problems), "changes": diffs}
        print(json.dumps(shown))
        return
    reason = "; ".join(f"{fact['action']}: {fact['reason']}" for fact in decisions)
    print(printable(f"{told.index:>5} {told.client} {told.request.method} {told.request.target}  {reason}"))
    for problem in told.problems:
        print(printable(f"      ! {problem}"))
    for line in (line for diff in diffs.values() for line in diff):
        print(f"      {line}")


def message_diff(side: str, before: Request | Response, after: Request | Response) -> list[str]:
    """A unified diff of headers and decoded body; credentials are redacted."""
    lines = unified_diff(message_lines(before), message_lines(after), f"{side} as recorded", f"{side} under rules", n=1)
    return [line.rstrip("\n") for line in lines]


def message_lines(message: Request | Response) -> list[str]:
    """Headers and body as lines. Tags begin new lines, for update checks are often one long one."""
    text = (message.body.data or b"").decode("utf-8", "backslashreplace").replace("><", ">\n<")
    headers = [f"{name}: {redacted_value(name, value)}" for name, value in message.headers]
    return [printable(line) for line in (*headers, "", *text.splitlines())]


def compare_answers(args: argparse.Namespace, source: Source) -> int:
    """Send the requests again and show which answers differ."""
    from tools.resend import Resender  # noqa: PLC0415

    speed = None if args.speed is None else above_zero("--speed", args.speed)
    roots = readable("--server-ca", args.server_ca)
    try:
        resender = Resender(args.to, speed, roots)
    except ValueError as error:
        raise UnusableInput(f"--to: {error}") from error
    sent = different = silent = 0
    with resender:
        for exchange in source.exchanges():
            if reason := unsendable(exchange.request):
                report(exchange, [f"not sent: {reason}"], as_json=args.json)
                continue
            sent += 1
            answer = resender.send(exchange)
            if isinstance(answer, list):
                silent += 1
                report(exchange, answer, as_json=args.json)
                continue
            differences = list(answer_differences(exchange, answer))
            different += bool(differences)
            if differences and (exchange.rewritten_request or exchange.rewritten_response):
                differences.append("recorded with this exchange rewritten by upshim; sent is what the phone had sent")
            report(exchange, differences, as_json=args.json)
    if not args.json:
        unanswered = f", {silent} not answered" if silent else ""
        print(f"{sent} requests sent, {different} answered differently{unanswered}")
    return EXIT_PROBLEM if different or silent else EXIT_OK


def unsendable(request: Request) -> str | None:
    """Why a request cannot be sent again."""
    if not request.method:
        return "the request is not in the capture"
    if request.method == "CONNECT":
        return "it opens a tunnel"
    if request.body.size and request.body.data is None:
        return "its body is not in the capture"
    return None


def report(exchange: Exchange, differences: list[str], *, as_json: bool) -> None:
    """One exchange that was sent again."""
    if as_json:
        shown = {"kind": "replay", "capture": exchange.capture, "index": exchange.index, "differences": differences}
        print(json.dumps(shown), flush=True)
        return
    state = "differs" if differences else "same"
    print(f"{exchange.index:>5} {exchange.request.method} {printable(exchange.request.target)}: {state}", flush=True)
    for difference in differences:
        print(f"      {printable(difference)}", flush=True)


# The length of a body is compared with the body; of a HEAD it is all there is.
COMPARED = (
    "content-type",
    "content-range",
    "content-encoding",
    "location",
    "www-authenticate",
    "etag",
    "last-modified",
)


def answer_differences(exchange: Exchange, answer: Response) -> Iterable[str]:
    """Status, the headers that matter, the body, and what the body means."""
    recorded = exchange.rewritten_response or exchange.response
    if recorded is None:
        yield f"recorded without an answer, now {answer.status}"
        return
    if recorded.status != answer.status:
        yield f"status {recorded.status} recorded, {answer.status} now"
    for name in (*COMPARED, "content-length") if exchange.request.method == "HEAD" else COMPARED:
        before, after = header_values(recorded.headers, name), header_values(answer.headers, name)
        if before != after:
            yield f"{name}: {before or 'absent'} recorded, {after or 'absent'} now"
    if recorded.body.sha256 != answer.body.sha256:
        sizes = [f"{body.size} bytes, sha256 {body.sha256[:16]}..." for body in (recorded.body, answer.body)]
        yield f"body: {sizes[0]} recorded; {sizes[1]} now"
        before, after = meaning(exchange, recorded), meaning(exchange, answer)
        if before != after:
            yield f"means: {before or 'nothing known'} recorded, {after or 'nothing known'} now"


def meaning(exchange: Exchange, answer: Response) -> str:
    """The answer's facts in words."""
    from captures.facts import facts_of  # noqa: PLC0415
    from tools.fact_words import words  # noqa: PLC0415

    asked = replace(exchange, response=answer, facts=())
    return "; ".join(words(fact) for fact in facts_of(asked) if fact["fact"] == "update-answer")


def header_values(headers: Headers, name: str) -> str:
    """All values of a header, credentials redacted."""
    return ", ".join(redacted_value(key, value) for key, value in headers if key.lower() == name)
