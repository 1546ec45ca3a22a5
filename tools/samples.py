"""Makes the captures of captures/samples: synthetic packets of each scene of the field story.

    python -m tools.samples captures/samples

The same command gives the same bytes: phone and server are the emulated ones, without sockets, on a clock of their own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

from captures.exchange import Body, Exchange, Headers, Request, Response
from captures.pcap_writer import PcapWriter
from dissectors.version import Version
from tools.ucphone.actions import Get, Post, Reply
from tools.ucphone.identity import PhoneIdentity, PhoneOptions
from tools.ucphone.messages import CONTENT_TYPE
from tools.ucphone.phone import Phone
from tools.ucphone.runner import PhoneRunner
from tools.update_server.field_story import CX700_STUCK
from tools.update_server.messages import NoOffer, read_check, write_answer
from tools.update_server.packages import CX700, make_synthetic
from tools.update_server.rules import Rule, RuleBook
from tools.update_server.service import UpdateService, UrlSettings

HOST = "ucupdates-r2.example.com"
PHONE, SERVER = "192.0.2.76", "198.51.100.5"  # RFC 5737: addresses of nobody
BEGAN = datetime(2009, 11, 23, 8, 0, tzinfo=UTC)
STUCK, INTERIM, TARGET = (Version.parse(text) for text in ("1.0.522.73", "1.0.522.103", "3.5.6907.222"))
IMAGE_SIZE = 20_000
LATENCY = timedelta(milliseconds=20)
REBOOT = timedelta(seconds=150)
DAY = timedelta(days=1)


@dataclass(slots=True)
class Wire:
    """A server without sockets: answers a phone's actions, and keeps what passed as exchanges."""

    service: UpdateService
    no_offer: NoOffer = NoOffer.ABSENT
    anonymous: bool = True
    now: datetime = BEGAN
    exchanges: list[Exchange] = field(default_factory=list)
    _port: int = 49_152

    def perform(self, action: Post | Get) -> Reply:
        """Answer, and let a little time pass."""
        if isinstance(action, Post):
            request_headers: Headers = (("Host", HOST), ("Content-Type", CONTENT_TYPE))
            request = self._request("POST", action.url, request_headers, action.body)
            if not self.anonymous:
                headers: Headers = (("WWW-Authenticate", "Negotiate"), ("WWW-Authenticate", "NTLM"))
                self._passed(request, self._response(401, "Unauthorized", headers, b""))
                return Reply(401)
            answer = self.service.answer(read_check(action.body, CONTENT_TYPE), HOST)
            body = write_answer(answer, self.no_offer)
            self._passed(request, self._response(200, "OK", (("Content-Type", CONTENT_TYPE),), body))
            return Reply(200, 0, CONTENT_TYPE, body)
        content = self._file(action.url)
        request = self._request("GET", action.url, (("Host", HOST),), b"")
        headers = (("Content-Type", "application/octet-stream"),)
        self._passed(request, self._response(200, "OK", headers, content))
        action.download.begin(None, len(content), None)
        action.download.write(content)
        action.download.complete = True
        return Reply(200)

    def close(self) -> None:
        """The phone's next request comes on another connection."""
        self._port += 1

    def abort(self) -> None:
        """Nothing is ever under way."""

    def _file(self, url: str) -> bytes:
        parts = urlsplit(url).path.split("/")[2:]
        return self.service.updates.joinpath(*parts).read_bytes()

    def _request(self, method: str, url: str, headers: Headers, body: bytes) -> Request:
        length: Headers = (("Content-Length", str(len(body))),) if body else ()
        return Request(method, urlsplit(url).path, headers=headers + length, body=Body.of(body))

    def _response(self, status: int, reason: str, headers: Headers, body: bytes) -> Response:
        return Response(status, reason, headers=(*headers, ("Content-Length", str(len(body)))), body=Body.of(body))

    def _passed(self, request: Request, response: Response) -> None:
        began, self.now = self.now, self.now + 2 * LATENCY
        self.exchanges.append(
            Exchange(
                "samples", len(self.exchanges), f"{PHONE}:{self._port}", f"{SERVER}:80", began, self.now, request,
                response, request_ended=began + LATENCY / 2, response_started=began + LATENCY,
            )
        )  # fmt: skip


def live(wire: Wire, version: Version, polls: int, *, external: bool = False) -> None:
    """A phone's life with this server."""
    phone = Phone(
        f"http://{HOST}", version, PhoneIdentity(), options=PhoneOptions(polls=polls, external=external),
        clock=lambda: wire.now,
    )  # fmt: skip
    runner = PhoneRunner(phone, wire)
    while (pause := runner.step()) is not None:
        if pause:
            wire.close()
            wire.now += DAY if pause > REBOOT.total_seconds() else REBOOT


def stuck(service: UpdateService, _updates: Path) -> Wire:
    """Three checks, answered with nothing; the phone crashes after each."""
    wire = Wire(service)
    live(wire, STUCK, 3)
    return wire


def blank_addresses(_service: UpdateService, updates: Path) -> Wire:
    """An offer without addresses: the server's URLs were never set."""
    book = RuleBook((Rule(CX700, approved_version=INTERIM),), ())
    wire = Wire(UpdateService(updates, book, (), UrlSettings(internal="", external="")))
    live(wire, STUCK, 1)
    return wire


def interim(service: UpdateService, _updates: Path) -> Wire:
    """Nothing installed is reported; the interim version is offered, fetched and reported, R2 follows."""
    wire = Wire(service)
    live(wire, Version.parse("0.0.0.0"), 3)
    return wire


def external_denied(service: UpdateService, _updates: Path) -> Wire:
    """From outside, the server wants a login."""
    wire = Wire(service, anonymous=False)
    live(wire, INTERIM, 1, external=True)
    return wire


SCENES: dict[str, Callable[[UpdateService, Path], Wire]] = {
    "stuck": stuck,
    "blank-addresses": blank_addresses,
    "interim": interim,
    "external-denied": external_denied,
}


def make(folder: Path) -> list[Path]:
    """Write every scene as `<scene>.pcapng`. Raises `OSError`."""
    made = []
    with tempfile.TemporaryDirectory() as temporary:
        updates = Path(temporary)
        for version in (INTERIM, TARGET):
            make_synthetic(updates, version, IMAGE_SIZE)
        service = UpdateService(updates, RuleBook((Rule(CX700, approved_version=TARGET),), ()), CX700_STUCK)
        for name, scene in SCENES.items():
            path = folder / f"{name}.pcapng"
            with PcapWriter.create(path) as writer:
                for exchange in scene(service, updates).exchanges:
                    writer.write(exchange)
            made.append(path)
    return made


if __name__ == "__main__":
    for file in make(Path(sys.argv[1])):
        print(file)
