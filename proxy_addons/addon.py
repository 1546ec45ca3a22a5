"""The addon; mitmproxy loads it through upshim.py beside this file.

One addon object, so that a failure in one part cannot make mitmproxy skip the others. Every hook is guarded, works on
copies and commits once; on any error the exchange goes on untouched. Update checks up to a limit are buffered,
everything else streams.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional
from weakref import WeakKeyDictionary

from mitmproxy import ctx, exceptions, http
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import TlsData

from captures import flow_request
from captures.base_recording import BaseRecording, Recorder
from captures.errors import StoreError
from captures.exchange import Exchange
from captures.privacy import STORED
from dissectors.update_urls import Resource, classify, path_of
from dissectors.vocabulary import Vocabulary
from proxy_addons import phone_events
from proxy_addons.answers import Answers, within
from proxy_addons.check import Check
from proxy_addons.failures import Failures, fail_open, fail_open_async
from proxy_addons.flows import body_length, headers_of, moment
from proxy_addons.folder_ledger import FolderLedger
from proxy_addons.forwarded import Fronts
from proxy_addons.health import PATH, health_answer, is_health_check
from proxy_addons.history import Histories
from proxy_addons.kill_switch import KillSwitch
from proxy_addons.log_lines import event, log_decision
from proxy_addons.metrics import Metrics
from proxy_addons.open_recording import mirror_at, open_recording
from proxy_addons.package_watch import PackageWatch
from proxy_addons.policy import NO_EDITS
from proxy_addons.rewriter import Checked, Edited, Rewriter, edit_headers
from proxy_addons.rewriter_files import Stamps, load_rewriter, reason, stamps
from proxy_addons.rules import HeaderEdits, Rules
from proxy_addons.streams import Hold, Tee
from proxy_addons.upstream_tls import tls_context
from proxy_addons.upstream_watch import UpstreamWatch
from proxy_addons.upstreams import Upstreams, origins_of
from proxy_addons.watch import Message, Watch, exchange_of

if TYPE_CHECKING:
    from proxy_addons.ledger import Ledger

logger = logging.getLogger("upshim")

BODY_LIMIT = 1 << 20  # update checks are a few KiB
SMALL_BODY = 64 << 10  # bodies up to here are always decoded
MAX_HELD = 64 << 20  # bytes that all larger ones together may take while they are held
ACKNOWLEDGE_WITHIN = 0.5  # seconds an answer may wait for its record; then it goes on without
LOOK_EVERY = 1.0  # seconds between looks at the rules file and the profile

TEXT: Any = Optional[str]  # noqa: UP045 - mitmproxy looks types up at run time and knows this spelling only
OPTIONS: tuple[tuple[str, Any, Any, str], ...] = (
    ("upshim_rules", TEXT, None, "Rules file (TOML) that says what to rewrite."),
    ("upshim_record", TEXT, None, "Folder, or URL of a PostgreSQL database, to record every exchange into."),
    ("upshim_state", TEXT, None, "Folder for what waits for a database, and for what was stopped by command."),
    ("upshim_pcap", TEXT, None, "Also write the phones' side of the recording as a packet capture."),
    ("upshim_pcap_bytes", int, 0, "Bytes above which the oldest packets are removed; 0: no limit."),
    ("upshim_store", str, STORED[0], f"What is stored of an exchange: {', '.join(STORED)}."),
    ("upshim_store_users", bool, False, "Keep who signs in at a phone, too, as its update checks tell."),
    ("upshim_keep_days", int, 0, "Days after which recorded exchanges are removed; 0: never."),
    ("upshim_keep_bytes", int, 0, "Bytes above which the oldest recorded exchanges are removed; 0: no limit."),
    ("upshim_profile", TEXT, None, "Vocabulary (TOML) added to the built-in one."),
    ("upshim_dry_run", bool, False, "Decide and record, but change nothing."),
    ("upshim_kill_switch", TEXT, None, "While this file exists nothing is rewritten."),
    ("upshim_body_limit", int, BODY_LIMIT, "Bytes up to which an update check is decoded."),
    ("upshim_health", str, PATH, "Path of the health check of a load balancer in front; empty: none."),
    ("upshim_upstream", Sequence[str], [], "host:port that may be connected to, beside that of --mode."),
    ("upshim_trust_forwarded", Sequence[str], [], "Fronts (address, network) whose X-Forwarded-For is true."),
)


class Upshim:
    """Records and rewrites the update traffic of UC phones."""

    def __init__(self, *, views: bool = True) -> None:
        """`views`: whether somebody may look at bodies in mitmproxy's own windows."""
        self._views = views
        self.failures = Failures()
        self.recording: Recorder | None = None
        self.rewriter = Rewriter(Rules(), Vocabulary.default(), BODY_LIMIT)
        self.fronts = Fronts()
        self.upstreams = Upstreams()
        self.metrics = Metrics(self)
        self.draining = False
        self._health = PATH
        self.packages: PackageWatch | None = PackageWatch()  # None where there is no server to ask
        self.upstream_watch = UpstreamWatch(self.failures, lambda: tls_context(ctx.options))
        self._acknowledgements: Answers[bool | None] = Answers()
        self._held = 0  # bytes that larger bodies take, or may take
        self.histories: Histories | None = Histories()  # of this process, or what a recording tells
        self.ledger: FolderLedger | Ledger | None = None  # decides where there is a recording
        self.rules_loaded = time.time()  # when those in force came into force
        self.rules_refused = False  # whether a newer file was not taken
        self.kill_switch = KillSwitch()
        self._fetching: WeakKeyDictionary[http.HTTPFlow, str] = WeakKeyDictionary()
        self._watches: WeakKeyDictionary[http.HTTPFlow, Watch] = WeakKeyDictionary()
        self._stamps: Stamps = ()
        self._looking: asyncio.Task[None] | None = None

    def load(self, loader: Loader) -> None:
        """Declare the options and the content views."""
        for name, typespec, default, explanation in OPTIONS:
            loader.add_option(name, typespec, default, explanation)
        if self._views:
            from proxy_addons import contentviews  # noqa: PLC0415 - with everything that reads certificates and cabinets

            contentviews.register()

    def configure(self, updated: set[str]) -> None:
        """Read the files the options name. Raises `OptionsError` with one line."""
        options = ctx.options
        if updated & {"upshim_rules", "upshim_profile", "upshim_dry_run", "upshim_body_limit", "upshim_store_users"}:
            self._load_rewriter()
        if "upshim_state" in updated:
            self.kill_switch.keep_in(Path(options.upshim_state).expanduser() if options.upshim_state else None)
        if "upshim_kill_switch" in updated:
            path = options.upshim_kill_switch
            try:
                self.kill_switch.watch(Path(path).expanduser() if path else None)
            except OSError as error:
                raise exceptions.OptionsError(f"upshim_kill_switch: {path}: {reason(error)}") from error
        self._health = options.upshim_health
        if updated & {"mode", "upshim_upstream"}:
            try:
                self.upstreams = Upstreams.of(options.mode, options.upshim_upstream)
            except ValueError as error:
                raise exceptions.OptionsError(str(error)) from error
            self.upstream_watch.configure(origins_of(options.mode))
            if self.packages is not None:
                self.packages.configure(self.upstreams, options.mode)
        if "upshim_trust_forwarded" in updated:
            try:
                self.fronts = Fronts.of(options.upshim_trust_forwarded)
            except ValueError as error:
                raise exceptions.OptionsError(f"upshim_trust_forwarded: {error}") from error
        if updated & {
            "upshim_record",
            "upshim_state",
            "upshim_pcap",
            "upshim_pcap_bytes",
            "upshim_store",
            "upshim_keep_days",
            "upshim_keep_bytes",
        }:
            self._close_recording()
            self._open_recording(options.upshim_record, options.upshim_pcap)

    def running(self) -> None:
        """Watch the rules file and the profile from now on."""
        options = ctx.options
        rewritten = "keep_host_header" in options and not options.keep_host_header
        if rewritten and any(mode.startswith("reverse:") for mode in options.mode):
            logger.warning("upshim: the server does not see the phones' Host header: --set keep_host_header=true")
        self._look_for_packages()
        self._looking = asyncio.get_running_loop().create_task(self._look_after_files())

    def done(self) -> None:
        """Write what is still queued."""
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        self.upstream_watch.close()
        if self.packages is not None:
            self.packages.files.close()
        self._close_recording()

    def reload(self) -> None:
        """Read rules and profile again; with a mistake in one of them the old ones stay in force."""
        try:
            self._load_rewriter()
        except exceptions.OptionsError as error:
            # After start-up an error in the log ends nothing.
            logger.error(  # noqa: TRY400 - a mistake in a file, not in us
                "upshim: the old rules stay in force: %s", error, extra=event("rules", refused=str(error))
            )
            self.failures.counts["rules refused"] += 1
            self.rules_refused = True

    def why_stopped(self) -> str:
        """What has switched all rewriting off; blank where nothing has."""
        if isinstance(self.recording, BaseRecording) and self.recording.journal_failed:
            return "the journal cannot be written"
        return self.kill_switch.why()

    async def _look_after_files(self) -> None:
        await self._look_at_recording()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._stamps != stamps(ctx.options.upshim_rules, ctx.options.upshim_profile):
                self.reload()
            self.failures.tell_growth(time.monotonic())
            self.kill_switch.why()  # tells what has changed
            self._look_for_packages()
            await self._look_at_recording()

    async def _look_at_recording(self) -> None:
        try:
            if self.ledger is not None:
                await self.ledger.look()
                self.histories = self.ledger.histories
        except Exception as error:  # noqa: BLE001 - the look at the rules file goes on
            self.failures.exception(error)

    def _look_for_packages(self) -> None:
        try:
            if self.packages is not None:
                self.packages.look_after(self.rewriter.rules)
        except Exception as error:  # noqa: BLE001 - the look at the rules file goes on
            self.failures.exception(error)

    def _load_rewriter(self) -> None:
        options = ctx.options
        # Taken before reading: a change in between is seen at the next look.
        self._stamps = stamps(options.upshim_rules, options.upshim_profile)
        self.rewriter = load_rewriter(
            options.upshim_rules,
            options.upshim_profile,
            options.upshim_body_limit,
            dry_run=options.upshim_dry_run,
            users=options.upshim_store_users,
        )
        if options.upshim_rules:
            rules = self.rewriter.rules
            told = event("rules", rules=len(rules.rules), sha256=rules.sha256)
            logger.info("upshim: %d rules in force (sha256 %s)", len(rules.rules), rules.sha256, extra=told)
        self.rules_loaded, self.rules_refused = time.time(), False

    def _close_recording(self) -> None:
        if self.ledger is not None:
            self.ledger.close()
            self.ledger, self.histories = None, Histories()
        if self.recording is not None:
            self.recording.close()
            self.recording = None

    def _open_recording(self, place: str | None, pcap: str | None) -> None:
        if pcap and not place:
            raise exceptions.OptionsError("upshim_pcap needs upshim_record: bodies are taken from the recording")
        if not place:
            return
        try:
            mirror = mirror_at(Path(pcap).expanduser(), max(0, ctx.options.upshim_pcap_bytes)) if pcap else None
            self.recording, self.ledger = open_recording(place, mirror, self.failures)
        except (StoreError, OSError) as error:
            raise exceptions.OptionsError(
                f"{reason(error)}: {pcap}" if isinstance(error, OSError) else str(error)
            ) from error
        self.recording.on_trouble = partial(self.failures.note, "recording")
        self.histories = self.ledger.histories

    @fail_open
    def server_connect(self, data: ServerConnectionHookData) -> None:
        """Connect to nothing but the configured upstream."""
        address = data.server.address
        if address is not None and not self.upstreams.allow(address[0], address[1]):
            data.server.error = "upshim connects to its own upstream only"
            self.failures.note("refused upstream", f"{address[0]}:{address[1]}")

    @fail_open
    def server_connect_error(self, _data: ServerConnectionHookData) -> None:
        """See whether the server can be reached at all."""
        self.upstream_watch.failed()

    @fail_open
    def tls_failed_server(self, _data: TlsData) -> None:
        """Likewise."""
        self.upstream_watch.failed()

    @fail_open
    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Decide whether the request is buffered or streams."""
        request = flow.request
        if is_health_check(request, self._health):
            flow.response = health_answer(draining=self.draining, unreachable=bool(self.upstream_watch.unreachable))
            return
        request.stream = True  # whatever happens below, nothing unknown piles up in memory
        path = path_of(flow_request.path_of(request))
        is_check = flow_request.method_of(request) == "POST" and classify(path) is Resource.UPDATE_HANDLER
        headers = headers_of(request)
        watch = Watch(is_check, Message(headers), self.fronts.client(flow.client_conn.peername[0], headers))
        self._watches[flow] = watch
        self._look_for_fetch(watch, flow)
        try:
            length = body_length(headers, of_request=True)
        except ValueError as error:
            watch.problems.append(f"request: {error}")
            length = self.rewriter.limit + 1
        if length == 0:
            request.stream = False
        elif not is_check:
            watch.request.stream = request.stream = self._tee()
        else:
            edit = partial(self._check_held, watch, flow)
            watch.request.stream = self._stream_to_decode("request", length, edit, watch)
            request.stream = watch.request.stream or False

    @fail_open_async
    async def request(self, flow: http.HTTPFlow) -> None:
        """Decode a buffered update check and, where the rules say so, rewrite it."""
        watch = self._watches.get(flow)
        if watch is None or not watch.is_check or watch.request.stream is not None:
            return
        raw = flow.request.raw_content or b""
        if not raw:
            return
        began = time.perf_counter()
        try:
            check = self._checker(watch, flow, raw)
            checked = check.now() if self.ledger is None else await self.ledger.decide(watch.uid, check)
        except Exception as error:  # noqa: BLE001 - a decoder's fault costs the decoding, not the exchange or its record
            checked = self._not_decoded(raw, error)
        self._checked(watch, flow, checked, began)
        self._commit(flow.request, watch.request, checked.decision.request_headers)

    @fail_open
    def responseheaders(self, flow: http.HTTPFlow) -> None:
        """Decide whether the answer is buffered or streams."""
        response, watch = flow.response, self._watches.get(flow)
        if response is None:
            return
        response.stream = True
        if watch is None:
            return
        watch.response.headers, watch.response.seen = headers_of(response), True
        bodyless = flow.request.method == "HEAD" or response.status_code in {204, 304} or response.status_code < 200
        if bodyless:
            return
        try:
            length = body_length(watch.response.headers, of_request=False)
        except ValueError as error:
            watch.problems.append(f"answer: {error}")
            length = self.rewriter.limit + 1
        if watch.checked is None or watch.checked.phone is None or length == 0:
            watch.response.stream = response.stream = self._tee()
        else:
            edit = partial(self._answer_held, watch, flow)
            watch.response.stream = self._stream_to_decode("answer", length, edit, watch)
            response.stream = watch.response.stream or False
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
                self._answer(watch, flow, raw)
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

    def _stream_to_decode(
        self, side: str, length: int | None, edit: Callable[[bytes], bytes], watch: Watch
    ) -> Tee | Hold | None:
        """How a body that is to be decoded passes: None where it is short enough for mitmproxy to buffer it."""
        limit = self.rewriter.limit
        wanted = limit if length is None else min(length, limit)
        if wanted > SMALL_BODY and (length is None or length <= limit):
            if self._held + wanted > MAX_HELD:
                limit = SMALL_BODY  # many large ones at once: this one passes as it is
            else:
                self._held += wanted
                watch.held += wanted
        if length is None:
            return Hold(self.failures, limit, edit, self._tee())
        if length <= limit:
            return None
        watch.problems.append(f"{side} of {length} bytes is over the limit of {limit}: not decoded")
        return self._tee()

    def _look_for_fetch(self, watch: Watch, flow: http.HTTPFlow) -> None:
        address, now = watch.address, moment(flow.request.timestamp_start)
        method, path = flow_request.method_of(flow.request), flow_request.path_of(flow.request)
        identity = None
        if self.ledger is not None:
            identity = self.ledger.fetching(watch.uid, method, path, address, now)
        elif self.histories is not None:
            identity = phone_events.fetching(self.histories, method, path, address, now)
        if identity is not None:
            self._fetching[flow] = identity

    def _note_end(self, flow: http.HTTPFlow, exchange: Exchange) -> None:
        """Tell the history what came of an update check or a download."""
        identity = self._fetching.pop(flow, None)
        try:
            if self.ledger is not None:
                self.ledger.ended(identity, exchange)
            elif self.histories is None:
                return
            elif identity is not None:
                phone_events.fetched(self.histories, identity, exchange)
            else:
                phone_events.answered(self.histories, exchange)
        except Exception as error:  # noqa: BLE001 - the record of an exchange does not depend on it
            self.failures.exception(error)

    def _checker(self, watch: Watch, flow: http.HTTPFlow, raw: bytes) -> Check:
        # Local time, for rules speak of times of day; that of the exchange, so that a replay decides as of then.
        now = moment(flow.request.timestamp_start).astimezone()
        files = self.packages.look_for(flow.request) if self.packages is not None else None
        message = raw, watch.request.headers, watch.address
        return Check(self.rewriter, message, now, self.why_stopped(), files, None if self.ledger else self.histories)

    def _not_decoded(self, raw: bytes, error: Exception) -> Checked:
        self.failures.exception(error)
        return Checked(Edited.untouched(raw, "request not decoded: fault in upshim"))

    def _checked(self, watch: Watch, flow: http.HTTPFlow, checked: Checked, began: float) -> None:
        watch.checked, watch.request.edited = checked, checked.body
        self._count(checked.body)
        self.metrics.checked(checked, time.perf_counter() - began, dry_run=self.rewriter.dry_run)
        log_decision(checked, flow.client_conn.id, dry_run=self.rewriter.dry_run)

    def _check_held(self, watch: Watch, flow: http.HTTPFlow, raw: bytes) -> bytes:
        began = time.perf_counter()
        try:
            check = self._checker(watch, flow, raw)
            checked = check.now() if self.ledger is None else self.ledger.decide_now(watch.uid, check)
        except Exception as error:  # noqa: BLE001 - as above
            checked = self._not_decoded(raw, error)
        self._checked(watch, flow, checked, began)
        if checked.decision.request_headers != HeaderEdits():
            watch.problems.append("request headers not edited: they were sent before the chunked body was complete")
        return checked.body.sent

    def _answer_held(self, watch: Watch, flow: http.HTTPFlow, raw: bytes) -> bytes:
        return self._answer(watch, flow, raw).sent if raw else raw

    def _answer(self, watch: Watch, flow: http.HTTPFlow, raw: bytes) -> Edited:
        address = flow.server_conn.address or ("", 80)
        began = time.perf_counter()
        authority = flow.request.host_header or f"{address[0]}:{address[1]}"
        try:
            checked = watch.checked or Checked(Edited.untouched(b""))
            edited = self.rewriter.answer(raw, watch.response.headers, checked, authority)
        except Exception as error:  # noqa: BLE001 - as above
            self.failures.exception(error)
            edited = Edited.untouched(raw, "answer not decoded: fault in upshim")
        watch.response.edited = edited
        self._count(edited)
        self.metrics.answered(time.perf_counter() - began)
        return edited

    def _count(self, edited: Edited) -> None:
        for problem in edited.problems:
            cause, _, detail = problem.partition(": ")
            self.failures.note(cause, detail)

    def _response_edits(self, watch: Watch) -> HeaderEdits:
        return watch.checked.decision.response_headers if watch.checked is not None else NO_EDITS

    def _commit(self, message: http.Message, ours: Message, edits: HeaderEdits) -> None:
        """Put what was computed into mitmproxy's message: one assignment for the body, one for the headers."""
        changed = ours.edited is not None and ours.edited.changed
        if not changed and (edits is NO_EDITS or self.rewriter.dry_run):
            return
        # mitmproxy's own changes stay: an Expect it has answered must not be sent on.
        current = headers_of(message)
        headers = current if self.rewriter.dry_run else edit_headers(current, edits)
        if changed and ours.edited is not None:
            if "transfer-encoding" not in message.headers:
                headers = edit_headers(headers, HeaderEdits((("Content-Length", str(len(ours.edited.sent))),)))
            message.raw_content = ours.edited.sent
        if headers != current:
            ours.edited_headers = headers
            message.headers = http.Headers(
                [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
            )

    async def _record(self, flow: http.HTTPFlow, watch: Watch, *, complete: bool) -> None:
        del self._watches[flow]
        self._held -= watch.held
        self.metrics.exchange(flow, watch, complete=complete)
        exchange = exchange_of(flow, watch, complete=complete)
        self._note_end(flow, exchange)
        recording = self.recording
        if recording is None:
            return
        recorded, acknowledge = self._acknowledgements.expected()
        recording.add(exchange, acknowledge, watch.uid)
        # The phone gets the end of its answer once the record of it can no longer be lost, or after a short while.
        began = time.perf_counter()
        if await within(recorded, ACKNOWLEDGE_WITHIN, None) is None:
            self.failures.note("late record", f"an answer did not wait longer than {ACKNOWLEDGE_WITHIN} s")
        self.metrics.recorded(time.perf_counter() - began)
