from __future__ import annotations

from dissectors.http_status import explain, usual_cause
from dissectors.update_status import LastUpdateStatus


def test_a_status_alone_is_its_phrase_and_usual_cause() -> None:
    meaning = explain(404)
    assert meaning.words == "404 Not Found"
    assert meaning.cause == usual_cause(404)
    assert explain(200) == ("200 OK", "")


def test_the_sub_status_is_more_exact_than_the_status() -> None:
    meaning = explain(404, 3, 50)
    assert meaning.words == "404.3 Not Found (MIME type restriction)"
    assert ".nbt" in meaning.cause
    assert usual_cause(404) not in meaning.cause


def test_the_windows_error_is_named() -> None:
    meaning = explain(401, 1, 2148074252)
    assert meaning.words == "401.1 Unauthorized (logon failed; SEC_E_LOGON_DENIED)"
    assert "domain as the phone wrote it" in meaning.cause
    assert explain(200, 0, 64).cause == "the phone closed the connection before the answer was through"


def test_numbers_that_are_no_status_are_said_to_be_none() -> None:
    assert explain(999, 7, 123456).words == "999.7 not a standard status"


def test_the_phone_s_own_status_gives_the_same_cause() -> None:
    assert LastUpdateStatus.parse("0x0;503").usual_cause == usual_cause(503) != ""
