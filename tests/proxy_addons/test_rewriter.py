from __future__ import annotations

import gzip

import pytest

from captures.exchange import Headers, charset
from dissectors import DissectError
from dissectors.update_check import UpdateAnswer, UpdateCheck
from dissectors.update_status import LastUpdateStatus
from dissectors.version import Version
from dissectors.vocabulary import Vocabulary
from proxy_addons.phone import Phone
from proxy_addons.rewriter import SMALL, Checked, Rewriter, edit_headers, phone_of, remembering
from proxy_addons.rules import HeaderEdits, Rules
from tests.bodies import INTERIM, OFFER_NEXT, REPORT_ZERO, RULES, answer_body, check_body

VOCABULARY = Vocabulary.default()
HOST = "ucupdates-r2.contoso.com"
URL = f"http://{HOST}/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/{INTERIM}/CPE"


def rewriter(rules: str, *, dry_run: bool = False) -> Rewriter:
    return Rewriter(Rules.parse(rules.encode()), VOCABULARY, 1 << 20, dry_run)


def version_in(body: bytes) -> str:
    (module,) = UpdateCheck.decode(body, VOCABULARY).modules
    assert module.version is not None
    return module.version.value


def test_report_changes_version_and_timestamp_and_nothing_else() -> None:
    came = check_body()
    checked = rewriter(REPORT_ZERO).check(came, ())
    expected = came.replace(b"1.0.522.73", b"0.0.0.0").replace(b"04-05-2008 10:00:00", b"01-01-1601 00:00:00")
    assert checked.body.sent == expected
    assert checked.body.changed
    assert [fact["fact"] for fact in checked.body.facts] == ["update-check", "decision"]


def test_a_phone_without_timestamps_gets_none() -> None:
    came = check_body().replace(b' Timestamp="04-05-2008 10:00:00"', b"")
    assert version_in(rewriter(REPORT_ZERO).check(came, ()).body.sent) == "0.0.0.0"


def test_a_phone_is_what_its_check_says() -> None:
    told = b"<UserID>anna</UserID><LastUpdateStatus>0x0;200</LastUpdateStatus></Check>"
    check = UpdateCheck.decode(check_body().replace(b"</Check>", told), VOCABULARY)
    assert phone_of(check, "192.0.2.1", users=True) == Phone(
        device_type="UCPhone",
        vendor="Polycom",
        model="CX700",
        revision="A",
        locale="ENU",
        version=Version(1, 0, 522, 73),
        mac="00:04:f2:00:01:76",
        serial="07823-A345",
        address="192.0.2.1",
        status=LastUpdateStatus.parse("0x0;200"),
        user="anna",
    )


def test_the_content_coding_stays() -> None:
    headers = (("Content-Encoding", "gzip"),)
    checked = rewriter(REPORT_ZERO).check(gzip.compress(check_body()), headers)
    assert version_in(gzip.decompress(checked.body.sent)) == "0.0.0.0"
    assert checked.body.decoded == check_body()


def test_offer_fills_the_blank_addresses() -> None:
    shim = rewriter(OFFER_NEXT)
    checked = shim.check(check_body(), ())
    assert not checked.body.changed
    edited = shim.answer(answer_body(), (), checked, HOST)
    (offer,) = UpdateAnswer.decode(edited.sent, VOCABULARY).offers
    assert offer.base_url is not None
    assert offer.base_url.value == URL
    assert str(offer.offered_version) == INTERIM
    # Everything outside the three values is as it was.
    external = URL.replace("http:", "https:").replace("_Int/", "_Ext/")
    blank = edited.sent.replace(external.encode(), b"").replace(URL.encode(), b"")
    assert blank.replace(f'Version="{INTERIM}"'.encode(), b'Version=""') == answer_body()


def about(device: str) -> bytes:
    """An answer that says whom it is for."""
    return answer_body().replace(b"<Answer>", f"<Answer><Device>{device}</Device>".encode())


def test_an_answer_that_repeats_who_asked_is_rewritten() -> None:
    shim = rewriter(OFFER_NEXT)
    checked = shim.check(check_body(), ())
    assert checked.phone is not None
    echo = about(f"<Model>cx700</Model><MACAddress>{checked.phone.mac}</MACAddress><Vendor></Vendor>")
    assert shim.answer(echo, (), checked, HOST).changed


def test_a_device_told_of_twice_is_none_of_a_rule() -> None:
    paired = b"<Paired><Model>CX600</Model></Paired><DeviceType>"
    checked = rewriter(REPORT_ZERO).check(check_body().replace(b"<DeviceType>", paired, 1), ())
    assert checked.phone is not None
    assert checked.phone.model is None
    assert not checked.body.changed
    assert checked.decision.action == "leave"


UNTOUCHED = [
    (about("<Model>CX600</Model>"), "the answer is about another device: its model is 'CX600'"),
    (about("<MACAddress>0004F2FFFFFF</MACAddress>"), "the answer is about another device: its MAC address is another"),
    (answer_body("http://server/DeviceUpdateFiles_Int/x", "1.2.3.4"), "the server offers something itself"),
    (b"<!-- synthetic --><Answer><Result>0</Result></Answer>", "no offer made"),
    (answer_body().replace(b'"CPE.nbt"', b'""'), "the rule names no file"),
    (b"not XML", "answer not decoded"),
    (b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "answer not decoded"),
]


