"""The story that `upshim demo` tells, with everything in it real but the phones and the server.

Nothing here waits for a time to pass: each act ends when the events that make it up have happened.
"""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from captures.store import Store
from dissectors.version import Version
from tools.cx700_rules import OBSERVE, THEN
from tools.ucphone.events import EventLog, Kind, PhoneEvent
from tools.ucphone.identity import Pace, PhoneIdentity
from tools.ucphone.phone import Phone
from tools.ucphone.runner import RunningPhone
from tools.ucphone.transport import HttpTransport
from tools.update_server.audit import AuditLogWriter
from tools.update_server.field_story import CX700_STUCK
from tools.update_server.http import UpdateServer
from tools.update_server.messages import NoOffer
from tools.update_server.packages import CX700, make_synthetic
from tools.update_server.rules import Rule, RuleBook
from tools.update_server.service import UpdateService

STUCK, INTERIM, TARGET = (Version.parse(text) for text in ("1.0.522.73", "1.0.522.103", "3.5.6907.222"))
WITHIN = 60.0  # seconds the proxy may take to say or do something before the story has failed
ACT_WITHIN = 60.0  # and a phone
CRASHES = 2  # of the stuck phone before the rules come: enough to see that it is a loop

EventTest = Callable[[PhoneEvent], bool]


class StoryFailed(Exception):
    """The story did not go as it should; what was waited for in vain."""


class Tale(ABC):
    """Who listens to the story."""

    @abstractmethod
    def act(self, title: str) -> None:
        """A new act begins."""

    @abstractmethod
    def event(self, event: PhoneEvent) -> None:
        """Something happened to a phone."""


