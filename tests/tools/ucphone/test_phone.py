"""The behaviour alone: what the phone asks for, told what came of it by the test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest

from dissectors.update_check import UpdateCheck
from dissectors.version import Version
from dissectors.vocabulary import Vocabulary
from tools.ucphone.actions import Action, Disconnect, Get, Pause, Post, Reply
from tools.ucphone.events import EventLog, Kind, PhoneEvent
from tools.ucphone.identity import Pace, PhoneIdentity, PhoneOptions
from tools.ucphone.phone import Phone, check_url
from tools.update_server.messages import NoOffer, write_answer
from tools.update_server.packages import CX700
from tools.update_server.rules import Rule, RuleBook
from tools.update_server.service import Answer, Check, UpdateService

STUCK = Version.parse("1.0.522.73")
BRIDGE = Version.parse("1.0.522.103")
R2 = Version.parse("3.5.6907.222")
IMAGE = b"an image"
CATALOG = f"synthetic\nCPE.nbt sha256 {hashlib.sha256(IMAGE).hexdigest()}\n".encode()
EMPTY = write_answer(Answer((), ""))
T = TypeVar("T")
NOW = datetime(2009, 3, 17, tzinfo=UTC)


def offer(version: Version = R2, *, internal: str | None = None) -> bytes:
    """The answer that offers a version."""
    service = UpdateService(Path("nowhere"), RuleBook((Rule(CX700, "CPE", version),)))
    answer = service.answer(Check(CX700), "pool01")
    if internal is not None:
        answer = Answer(tuple(one._replace(internal_url=internal) for one in answer.offers), "")
    return write_answer(answer)


class World:
    """Everything around the phone."""

    def __init__(self, *answers: bytes | Reply) -> None:
        self.answers = list(answers)
        self.files = {"CPE.nbt": IMAGE, "CPE.cat": CATALOG}
        self.actions: list[Action] = []
        self.cut: Callable[[Get], Reply | None] = lambda _action: None

    def live(self, phone: Phone) -> None:
        life = phone.life()
        reply: Reply | None = None
        while True:
            try:
                action = next(life) if reply is None else life.send(reply)
            except StopIteration:
                return
            self.actions.append(action)
            reply = self.act(action)

    def act(self, action: Action) -> Reply:
        if isinstance(action, Post):
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return answer if isinstance(answer, Reply) else Reply(200, body=answer)
        if not isinstance(action, Get):
            return Reply()
        if (early := self.cut(action)) is not None:
            return early
        data = self.files.get(action.url.rpartition("/")[2])
        if data is None:
            return Reply(404)
        start = action.download.received
        action.download.begin(start or None, len(data), None)
        action.download.write(data[start:])
        action.download.complete = True
        return Reply(206 if start else 200)

    def of(self, kind: type[T]) -> list[T]:
        return [action for action in self.actions if isinstance(action, kind)]


def life(version: Version, world: World, polls: int = 1, **options: object) -> EventLog:
    log = EventLog()
    phone = Phone(
        "http://pool01",
        version,
        pace=Pace(scale=86_400),
        options=PhoneOptions(polls=polls, **options),  # type: ignore[arg-type]
        on_event=log,
        clock=lambda: NOW,
    )
    world.live(phone)
    return log


def kinds(log: EventLog) -> list[str]:
    return [str(event.kind) for event in log.events]


def test_an_offered_version_is_fetched_installed_and_reported() -> None:
    world = World(offer(), EMPTY)
    log = life(BRIDGE, world, polls=2)
    assert kinds(log) == [
        *("boot", "lookup", "check", "offer", "download", "downloaded", "download", "downloaded", "verified"),
        *("installed", "reboot", "boot", "lookup", "check", "no-update", "end"),
    ]
    assert [get.url.rpartition("/")[2] for get in world.of(Get)] == ["CPE.cat", "CPE.nbt"]
    assert world.of(Get)[0].url.startswith(
        "http://pool01/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/3.5.6907.222/"
    )
    assert log.of(Kind.INSTALLED)[0].data == {"version": str(R2), "before": str(BRIDGE)}
    reported = UpdateCheck.decode(world.of(Post)[1].body, Vocabulary.default()).modules[0].installed
    assert (reported.file_name, reported.version) == ("CPE.nbt", R2)


def test_the_check_says_who_asks() -> None:
    world = World(EMPTY)
    identity = PhoneIdentity("0004F2000176", "07823-A345", user="litware\\a&b")
    world.live(Phone("http://pool01", STUCK, identity, options=PhoneOptions(polls=1)))
    check = UpdateCheck.decode(world.of(Post)[0].body, Vocabulary.default())
    values = [
        check.device_type,
        check.mac,
        check.serial,
        check.vendor,
        check.model,
        check.revision,
        check.locale,
        check.user,
    ]
    assert [one and one.value for one in values] == [
        *("UCPhone", "0004F2000176", "07823-A345", "Polycom", "CX700", "A", "ENU", "litware\\a&b"),
    ]
    assert b"synthetic" in world.of(Post)[0].body


def test_old_firmware_signs_in_and_crashes_for_ever() -> None:
    world = World(EMPTY)
    log = life(STUCK, world, polls=3)
    one = ["boot", "sign-in", "check", "no-update", "crash"]
    assert kinds(log) == [*one, "reboot", *one, "reboot", *one, "end"]
    assert log.of(Kind.NO_UPDATE)[0].data["status"] == "0x0;200"
    assert [pause.seconds for pause in world.of(Pause)] == [0.25, 0.25]


def test_old_firmware_that_is_offered_an_update_takes_it() -> None:
    log = life(STUCK, World(offer(BRIDGE), EMPTY), polls=2)
    assert "crash" not in kinds(log)
    assert kinds(log)[-4:] == ["lookup", "check", "no-update", "end"]


@pytest.mark.parametrize(
    ("version", "looks_up", "crashes"),
    [
        ("1.0.199.123", False, True),
        ("1.0.522.73", False, True),
        ("1.0.522.101", True, False),
        ("3.5.6907.35", True, False),
        ("4.0.7577.4066", True, False),
    ],
)
def test_the_firmware_decides_about_lookup_and_crash(version: str, looks_up: bool, crashes: bool) -> None:
    seen = kinds(life(Version.parse(version), World(EMPTY)))
    assert ("lookup" in seen, "sign-in" in seen, "crash" in seen) == (looks_up, not looks_up, crashes)


def test_with_nothing_installed_the_zero_version_and_time_are_reported() -> None:
    world = World(offer(BRIDGE), EMPTY)
    log = life(Version(0, 0, 0, 0), world, polls=2)
    first, second = [UpdateCheck.decode(post.body, Vocabulary.default()).modules for post in world.of(Post)]
    assert [module.installed.nothing_installed for module in first] == [True]
    assert [module.installed.version for module in second] == [BRIDGE]
    assert "crash" not in kinds(log)


def test_between_polls_a_day_passes_on_the_phones_clock() -> None:
    world = World(EMPTY)
    life(R2, world, polls=2)
    assert world.of(Pause) == [Pause(1.0)]
    assert len(world.of(Disconnect)) == 2


def test_a_damaged_image_is_refused() -> None:
    world = World(offer())
    world.files["CPE.nbt"] = b"an imagE"
    log = life(BRIDGE, world)
    assert kinds(log)[-2:] == ["refused", "end"]
    assert log.events[-1].data["version"] == str(BRIDGE)


def test_a_catalog_in_binary_is_searched_for_the_hash() -> None:
    for digest in (hashlib.sha256(IMAGE).digest(), hashlib.sha1(IMAGE).digest()):
        world = World(offer())
        world.files["CPE.cat"] = b"\x30\x82" + digest + b"\x00"
        assert Kind.VERIFIED in kinds(life(BRIDGE, world))


@pytest.mark.parametrize("internal", ["", "ftp://pool01/x"])
def test_an_offer_without_a_usable_url_changes_nothing(internal: str) -> None:
    world = World(offer(internal=internal))
    log = life(BRIDGE, world)
    assert world.of(Get) == []
    assert log.events[-1].data["version"] == str(BRIDGE)


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (Reply(404), "failed", "0x0;404"),
        (Reply(401), "failed", "0x0;401"),
        (Reply(wininet=12029), "failed", "0x2efd;0"),
        (Reply(200, body=b"<html><p>"), "failed", "0x2f78;0"),
        (Reply(200), "no-update", "0x0;200"),
        (Reply(200, body=EMPTY), "no-update", "0x0;200"),
        (Reply(200, body=write_answer(Answer((), ""), NoOffer.BLANK)), "no-update", "0x0;200"),
    ],
)
def test_the_last_update_status(answer: Reply, kind: str, status: str) -> None:
    log = life(R2, World(answer))
    assert kinds(log) == ["boot", "lookup", "check", kind, "end"]
    assert log.events[3].data["status"] == status


def test_a_file_that_is_missing_is_not_asked_for_again() -> None:
    world = World(offer())
    del world.files["CPE.nbt"]
    log = life(BRIDGE, world)
    assert log.of(Kind.FAILED)[0].data["status"] == "0x0;404"
    assert len(world.of(Get)) == 2


def test_a_cut_download_goes_on_where_it_stopped() -> None:
    world = World(offer())
    cuts = iter([3, 5])

    def cut(get: Get) -> Reply | None:
        if not get.url.endswith(".nbt") or (size := next(cuts, None)) is None:
            return None
        get.download.begin(get.download.received or None, len(IMAGE), None)
        get.download.write(IMAGE[get.download.received : size])
        return Reply(wininet=12030)

    world.cut = cut
    log = life(BRIDGE, world)
    assert [event.data["at"] for event in log.of(Kind.RESUME)] == [3, 5]
    assert log.of(Kind.DOWNLOADED)[1].data["resumed"] == 2
    assert log.of(Kind.INSTALLED)
    assert len(world.of(Pause)) == 2


def test_a_server_that_is_gone_is_tried_three_times() -> None:
    world = World(offer())
    world.cut = lambda _get: Reply(wininet=12029)
    log = life(BRIDGE, world)
    assert len(world.of(Get)) == 3
    assert log.of(Kind.FAILED)[0].data["status"] == "0x2efd;0"


def test_an_older_version_is_taken_unless_told_otherwise() -> None:
    assert "installed" in kinds(life(R2, World(offer(BRIDGE))))
    log = life(R2, World(offer(BRIDGE)), only_newer=True)
    assert kinds(log) == ["boot", "lookup", "check", "no-update", "end"]
    assert log.events[3].data["offered"] == [f"{BRIDGE} (CPE.nbt)"]


def test_outside_the_firewall_the_external_addresses_are_used() -> None:
    world = World(offer())
    life(BRIDGE, world, external=True)
    assert world.of(Post)[0].url == "http://pool01/RequestHandlerExt/ucdevice.upx"
    assert world.of(Get)[0].url.startswith("https://pool01/DeviceUpdateFiles_Ext/")


def test_the_url_of_the_handler() -> None:
    assert check_url("http://10.0.0.1:8080/") == "http://10.0.0.1:8080/RequestHandler/ucdevice.upx"
    assert check_url("http://pool/x/UCDevice.upx") == "http://pool/x/UCDevice.upx"
    for wrong in ("pool01", "ftp://pool01", "http://", ""):
        with pytest.raises(ValueError, match="not an http"):
            check_url(wrong)


def test_events_can_be_waited_for() -> None:
    passed: list[PhoneEvent] = []
    log = EventLog(passed.append)
    world = World(EMPTY)
    world.live(Phone("http://pool01", R2, options=PhoneOptions(polls=1), on_event=log, clock=lambda: NOW))
    assert log.wait_for(lambda event: event.kind is Kind.CHECK, 0) == log.of(Kind.CHECK)[0]
    assert log.wait_for(lambda event: event.kind is Kind.CHECK, 0, after=3) is None
    assert passed == log.events
    assert log.events[0].to_json() == {
        "time": "2009-03-17T00:00:00.000000Z",
        "phone": "00-04-F2-00-01-76",
        "event": "boot",
        "text": "starts with 3.5.6907.222",
        "version": "3.5.6907.222",
    }
