from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.update_status import LastUpdateStatus

FORMS = {
    "0x0;200": (0, 200),
    "(0x00/0)": (0, 0),
    "0x2ee2,0": (12002, 0),
    "12029/0x191": (12029, 401),
    " ( 0x80072EFD / 0x0 ) ": (12029, 0),
    "-2147012894;0": (12002, 0),
    "2147954402;404": (12002, 404),
    "0x80070005;0": (5, 0),
}


@pytest.mark.parametrize("text", FORMS)
def test_all_written_forms(text: str) -> None:
    status = LastUpdateStatus.parse(text)
    assert (status.wininet_code, status.http_status) == FORMS[text]
    assert status.text == text.strip()


@given(
    st.integers(0, 0xFFFF),
    st.integers(0, 999),
    st.sampled_from("/;,"),
    st.sampled_from(["{}", "0x{:x}", "0x{:05X}"]),
    st.sampled_from(["{}", "0x{:x}"]),
)
def test_either_radix_and_any_separator(code: int, http: int, separator: str, form1: str, form2: str) -> None:
    status = LastUpdateStatus.parse(f"({form1.format(code)}{separator}{form2.format(http)})")
    assert (status.wininet_code, status.http_status) == (code, http)
    assert status.to_json()["meaning"]


@pytest.mark.parametrize(
    "text", ["", "0x0", "0x0:200", "0x0;200;1", "ok;200", "0x0;-1", "0x123456789;0", "0;9999999999", "٣;4"]
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DissectError):
        LastUpdateStatus.parse(text)


def test_the_server_answered_and_offered_nothing() -> None:
    status = LastUpdateStatus.parse("0x0;200")
    assert status.ok
    assert status.meaning == "no error on the way to the server; HTTP 200 OK"
    assert "nothing to offer" in status.usual_cause
    assert LastUpdateStatus.parse("(0x00/0)").ok


@pytest.mark.parametrize(
    ("text", "name", "cause"),
    [
        ("0x2ee7/0", "ERROR_INTERNET_NAME_NOT_RESOLVED", "ucupdates-r2"),
        ("0x2f05/0", "ERROR_INTERNET_SEC_CERT_DATE_INVALID", "clock"),
        ("0x2f0d/0", "ERROR_INTERNET_INVALID_CA", "root"),
        ("0x0/0x191", "ERROR_SUCCESS", "NTLM"),
    ],
)
def test_errors_have_names_and_causes(text: str, name: str, cause: str) -> None:
    status = LastUpdateStatus.parse(text)
    assert not status.ok
    assert status.wininet_name == name
    assert cause in status.usual_cause


def test_unknown_codes_say_so() -> None:
    assert "12999 (0x32c7)" in LastUpdateStatus.parse("12999;0").meaning
    assert "not a standard status" in LastUpdateStatus.parse("0;299").meaning
    assert "are those of 401" in LastUpdateStatus.parse("0x0/0x401").meaning
    assert LastUpdateStatus.parse("12999;0").usual_cause == ""
