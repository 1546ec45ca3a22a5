"""The addon: `mitmdump -s proxy_addons/upshim.py --mode reverse:http://SERVER --set upshim_record=DIR`.

One addon object, so that a failure in one part cannot make mitmproxy skip the others. Every hook is guarded, works on
copies and commits once; on any error the exchange goes on untouched. Update checks up to a limit are buffered,
everything else streams.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional
from weakref import WeakKeyDictionary

if "dissectors" not in sys.modules:
    # `mitmdump -s` knows this file's folder only, and only while it loads it.
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from captures.exchange import Body, Exchange, Fact, Headers, Request, Response
from captures.facts import target_facts
from captures.pcap_mirror import PcapMirror
from captures.recording import Recording, StoreError
from dissectors import DissectError
from dissectors.update_urls import Resource, classify, path_of
from dissectors.vocabulary import Vocabulary
from proxy_addons.failures import Failures, fail_open, fail_open_async
from proxy_addons.flows import (
    body_length,
    client_of,
    headers_of,
    moment,
    moment_or_none,
    request_of,
    response_of,
    server_of,
)
from proxy_addons.rewriter import Checked, Edited, Rewriter, edit_headers
from proxy_addons.rules import HeaderEdits, Rules, RulesError
from proxy_addons.streams import Hold, Tee
from proxy_addons.upstreams import Upstreams

logger = logging.getLogger("upshim")

BODY_LIMIT = 1 << 20  # update checks are a few KiB
ACKNOWLEDGE_WITHIN = 0.5  # seconds an answer may wait for its record; then it goes on without


@dataclass(slots=True)
class Message:
    """One side of an exchange while it passes."""

    headers: Headers = ()
    stream: Tee | Hold | None = None
    edited: Edited | None = None
    edited_headers: Headers | None = None

    def body(self) -> Body:
        """The body as it came."""
        if self.edited is not None:
            return as_body(self.edited.decoded, self.edited.original)
        if isinstance(self.stream, Hold):
            return self.stream.tee.body()
        return self.stream.body() if self.stream is not None else Body()

    def sent_body(self) -> Body:
        """The body as it went on; asked only where something was changed."""
        return self.body() if self.edited is None else as_body(self.edited.sent_decoded, self.edited.sent)

    @property
    def changed(self) -> bool:
        """Whether what went on differs from what came."""
        return self.edited_headers is not None or (self.edited is not None and self.edited.changed)


@dataclass(slots=True)
class Watch:
    """An exchange while it passes."""

    is_check: bool
    request: Message
    response: Message = field(default_factory=Message)
    checked: Checked | None = None
    problems: list[str] = field(default_factory=list)


def as_body(decoded: bytes | None, raw: bytes) -> Body:
    """The body of a buffered message."""
    return Body.of(raw) if decoded is None else Body.of(decoded, raw)


class Upshim:
    """Records and rewrites the update traffic of UC phones."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.recording: Recording | None = None
        self.rewriter = Rewriter(Rules(), Vocabulary.default(), BODY_LIMIT)
        self.upstreams = Upstreams()
        self._watches: WeakKeyDictionary[http.HTTPFlow, Watch] = WeakKeyDictionary()

    def load(self, loader: Loader) -> None:
        """Declare the options."""
        # mitmproxy reads these types at run time and knows Optional only in this spelling.
        loader.add_option("upshim_rules", Optional[str], None, "Rules file (TOML) that says what to rewrite.")  # type: ignore[arg-type]  # noqa: UP045
        loader.add_option("upshim_record", Optional[str], None, "Folder to record every exchange into.")  # type: ignore[arg-type]  # noqa: UP045
        loader.add_option("upshim_pcap", Optional[str], None, "Also write the phones' side as a packet capture.")  # type: ignore[arg-type]  # noqa: UP045
        loader.add_option("upshim_profile", Optional[str], None, "Vocabulary (TOML) added to the built-in one.")  # type: ignore[arg-type]  # noqa: UP045
        loader.add_option("upshim_dry_run", bool, False, "Decide and record, but change nothing.")
        loader.add_option("upshim_body_limit", int, BODY_LIMIT, "Bytes up to which an update check is decoded.")
        loader.add_option("upshim_upstream", Sequence[str], [], "host:port that may be connected to, beside --mode's.")  # type: ignore[arg-type]

    def configure(self, updated: set[str]) -> None:
        """Read the files the options name. Raises `OptionsError` with one line."""
        options = ctx.options
        if updated & {"upshim_rules", "upshim_profile", "upshim_dry_run", "upshim_body_limit"}:
            self.rewriter = load_rewriter(
                options.upshim_rules, options.upshim_profile, options.upshim_body_limit, dry_run=options.upshim_dry_run
            )
        if updated & {"mode", "upshim_upstream"}:
            try:
                self.upstreams = Upstreams.of(options.mode, options.upshim_upstream)
            except ValueError as error:
                raise exceptions.OptionsError(str(error)) from error
        if updated & {"upshim_record", "upshim_pcap"}:
            self.done()
            self._open_recording(options.upshim_record, options.upshim_pcap)

    def done(self) -> None:
        """Write what is still queued."""
        if self.recording is not None:
            self.recording.close()
            self.recording = None

    def _open_recording(self, folder: str | None, pcap: str | None) -> None:
        if pcap and not folder:
            raise exceptions.OptionsError("upshim_pcap needs upshim_record: bodies are taken from the recording")
        if not folder:
            return
        try:
            mirror = PcapMirror(Path(pcap).expanduser()) if pcap else None
            self.recording = Recording(Path(folder).expanduser(), mirror)
        except (StoreError, OSError) as error:
            raise exceptions.OptionsError(
                f"{reason(error)}: {pcap}" if isinstance(error, OSError) else str(error)
            ) from error
        self.recording.on_trouble = partial(self.failures.note, "recording")

    @fail_open
    def server_connect(self, data: ServerConnectionHookData) -> None:
        """Connect to nothing but the configured upstream."""
        address = data.server.address
        if address is not None and not self.upstreams.allow(address[0], address[1]):
            data.server.error = "upshim connects to its own upstream only"
            self.failures.note("refused upstream", f"{address[0]}:{address[1]}")

    @fail_open
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide whether the request is buffered or streams."""
        request = flow.request
        request.stream = True  # whatever happens below, nothing unknown piles up in memory
        is_check = request.method == "POST" and classify(path_of(request.path)) is Resource.UPDATE_HANDLER
        watch = Watch(is_check, Message(headers_of(request)))
        self._watches[flow] = watch
        try:
            length = body_length(request)
        except ValueError as error:
            watch.problems.append(f"request: {error}")
            length = self.rewriter.limit + 1
        if length == 0:
            request.stream = False
        elif not is_check:
            watch.request.stream = request.stream = self._tee()
        elif length is None:
            watch.request.stream = request.stream = self._hold(partial(self._check_held, watch))
        elif length <= self.rewriter.limit:
            request.stream = False
        else:
            watch.problems.append(f"request of {length} bytes is over the limit of {self.rewriter.limit}: not decoded")
            watch.request.stream = request.stream = self._tee()

    @fail_open
    def request(self, flow: http.HTTPFlow) -> None:
        """Decode a buffered update check and, where the rules say so, rewrite it."""
        watch = self._watches.get(flow)
        if watch is None or not watch.is_check or watch.request.stream is not None:
            return
        raw = flow.request.raw_content or b""
        if not raw:
            return
        checked = self.rewriter.check(raw, watch.request.headers)
        edits = checked.decision.rule.request_headers if checked.decision.rule else HeaderEdits()
        self._note_check(watch, checked)
        self._commit(flow.request, watch.request, edits)

    @fail_open
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Decide whether the answer is buffered or streams."""
        response, watch = flow.response, self._watches.get(flow)
        if response is None:
            return
        response.stream = True
        if watch is None:
            return
        watch.response.headers = headers_of(response)
        bodyless = flow.request.method == "HEAD" or response.status_code in {204, 304} or response.status_code < 200
        if bodyless:
            return
        try:
            length = body_length(response)
        except ValueError as error:
            watch.problems.append(f"answer: {error}")
            length = self.rewriter.limit + 1
        if watch.checked is None or watch.checked.phone is None or length == 0:
            watch.response.stream = response.stream = self._tee()
        elif length is None:
            watch.response.stream = response.stream = self._hold(partial(self._answer_held, watch, flow))
        elif length <= self.rewriter.limit:
            response.stream = False
        else:
            watch.problems.append(f"answer of {length} bytes is over the limit of {self.rewriter.limit}: not decoded")
            watch.response.stream = response.stream = self._tee()
        if response.stream:
            self._commit(response, watch.response, self._response_edits(watch))

    @fail_open_async
    async def response(self, flow: http.HTTPFlow) -> None:
        """Rewrite a buffered answer where the rules say so, and record the exchange."""
        watch = self._watches.get(flow)
        if watch is None or flow.response is None:
            return
        if watch.checked is not None and watch.checked.phone is not None and watch.response.stream is None:
            raw = flow.response.raw_content or b""
            if raw:
                watch.response.edited = self._answer(watch, flow, raw)
            self._commit(flow.response, watch.response, self._response_edits(watch))
        await self._record(flow, watch, complete=True)

    @fail_open_async
    async def error(self, flow: http.HTTPFlow) -> None:
        """Record an exchange that broke."""
        watch = self._watches.get(flow)
        if watch is not None:
            watch.problems.append(flow.error.msg if flow.error else "ended early")
            await self._record(flow, watch, complete=False)

    def _tee(self) -> Tee:
        return Tee(self.failures, self.recording)

    def _hold(self, edit: Any) -> Hold:
        return Hold(self.failures, self.rewriter.limit, edit, self._tee())

    def _check_held(self, watch: Watch, raw: bytes) -> bytes:
        checked = self.rewriter.check(raw, watch.request.headers)
        rule = checked.decision.rule
        if rule is not None and rule.request_headers != HeaderEdits():
            watch.problems.append("request headers not edited: they were sent before the chunked body was complete")
        self._note_check(watch, checked)
        return checked.body.sent

    def _note_check(self, watch: Watch, checked: Checked) -> None:
        watch.checked = checked
        watch.request.edited = checked.body
        self._count(checked.body)

    def _answer_held(self, watch: Watch, flow: http.HTTPFlow, raw: bytes) -> bytes:
        if not raw:
            return raw
        watch.response.edited = self._answer(watch, flow, raw)
        return watch.response.edited.sent

    def _answer(self, watch: Watch, flow: http.HTTPFlow, raw: bytes) -> Edited:
        checked = watch.checked or Checked(Edited(b"", b"", None, None))
        address = flow.server_conn.address or ("", 80)
        authority = flow.request.host_header or f"{address[0]}:{address[1]}"
        edited = self.rewriter.answer(raw, watch.response.headers, checked, authority)
        self._count(edited)
        return edited

    def _count(self, edited: Edited) -> None:
        for problem in edited.problems:
            self.failures.note(problem.partition(":")[0], problem)

    def _response_edits(self, watch: Watch) -> HeaderEdits:
        rule = watch.checked.decision.rule if watch.checked is not None else None
        return rule.response_headers if rule is not None else HeaderEdits()

    def _commit(self, message: http.Message, ours: Message, edits: HeaderEdits) -> None:
        """Put what was computed into mitmproxy's message: one assignment for the body, one for the headers."""
        headers = ours.headers
        if not self.rewriter.dry_run:
            headers = edit_headers(headers, edits)
        if ours.edited is not None and ours.edited.changed:
            if "transfer-encoding" not in message.headers:
                headers = edit_headers(headers, HeaderEdits((("Content-Length", str(len(ours.edited.sent))),)))
            message.raw_content = ours.edited.sent
        if headers != ours.headers:
            ours.edited_headers = headers
            message.headers = http.Headers(
                [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            )

    async def _record(self, flow: http.HTTPFlow, watch: Watch, *, complete: bool) -> None:
        del self._watches[flow]
        recording = self.recording
        if recording is None:
            return
        exchange = self._exchange(flow, watch, complete=complete)
        loop = asyncio.get_running_loop()
        recorded: asyncio.Future[None] = loop.create_future()

        def acknowledge(_recorded: bool) -> None:
            loop.call_soon_threadsafe(lambda: recorded.done() or recorded.set_result(None))

        recording.add(exchange, acknowledge)
        # The phone gets the end of its answer once the record of it can no longer be lost, or after a short while.
        try:
            await asyncio.wait_for(recorded, ACKNOWLEDGE_WITHIN)
        except TimeoutError:
            self.failures.note("late record", f"an answer did not wait longer than {ACKNOWLEDGE_WITHIN} s")

    def _exchange(self, flow: http.HTTPFlow, watch: Watch, *, complete: bool) -> Exchange:
        request = request_of(flow.request, watch.request.headers, watch.request.body())
        response = rewritten_request = rewritten_response = None
        if watch.request.changed:
            sent = watch.request.edited_headers or watch.request.headers
            rewritten_request = request_of(flow.request, sent, watch.request.sent_body())
        if flow.response is not None and watch.response.headers:
            response = response_of(flow.response, watch.response.headers, watch.response.body())
            if watch.response.changed:
                sent = watch.response.edited_headers or watch.response.headers
                rewritten_response = response_of(flow.response, sent, watch.response.sent_body())
        ended = flow.response.timestamp_end if flow.response else None
        started = moment(flow.request.timestamp_start)
        exchange = Exchange(
            capture="live",
            index=0,
            connection=flow.client_conn.id,
            client=client_of(flow.client_conn),
            server=server_of(flow.server_conn),
            started=started,
            request_ended=moment_or_none(flow.request.timestamp_end),
            response_started=moment_or_none(flow.response.timestamp_start if flow.response else None),
            ended=moment(ended or (flow.error.timestamp if flow.error else flow.request.timestamp_start)),
            request=request,
            response=response,
            rewritten_request=rewritten_request,
            rewritten_response=rewritten_response,
            complete=complete,
            problems=(*watch.problems, *self._problems(watch.request), *self._problems(watch.response)),
        )
        return exchange.with_facts(self._facts(exchange, watch))

    def _problems(self, message: Message) -> tuple[str, ...]:
        return message.edited.problems if message.edited is not None else ()

    def _facts(self, exchange: Exchange, watch: Watch) -> tuple[Fact, ...]:
        decoded = tuple(
            fact for side in (watch.request, watch.response) if side.edited is not None for fact in side.edited.facts
        )
        return (*decoded, *target_facts(exchange))


def load_rewriter(rules: str | None, profile: str | None, limit: int, *, dry_run: bool) -> Rewriter:
    """Read rules and profile. Raises `OptionsError` with one line that names the file."""
    vocabulary = Vocabulary.default()
    read = Rules()
    try:
        if profile:
            vocabulary = vocabulary.extended(Path(profile).expanduser().read_text("utf-8"))
    except (OSError, UnicodeDecodeError, DissectError) as error:
        raise exceptions.OptionsError(f"{profile}: {reason(error)}") from error
    try:
        if rules:
            read = Rules.parse(Path(rules).expanduser().read_bytes())
    except (OSError, RulesError) as error:
        raise exceptions.OptionsError(f"{rules}: {reason(error)}") from error
    return Rewriter(read, vocabulary, limit, dry_run)


def reason(error: Exception) -> str:
    """An error in one line."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


__all__ = ["Request", "Response", "Upshim"]

addons = [Upshim()]