class ProxyProcess:
    """A real `upshim proxy`; its log is read as it comes, for others to wait on."""

    def __init__(self, upstream: str, folder: Path, rules: Path) -> None:
        words = [sys.executable, "-m", "tools", "proxy", "--upstream", upstream, "--listen", "127.0.0.1:0"]
        words += ["--rules", str(rules), "--record", str(folder / "recording"), "--pcap", str(folder / "phones.pcapng")]
        self._process = subprocess.Popen(
            [*words, "--state", str(folder / "state")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._lines: list[str] = []
        self._grown = threading.Condition()
        self._ended = False
        threading.Thread(target=self._read, name="proxy-log", daemon=True).start()

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """The first line, from number `after` on, that holds the pattern. Raises `StoryFailed`."""

        def find() -> re.Match[str] | None:
            return next((match for line in self._lines[after:] if (match := re.search(pattern, line))), None)

        with self._grown:
            self._grown.wait_for(lambda: find() or self._ended, WITHIN)
            match = find()
            if match is None:
                raise StoryFailed(f"the proxy did not say {pattern!r}: {' / '.join(self._lines[-3:])}")
            return match

    @property
    def said(self) -> int:
        """How many lines there are so far."""
        with self._grown:
            return len(self._lines)

    def stop(self) -> None:
        """End it and wait for that; what is queued gets written."""
        self._process.terminate()
        try:
            self._process.wait(WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        if self._process.stdout is not None:
            with self._process.stdout as lines:
                for line in lines:
                    with self._grown:
                        self._lines.append(line.rstrip())
                        self._grown.notify_all()
        with self._grown:
            self._ended = True
            self._grown.notify_all()


class Story:
    """The field story: what is stuck, what the rules change, where it ends."""

    TURNING_POINTS = frozenset(
        (Kind.BOOT, Kind.NO_UPDATE, Kind.CRASH, Kind.OFFER, Kind.DOWNLOADED, Kind.INSTALLED, Kind.REFUSED, Kind.FAILED)
    )

    def __init__(self, folder: Path, fix: str, firmware_size: int, scale: float, tale: Tale) -> None:
        self.recording = folder / "recording"
        self.pcap = folder / "phones.pcapng"
        self.log = EventLog(self._event)
        self.phones: list[Phone] = []
        self.exchanges = 0
        self.outcome = ""
        self._folder = folder
        self._fix = fix
        self._firmware_size = firmware_size
        self._scale = scale
        self._tale = tale
        self._telling = threading.Lock()  # each phone lives in a thread of its own

    def tell(self) -> None:
        """From power-on to the end. Raises `StoryFailed`."""
        rules = self._folder / "rules.toml"
        rules.write_text(OBSERVE + THEN["observe"])
        with ExitStack() as stack:
            server = stack.enter_context(self._server())
            proxy = ProxyProcess(server.url, self._folder, rules)
            stack.callback(proxy.stop)
            port = proxy.wait_for(r"listening on 127\.0\.0\.1:(\d+)")[1]
            url = f"http://127.0.0.1:{port}"

            self._act("The phone is stuck: upshim observes, the server answers every check with nothing.")
            stuck = self._phone(url, PhoneIdentity())
            # The same old version on another model: no rule is for it, and nothing may ever happen to it.
            other = self._phone(url, PhoneIdentity(mac="00-04-F2-00-02-01", serial="07823-B200", model="CX500"))
            for phone in (stuck, other):
                stack.enter_context(RunningPhone(phone, HttpTransport()))
            self._wait(stuck, lambda event: event.kind is Kind.NO_UPDATE, "the answer without an update")
            self._wait(stuck, self._nth(stuck, Kind.CRASH, CRASHES), f"crash number {CRASHES}")

            self._act(f"The rules come into force: {self._explained()}")
            said = proxy.said
            replace_file(rules, OBSERVE + THEN[self._fix])
            proxy.wait_for("rules in force", said)
            self._wait(stuck, installed(INTERIM), f"the installation of {INTERIM}")

            self._act(f"The phone reports {INTERIM} itself: from here on no rule matches, the server does the rest.")
            self._wait(stuck, installed(TARGET), f"the installation of {TARGET}")
            self._wait(stuck, left_alone(TARGET), f"a check on {TARGET} that ends with nothing to do")
            self._wait(other, self._nth(other, Kind.NO_UPDATE, 2), "the other phone's checks")
        self._verify(stuck, other)

    def _event(self, event: PhoneEvent) -> None:
        with self._telling:
            self._tale.event(event)

    def _act(self, title: str) -> None:
        with self._telling:
            self._tale.act(title)

    def _server(self) -> UpdateServer:
        updates = self._folder / "updates"
        for version in (INTERIM, TARGET):
            make_synthetic(updates, version, self._firmware_size)
        book = RuleBook((Rule(CX700, approved_version=TARGET),), ())
        return UpdateServer(
            UpdateService(updates, book, CX700_STUCK),
            audit=AuditLogWriter(self._folder / "updates", "demo"),
            no_offer=NoOffer.BLANK if self._fix == "offer" else NoOffer.ABSENT,
        )

    def _explained(self) -> str:
        if self._fix == "report":
            return "the stuck phone is reported as running nothing (0.0.0.0)."
        return f"{INTERIM} is put into the server's empty answer."

    def _phone(self, url: str, identity: PhoneIdentity) -> Phone:
        phone = Phone(url, STUCK, identity, pace=Pace(scale=self._scale), on_event=self.log)
        self.phones.append(phone)
        return phone

    def _wait(self, phone: Phone, wanted: EventTest, what: str) -> None:
        name = phone.identity.name
        if self.log.wait_for(lambda event: event.phone == name and wanted(event), ACT_WITHIN) is None:
            raise StoryFailed(f"waited {ACT_WITHIN:g} s in vain for {what} (phone {name} runs {phone.version})")

    def _nth(self, phone: Phone, kind: Kind, number: int) -> EventTest:
        seen: set[int] = set()

        def test(event: PhoneEvent) -> bool:
            if event.kind is kind and event.phone == phone.identity.name:
                seen.add(id(event))
            return len(seen) >= number

        return test

    def _verify(self, stuck: Phone, other: Phone) -> None:
        """Hold the story against the recording: the rules touched the stuck phone's checks and nothing else."""
        touched = set()
        with closing(Store.open(self.recording)) as store:
            for exchange in store.exchanges():
                self.exchanges += 1
                if exchange.rewritten_request or exchange.rewritten_response:
                    touched |= {(fact["mac_address"], fact["modules"][0]["version"]) for fact in exchange.facts[:1]}
        expected = {(stuck.identity.mac.replace("-", ":").lower(), str(STUCK))}
        if touched != expected:
            raise StoryFailed(f"expected changes for {expected}, the recording has them for {touched}")
        if stuck.version != TARGET or other.version != STUCK:
            raise StoryFailed(f"the phones ended on {stuck.version} and {other.version}")
        self.outcome = (
            f"{stuck.identity.name} went from {STUCK} over {INTERIM} to {TARGET} and is left alone; "
            f"{other.identity.name}, another model, was never touched."
        )


def installed(version: Version) -> EventTest:
    """A phone has installed this version."""
    return lambda event: event.kind is Kind.INSTALLED and event.data["version"] == str(version)


def left_alone(version: Version) -> EventTest:
    """A phone on this version was told that there is nothing new."""
    return lambda event: event.kind is Kind.NO_UPDATE and event.data["version"] == str(version)


def replace_file(path: Path, text: str) -> None:
    """Put a whole new file in the place of the old one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