@pytest.mark.parametrize(("answer", "reason"), UNTOUCHED)
def test_an_answer_without_a_place_for_the_offer_stays(answer: bytes, reason: str) -> None:
    shim = rewriter(OFFER_NEXT)
    edited = shim.answer(answer, (), shim.check(check_body(), ()), HOST)
    assert edited.sent is answer
    assert not edited.changed
    assert any(reason in problem for problem in edited.problems)


def test_nothing_matches_nothing_changes() -> None:
    shim = rewriter(REPORT_ZERO)
    came = check_body(Model="CX600")
    assert shim.check(came, ()).body.sent is came
    answer = answer_body()
    assert shim.answer(answer, (), shim.check(came, ()), HOST).sent is answer


def test_dry_run_decides_and_changes_nothing() -> None:
    for rules in (REPORT_ZERO, OFFER_NEXT):
        shim = rewriter(rules, dry_run=True)
        came = check_body()
        checked = shim.check(came, ())
        assert checked.decision.action in {"report", "offer"}
        assert checked.body.facts[1]["dry_run"] is True
        assert checked.body.sent is came
        answer = answer_body()
        assert shim.answer(answer, (), checked, HOST).sent is answer


BROKEN: list[tuple[bytes, Headers]] = [
    (b"", ()),
    (b"a log upload", ()),
    (b"<CELog/>", ()),
    (check_body()[:-20], ()),
    (b"\xff\xfe" + check_body(), ()),
    (b"<!DOCTYPE x SYSTEM 'http://127.0.0.1/x'><x/>" + check_body(), ()),
    (gzip.compress(check_body(), mtime=0)[:-9], (("Content-Encoding", "gzip"),)),
    (gzip.compress(b"\0" * (2 << 20), mtime=0), (("Content-Encoding", "gzip"),)),
    (check_body(), (("Content-Encoding", "br"),)),
]


@pytest.mark.parametrize(("body", "headers"), BROKEN)
def test_what_cannot_be_read_goes_on_as_it_came(body: bytes, headers: Headers) -> None:
    checked = rewriter(REPORT_ZERO).check(body, headers)
    assert checked.body.sent is body
    assert not checked.body.changed
    assert checked.phone is None
    assert len(checked.body.problems) == 1


def test_several_modules_are_too_ambiguous_to_report() -> None:
    module = b'<Module FileName="CPE.nbt" Version="1.0.522.73" Timestamp="04-05-2008 10:00:00"/>'
    came = check_body().replace(module, module + module.replace(b"CPE", b"XIP"))
    checked = rewriter(REPORT_ZERO).check(came, ())
    assert checked.body.sent is came
    assert "no report made" in checked.body.problems[0]


def test_a_rule_that_observes_leaves_the_answer() -> None:
    shim = rewriter(RULES + "then.observe = true\n")
    checked = shim.check(check_body(), ())
    assert checked.decision.action == "observe"
    assert shim.answer(answer_body(), (), checked, HOST).problems == ()
    assert isinstance(checked, Checked)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("text/xml", None), ("text/xml; charset=utf-16", "utf-16"), ('text/xml;charset="UTF-8"', "UTF-8"), ("", None)],
)
def test_the_charset(value: str, expected: str | None) -> None:
    assert charset((("content-type", value),)) == expected


def test_header_edits_leave_the_others_in_place() -> None:
    headers = (("HOST", "a"), ("X-Old", "1"), ("x-twice", "1"), ("X-Twice", "2"), ("Z", "z"))
    edits = HeaderEdits((("X-Twice", "3"), ("X-New", "n")), ("x-old",))
    assert edit_headers(headers, edits) == (("HOST", "a"), ("x-twice", "3"), ("Z", "z"), ("X-New", "n"))
    assert edit_headers(headers, HeaderEdits()) == headers


class Numbered:
    """What was decoded as the nth."""

    def __init__(self, number: int) -> None:
        self.number = number

    def to_json(self, secrets: bool) -> dict[str, object]:
        return {"number": self.number, "secrets": secrets}


def test_a_body_is_decoded_once_for_a_vocabulary_and_large_ones_are_not_kept() -> None:
    calls: list[tuple[bytes, int]] = []

    def decode(body: bytes, vocabulary: Vocabulary, _charset: str | None) -> Numbered:
        calls.append((body, id(vocabulary)))
        if body == b"bad":
            raise DissectError(0, "XML", "bad")
        return Numbered(len(calls))

    remembered = remembering(decode)

    def number(body: bytes, vocabulary: Vocabulary, charset: str | None = None, *, users: bool = False) -> int:
        found, fact = remembered(body, vocabulary, charset, users)
        assert fact == {"number": found.number, "secrets": users}
        return found.number

    one, other = VOCABULARY, Vocabulary.default().extended("")
    assert [number(b"x", one), number(b"x", one)] == [1, 1]
    assert [number(b"x", other), number(b"x", one, "utf-8"), number(b"x", one, users=True)] == [2, 3, 4]
    large = bytes(SMALL + 1)
    assert [number(large, one), number(large, one)] == [5, 6]
    for _ in range(2):
        with pytest.raises(DissectError):
            number(b"bad", one)
    assert len(calls) == 8
