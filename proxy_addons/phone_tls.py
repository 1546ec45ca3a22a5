"""TLS with the phones: the certificate they are shown, old versions where asked for, and what cannot be served.

A phone that cannot be served, or is not ours to serve, is passed on as it is where the server speaks TLS itself: it is
then no worse off than without upshim.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from mitmproxy.addons import next_layer
from mitmproxy.proxy import layer
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ServerTLSLayer, TCPLayer
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.tls import parse_client_hello
from mitmproxy.proxy.mode_specs import ReverseMode, TransparentMode
from mitmproxy.proxy.tunnel import LayerStack
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from captures.exchange import endpoint
from proxy_addons.failures import Failures, fail_open
from proxy_addons.hello import (
    Offered,
    SslV2ClientTls,
    Verdicts,
    can_do,
    is_sslv2,
    is_tls,
    looks_like_http,
    may_become_more,
    may_become_tls,
    sslv2_size,
    suite_names,
)
from proxy_addons.log_lines import event
from proxy_addons.phone_identity import Identity, IdentityError, load_identity, utc_now
from proxy_addons.upstream_url import is_address
from proxy_addons.via import Via

logger = logging.getLogger("upshim")

LOOK_EVERY = 1.0  # seconds between looks at the file
MAX_HELLO = 64 << 10
REMEDY = "`upshim deploy lighttpd` prints a terminator that can"
NO_REMEDY = "the phone has to be told to use TLS 1.0: nothing of today speaks this"


class PhoneTls(next_layer.NextLayer):
    """An addon in place of mitmproxy's NextLayer, and before its TlsConfig, which takes over where it says nothing."""

    def __init__(
        self, failures: Failures, file: Path | None = None, oldest: str = "1.2", via: Via | None = None
    ) -> None:
        """Raises `IdentityError`."""
        super().__init__()
        self.failures = failures
        self.identity: Identity | None = None
        self._file, self._oldest, self._via = file, oldest, via
        self._stamp = stamp(file)
        self._looking: asyncio.Task[None] | None = None
        self._context: SSL.Context | None = None
        self._verdicts: Verdicts | None = None
        self._expired = False
        self.refused = False  # the file as it is now
        if file is not None:
            self._take(load_identity(file))

    def running(self) -> None:
        """Tell what phones are served, and watch the file from now on."""
        # mitmproxy has a line for each handshake that fails; ours are counted, and told once per cause.
        logging.getLogger("mitmproxy.proxy.server").addFilter(not_of_handshakes)
        if self._file is None or self.identity is None:
            return
        logger.info("upshim: %s", self.statement())
        self._looking = asyncio.get_running_loop().create_task(self._look_after_file())

    def done(self) -> None:
        """Watch no longer."""
        logging.getLogger("mitmproxy.proxy.server").removeFilter(not_of_handshakes)
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def statement(self) -> str:
        """What works with the OpenSSL at hand, and what cannot."""
        library = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
        cannot = [name for name, ciphers in (("RC4", b"RC4-SHA"), ("3DES", b"DES-CBC3-SHA")) if not can_do(ciphers)]
        return (
            f"TLS with phones from version {self._oldest} on by {library}; not SSL 3.0 or 2"
            f"{', nor ' + ', '.join(cannot) + f' ({REMEDY})' if cannot else ''}"
        )

    def expires(self) -> float:
        """When phones will refuse the certificate they are shown, in seconds since 1970; 0 without one."""
        return 0.0 if self.identity is None else self.identity.leaf.not_valid_after_utc.timestamp()

    def reload(self) -> None:
        """Read the file again; where it cannot be used the old certificate stays."""
        if self._file is None:
            return
        self._stamp = stamp(self._file)
        try:
            self._take(load_identity(self._file))
            self.refused = False
        except IdentityError as error:
            self.refused = True
            # After start-up an error in the log ends nothing.
            logger.error(  # noqa: TRY400 - a mistake in a file, not in us
                "upshim: the old certificate stays in force: %s", error, extra=event("certificate", refused=str(error))
            )
            self.failures.counts["certificate refused"] += 1

    def _take(self, identity: Identity) -> None:
        context = identity.context(self._oldest)  # all of it, or nothing
        self.identity, self._context, self._verdicts = identity, context, Verdicts(context)
        self._expired = utc_now() > identity.leaf.not_valid_after_utc
        told = event("certificate", file=str(identity.file), summary=identity.summary())
        logger.info("upshim: phones are shown %s: %s", identity.file, identity.summary(), extra=told)
        for concern in identity.concerns(utc_now()):
            logger.warning("upshim: %s: %s", identity.file, concern)

    async def _look_after_file(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                if stamp(self._file) != self._stamp:
                    self.reload()
                if self.identity and not self._expired and utc_now() > self.identity.leaf.not_valid_after_utc:
                    self._expired = True
                    logger.warning("upshim: %s: its certificate has expired: phones refuse it", self.identity.file)
            except Exception as error:  # noqa: BLE001 - the next look may do better
                self.failures.exception(error)

    def next_layer(self, data: layer.NextLayer) -> None:
        """Pass on what is not ours; what is left to mitmproxy is HTTP, or TLS that we serve."""
        waiting = False
        try:
            if data.layer is None:
                waiting = self._look_within(data) if data.context.client.tls else self._look(data)
        except Exception as error:  # noqa: BLE001 - mitmproxy goes on by itself
            self.failures.exception(error)
        if not waiting:
            super().next_layer(data)

    def _look_within(self, data: layer.NextLayer) -> bool:
        """The same within TLS that we serve."""
        first = data.data_client()
        if isinstance(data.context.client.proxy_mode, TransparentMode) and not looks_like_http(first):
            if may_become_more(first):
                return True
            data.layer = TCPLayer(data.context, ignore=True)  # mitmproxy's own keeps every byte as long as it lasts
        return False

    def _look(self, data: layer.NextLayer) -> bool:
        """Decide by what came first; True where more has to come."""
        context, first = data.context, data.data_client()
        mode = context.client.proxy_mode
        if isinstance(mode, TransparentMode):
            secure = True  # at least, the server is what the phone takes it for
        elif isinstance(mode, ReverseMode):
            secure = mode.scheme == "https"
            if secure and not is_address(mode.address[0]):
                context.server.sni = mode.address[0]  # its certificate is for the name it was configured by
        else:
            return False
        if may_become_tls(first):
            return True
        if is_sslv2(first):
            return self._look_at_sslv2_hello(data, secure)
        if is_tls(first):
            return self._look_at_hello(data, secure)
        if isinstance(mode, TransparentMode) and (data.data_server() or not looks_like_http(first)):
            if not data.data_server() and may_become_more(first):
                return True
            self._pass_on(data)
        return False

    def _look_at_hello(self, data: layer.NextLayer, secure: bool) -> bool:
        first = data.data_client()
        try:
            if len(first) > MAX_HELLO:
                raise ValueError
            hello = parse_client_hello(first)
        except ValueError:
            if secure:
                self._pass_on(data)
            return False
        if hello is None:
            return True
        self._serves(data, Offered.of(hello), hello.sni or "", secure=secure)  # by what mitmproxy makes of it
        return False

    def _look_at_sslv2_hello(self, data: layer.NextLayer, secure: bool) -> bool:
        first = data.data_client()
        if len(first) < sslv2_size(first):
            return True
        if self._serves(data, Offered.of_sslv2(first), "", secure=secure):
            # What mitmproxy makes for the other framing, but for the layer that would read the hello.
            stack = LayerStack()
            if secure:
                stack /= ServerTLSLayer(data.context)
            stack /= SslV2ClientTls(data.context)
            if isinstance(data.context.client.proxy_mode, ReverseMode):
                stack /= next_layer.HttpLayer(data.context, HTTPMode.transparent)  # type: ignore[attr-defined]
            data.layer = stack[0]
        return False

    def _serves(self, data: layer.NextLayer, offered: Offered, name: str, *, secure: bool) -> bool:
        """Whether we serve it; where not, what is to be done has been."""
        context = data.context
        if self.identity is None or self._verdicts is None:
            if secure:
                self._note("TLS passed on unseen", context, "there is no --certs")
                self._pass_on(data)
            return False
        if secure and name and not self.identity.covers(name):
            self._note("TLS for another name passed on", context, name)
        elif not self._verdicts.can_serve(data.data_client()):
            self._note(*self._why(offered, context))
        else:
            return True
        if secure:
            self._pass_on(data)
        return False

    def _why(self, offered: Offered, context: Context) -> tuple[str, Context, str]:
        needed = offered.newest.removeprefix("TLS ")
        if offered.newest in {"SSL 2", "SSL 3.0"}:
            return f"a hello of {offered.newest} cannot be served", context, NO_REMEDY
        if needed < self._oldest:
            return f"a hello of {offered.newest} is not served", context, f"--tls-oldest {needed} would"
        return "no cipher in common with a phone", context, f"{offered.newest}, {suite_names(offered.suites)}: {REMEDY}"

    def _note(self, cause: str, context: Context, detail: str) -> None:
        self.failures.note(cause, f"{endpoint(*context.client.peername[:2])}: {detail}")

    def _pass_on(self, data: layer.NextLayer) -> None:
        stack = self._via.tunnel(data.context) if self._via is not None else None
        if stack is None:
            data.layer = TCPLayer(data.context, ignore=True)
        else:
            stack /= TCPLayer(data.context, ignore=True)
            data.layer = stack[0]

    @fail_open
    def tls_start_client(self, data: TlsData) -> None:
        """Serve by our certificate."""
        if data.ssl_conn is None and self._context is not None:
            data.ssl_conn = SSL.Connection(self._context, None)
            data.ssl_conn.set_accept_state()

    @fail_open
    def tls_failed_client(self, data: TlsData) -> None:
        """Count; what the phone did not like is in the detail."""
        self._note("TLS with a phone failed", data.context, data.conn.error or "ended early")

    @fail_open
    def tls_failed_server(self, data: TlsData) -> None:
        """Count; it is a matter of --server-ca, --server-insecure or --server-tls-oldest."""
        address = data.context.server.address or ("?", 0)
        self.failures.note(
            "TLS with the server failed", f"{endpoint(*address[:2])}: {data.conn.error or 'ended early'}"
        )


def not_of_handshakes(record: logging.LogRecord) -> bool:
    """A filter of log lines."""
    return "TLS handshake failed" not in str(record.msg)


def stamp(file: Path | None) -> tuple[int, int, int] | None:
    """What tells a file from a changed one."""
    try:
        status = file.expanduser().stat() if file is not None else None
    except OSError:
        return None
    return status and (status.st_ino, status.st_size, status.st_mtime_ns)
