"""The behaviour of a phone, without sockets or clocks: it asks for actions and is told what came of them.

boot -> find the server -> check -> (offer -> download -> verify -> install) -> reboot -> boot
                        \\-> nothing new -> wait for the next poll -> check
                        \\-> nothing new, old firmware -> crash -> reboot -> boot
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from dissectors.errors import DissectError
from dissectors.installed_module import NOTHING_INSTALLED, InstalledModule
from dissectors.update_status import LastUpdateStatus
from dissectors.version import ZERO, Version
from tools.ucphone.actions import NOTHING, Action, Disconnect, Download, Get, Pause, Post, Reply
from tools.ucphone.events import EventSink, Kind, PhoneEvent
from tools.ucphone.firmware import crashes_after_sign_in, looks_up_the_server
from tools.ucphone.identity import Pace, PhoneIdentity, PhoneOptions
from tools.ucphone.messages import OfferedFile, read_answer, write_check

INTERNAL_PATH = "/RequestHandler/ucdevice.upx"
EXTERNAL_PATH = "/RequestHandlerExt/ucdevice.upx"

MAX_ATTEMPTS = 50  # of one file, however much each of them brings
MAX_FRUITLESS = 3  # in a row

_INVALID_SERVER_RESPONSE = 12152
_INVALID_URL = 12005

Steps = Generator[Action, Reply, None]


def check_url(server: str, *, external: bool = False) -> str:
    """The update handler's URL: `server` itself where it names one, else the documented path on it.

    Raises `ValueError` where it is no http or https URL, or one with a login, which would not be sent.
    """
    parts = urlsplit(server)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError(f"not an http or https URL: {server!r}")
    if parts.path.lower().endswith(".upx"):
        return server
    return server.rstrip("/") + (EXTERNAL_PATH if external else INTERNAL_PATH)


def installed_module(version: Version, timestamp: str = "01-01-2008 00:00:00") -> InstalledModule:
    """The one module a phone reports: its image, or nothing installed for the zero version."""
    return NOTHING_INSTALLED if version == ZERO else InstalledModule("CPE.nbt", version, timestamp)


class Phone:
    """One phone. `life` is its behaviour: actions out, replies in; `on_event` hears of everything that happens.

    `version` is what it runs, `status` its last update status. Raises `ValueError` for a URL that is none.
    """

    def __init__(
        self,
        server: str,
        version: Version,
        identity: PhoneIdentity | None = None,
        *,
        pace: Pace | None = None,
        options: PhoneOptions | None = None,
        on_event: EventSink = lambda _event: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.identity = identity or PhoneIdentity()
        self.pace = pace or Pace()
        self.options = options or PhoneOptions()
        self.url = check_url(server, external=self.options.external)
        self.modules = [installed_module(version)]
        self.status: LastUpdateStatus = NOTHING.last_update_status
        self.checks = 0
        self._on_event = on_event
        self._clock = clock

    @property
    def version(self) -> Version:
        """What is installed."""
        return self.modules[0].version or ZERO

    def tell(self, kind: Kind, text: str, **data: Any) -> None:
        """Tell an event."""
        event = PhoneEvent(self._clock(), self.identity.name, kind, text, {"version": str(self.version), **data})
        self._on_event(event)

    def life(self) -> Steps:
        """From power-on to the last poll asked for. The reply to a `Pause` or `Disconnect` is ignored."""
        while True:
            self._boot()
            restart = False
            while not restart:
                restart = yield from self._poll()
                if self.checks == self.options.polls:
                    self.tell(Kind.END, f"after {self.checks} checks, on {self.version}", checks=self.checks)
                    yield Disconnect()
                    return
                yield Disconnect()
                if not restart:
                    self.tell(Kind.WAIT, f"next poll in {self.pace.poll / 3600:g} h of the phone's clock")
                    yield Pause(self.pace.poll_wait)
            self.tell(Kind.REBOOT, "restarts")
            yield Pause(self.pace.reboot_wait)

    def _boot(self) -> None:
        self.tell(Kind.BOOT, f"starts with {self.version}")
        if looks_up_the_server(self.version):
            name = f"ucupdates-r2.{self.options.domain}"
            self.tell(Kind.LOOKUP, f"DNS A {name}: {urlsplit(self.url).hostname}", name=name, url=self.url)
        elif self.version == ZERO:
            self.tell(Kind.LOOKUP, f"nothing installed, taken to {urlsplit(self.url).hostname}", url=self.url)
        else:
            self.tell(Kind.SIGN_IN, "no DNS lookup in this firmware; signs in and is told the URL", url=self.url)

    def _poll(self) -> Generator[Action, Reply, bool]:
        """One check and what follows; True where the phone is to restart."""
        wanted = [offer for offer in (yield from self._check()) if self._wants(offer)]
        if wanted and (yield from self._update(wanted)):
            return True
        if self._crashes():
            self.tell(Kind.CRASH, "crashes near the end of the sign-in")
            return True
        return False

    def _crashes(self) -> bool:
        return crashes_after_sign_in(self.version)

    def _check(self) -> Generator[Action, Reply, list[OfferedFile]]:
        self.checks += 1
        self.tell(Kind.CHECK, f"POST {self.url}: reports {self.version}", number=self.checks)
        reply = yield Post(self.url, write_check(self.identity, self.modules, self._reported_status()))
        self.status = reply.last_update_status
        if not self.status.ok:
            self._tell_failure("check", reply.detail)
            return []
        if not reply.body.strip():
            self.tell(
                Kind.NO_UPDATE,
                f"{self.status.text}: is answered with an empty body",
                status=self.status.text,
                offered=[],
            )
            return []
        try:
            offers = read_answer(reply.body, reply.content_type, external=self.options.external)
        except DissectError as error:
            self._fail(_INVALID_SERVER_RESPONSE, f"answer not understood: {error}")
            return []
        names = [f"{offer.version} ({offer.file_name})" for offer in offers]
        if not any(self._wants(offer) for offer in offers):
            text = f"nothing but {', '.join(names)}" if names else "nothing"
            self.tell(Kind.NO_UPDATE, f"{self.status.text}: is offered {text}", status=self.status.text, offered=names)
            return []
        self.tell(Kind.OFFER, f"is offered {', '.join(names)}", status=self.status.text, offered=names)
        return offers

    def _wants(self, offer: OfferedFile) -> bool:
        same_file = [module for module in self.modules if module.file_name == offer.file_name]
        installed = next((module.version or ZERO for module in (*same_file, *self.modules)), ZERO)
        return offer.version > installed if self.options.only_newer else offer.version != installed

    def _update(self, offers: list[OfferedFile]) -> Generator[Action, Reply, bool]:
        """Download and verify every file, then install them all; True where that is done."""
        for offer in offers:
            if not offer.folder:
                self.tell(Kind.REFUSED, f"{offer.version} is offered without a URL to fetch it from")
                return False
            if not offer.signature_file_name:
                self.tell(Kind.REFUSED, f"{offer.file_name} is offered without a catalog")
                return False
            catalog = yield from self._download(offer.url(offer.signature_file_name), keep=True)
            image = None if catalog is None else (yield from self._download(offer.url(offer.file_name), keep=False))
            if catalog is None or image is None:
                return False
            if not is_listed(image, bytes(catalog.kept)):
                self.tell(
                    Kind.REFUSED,
                    f"{offer.signature_file_name} does not list this {offer.file_name}: not installed",
                    sha256=image.sha256.hexdigest(),
                )
                return False
            self.tell(Kind.VERIFIED, f"{offer.signature_file_name} lists {offer.file_name}")
        for offer in offers:
            self._install(offer)
        return True

    def _reported_status(self) -> str:
        """The last update status it tells in a check; blank tells none: where a real phone has it is not public."""
        return ""

    def _install(self, offer: OfferedFile) -> None:
        before = self.version
        module = InstalledModule(offer.file_name, offer.version, offer.timestamp)
        if len(self.modules) == 1 and self.modules[0].file_name is None:
            self.modules = []
        self.modules = [old for old in self.modules if old.file_name != offer.file_name]
        self.modules.insert(0, module)
        self.tell(Kind.INSTALLED, f"{before} -> {offer.version}", before=str(before))

    def _download(self, url: str, *, keep: bool) -> Generator[Action, Reply, Download | None]:
        """Fetch a file, resuming where the connection was cut; None where it could not be had."""
        if urlsplit(url).scheme not in ("http", "https"):
            self._fail(_INVALID_URL, f"not a URL to download from: {url}")
            return None
        download = Download(keep=keep)
        self.tell(Kind.DOWNLOAD, f"GET {url}", url=url)
        fruitless = 0
        reply = NOTHING
        for _ in range(MAX_ATTEMPTS):
            before = download.received
            reply = yield Get(url, download)
            if download.complete:
                self.status = reply.last_update_status
                self.tell(
                    Kind.DOWNLOADED,
                    f"{url.rpartition('/')[2]}: {download.received} bytes",
                    size=download.received,
                    sha256=download.sha256.hexdigest(),
                    resumed=download.resumed,
                )
                return download
            fruitless = 0 if download.received > before else fruitless + 1
            if reply.status not in (0, 206) or fruitless == MAX_FRUITLESS:
                break
            self.tell(Kind.RESUME, f"cut after {download.received} bytes, goes on from there", at=download.received)
            yield Pause(self.pace.retry_wait)
        self.status = reply.last_update_status
        self._tell_failure(f"{url.rpartition('/')[2]} not downloaded", reply.detail)
        return None

    def _fail(self, wininet: int, text: str) -> None:
        self.status = Reply(wininet=wininet).last_update_status
        self._tell_failure(text)

    def _tell_failure(self, text: str, detail: str = "") -> None:
        more = f" ({detail})" if detail else ""
        self.tell(Kind.FAILED, f"{text}: {self.status.text}, {self.status.meaning}{more}", status=self.status.text)


def is_listed(image: Download, catalog: bytes) -> bool:
    """True where a catalog holds the image's hash: as bytes in a real one (PKCS#7), as text in a synthetic one.

    Whether the catalog itself is signed, and by whom, is not looked at.
    """
    digests = (image.sha256.digest(), image.sha1.digest())
    return any(digest in catalog or digest.hex().encode() in catalog.lower() for digest in digests)
