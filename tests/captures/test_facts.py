from __future__ import annotations

from dataclasses import replace

from captures.exchange import Body, Exchange, Request, Response
from captures.facts import facts_of
from tests.bodies import CHECK_TARGET, answer_body, check_body
from tests.captures.test_store import an_exchange


def exchange(request: Request, response: Response | None) -> Exchange:
    return replace(an_exchange(), request=request, response=response)


def check(body: bytes, answer: bytes, content_type: str = "text/xml") -> Exchange:
    headers = (("Content-Type", content_type),)
    return exchange(
        Request("POST", CHECK_TARGET, headers=headers, body=Body.of(body)),
        Response(200, headers=headers, body=Body.of(answer)),
    )


def test_a_check_and_its_answer() -> None:
    asked, answered = facts_of(check(check_body(), answer_body()))
    assert (asked["fact"], asked["model"], asked["mac_address"]) == ("update-check", "CX700", "00:04:f2:00:01:76")
    assert (answered["fact"], answered["is_offer"]) == ("update-answer", False)


def test_the_charset_of_the_header_is_used() -> None:
    body = check_body(Locale="日本").replace(b' encoding="utf-8"', b"").decode().encode("shift_jis")
    asked, _ = facts_of(check(body, answer_body(), "text/xml; charset=shift_jis"))
    assert asked["locale"] == "日本"


def test_the_same_bytes_in_another_charset_are_another_fact() -> None:
    body = check_body(Locale="caf\xe9").replace(b' encoding="utf-8"', b"")
    for content_type, locale in (
        ("text/xml; charset=utf-8", "caf\xe9"),
        ("text/xml; charset=iso-8859-1", "caf\xc3\xa9"),
        ("text/xml; charset=utf-8", "caf\xe9"),
    ):
        asked, _ = facts_of(check(body, answer_body(), content_type))
        assert asked["locale"] == locale


def test_the_same_bytes_asked_and_answered_are_different_facts() -> None:
    asked, answered = facts_of(check(check_body(), check_body()))
    assert (asked["fact"], answered["fact"]) == ("update-check", "update-answer")


def test_a_log_upload_and_a_body_that_was_not_held_tell_nothing() -> None:
    assert facts_of(check(b"a log", b"")) == ()
    assert facts_of(exchange(Request("POST", CHECK_TARGET, body=Body(10, "aa", 10)), Response(200))) == ()
    assert [fact["fact"] for fact in facts_of(check(check_body(), b"not XML"))] == ["update-check"]


def test_a_firmware_file() -> None:
    target = "/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.103/CPE/CPE.nbt"
    request = Request("GET", target, headers=(("Range", "bytes=5-"),))
    (fact,) = facts_of(exchange(request, Response(206)))
    assert (fact["version"], fact["file"], fact["range"], fact["complete"]) == (
        "1.0.522.103",
        "CPE.nbt",
        "bytes=5-",
        True,
    )
    (fact,) = facts_of(exchange(request, None))
    assert fact["complete"] is False
    assert facts_of(exchange(Request("GET", "/DeviceUpdateFiles_Int/other"), None)) == ()


def test_the_rounds_of_a_login() -> None:
    negotiate = "NTLM TlRMTVNTUAABAAAAB4IIogAAAAAAAAAAAAAAAAAAAAAGAbEdAAAADw=="
    asked = Request("GET", "/", headers=(("Authorization", negotiate), ("Authorization", "NTLM !!")))
    refused = Response(401, headers=(("WWW-Authenticate", "NTLM"), ("WWW-Authenticate", "Negotiate")))
    (fact,) = facts_of(exchange(asked, refused))
    assert (fact["fact"], fact["message"], fact["side"]) == ("ntlm", "negotiate", "request")
