from __future__ import annotations

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.installed_module import (
    MAX_MODULES,
    NOTHING_INSTALLED,
    AnswerModule,
    InstalledModule,
    timestamp_readings,
)
from dissectors.version import MAX_PART, Version

PART = st.text(st.characters(exclude_characters=";#", codec="utf-8"), min_size=1).map(str.strip).filter(bool)
VERSIONS = st.builds(Version, *[st.integers(0, MAX_PART)] * 4)
INSTALLED = st.builds(InstalledModule, st.none() | PART, st.none() | VERSIONS, st.none() | PART)
OFFERED = st.builds(AnswerModule, *[st.none() | PART] * 2, st.none() | VERSIONS, st.none() | PART)


@given(st.lists(INSTALLED, min_size=1).map(tuple))
def test_installed_modules_are_read_as_printed(modules: tuple[InstalledModule, ...]) -> None:
    assert InstalledModule.parse_list(InstalledModule.list_to_text(modules)) == modules


@given(st.lists(OFFERED, min_size=1).map(tuple))
def test_answer_modules_are_read_as_printed(modules: tuple[AnswerModule, ...]) -> None:
    assert AnswerModule.parse_list(AnswerModule.list_to_text(modules)) == modules


def test_the_report_of_nothing_installed() -> None:
    module = InstalledModule.parse("0.0.0.0;01-01-1601 00:00:00")
    assert module == NOTHING_INSTALLED
    assert module.nothing_installed
    assert module.to_text() == "0.0.0.0;01-01-1601 00:00:00"
    assert module.to_json()["when"] == "1601-01-01T00:00:00"


@pytest.mark.parametrize(
    "text", ["0.0.0.1;01-01-1601 00:00:00", "0.0.0.0;01-01-1601 00:00:01", "0.0.0.0;", "cpe.nbt;;01-01-1601 00:00:00"]
)
def test_anything_else_is_something_installed(text: str) -> None:
    assert not InstalledModule.parse(text).nothing_installed


def test_a_module_with_all_its_parts() -> None:
    module = InstalledModule.parse("cpe.nbt; 1.0.522.73 ;13-04-2008 10:20:30")
    assert module == InstalledModule("cpe.nbt", Version(1, 0, 522, 73), "13-04-2008 10:20:30")
    assert module.when == datetime(2008, 4, 13, 10, 20, 30)


def test_blank_lists_are_empty() -> None:
    assert InstalledModule.parse_list(" ") == ()
    assert AnswerModule.parse_list("") == ()


@pytest.mark.parametrize("text", ["", "cpe.nbt", "a;b;c", "a;1.0;c", "a;1.0.0.0;c;d", "1.0;x", "a;1.0.0.0;x#"])
def test_other_forms_are_refused(text: str) -> None:
    with pytest.raises(DissectError):
        InstalledModule.parse_list(text or ";;;")


def test_too_many_modules_are_refused() -> None:
    with pytest.raises(DissectError):
        InstalledModule.parse_list("#".join(["1.0.0.0;"] * (MAX_MODULES + 1)))


def test_separators_within_a_part_are_not_printed() -> None:
    with pytest.raises(DissectError):
        InstalledModule("a;b", None, None).to_text()


READINGS = {
    "03-04-2008 01:02:03": [datetime(2008, 4, 3, 1, 2, 3), datetime(2008, 3, 4, 1, 2, 3)],
    "4/4/2008 1:02:03 PM": [datetime(2008, 4, 4, 13, 2, 3)],
    "12/31/2008 12:00:00 AM": [datetime(2008, 12, 31)],
    "31.12.2008": [datetime(2008, 12, 31)],
    "2008-12-31T23:59:59Z": [datetime(2008, 12, 31, 23, 59, 59)],
    "2008-02-30": [],
    "32-13-2008": [],
    "1-2-3": [],
    "31-12-2008 13:00 PM": [],
    "yesterday": [],
    "0000-01-01": [],
}


@pytest.mark.parametrize("text", READINGS)
def test_timestamps_have_all_their_readings(text: str) -> None:
    assert list(timestamp_readings(text)) == READINGS[text]


def test_an_open_order_of_day_and_month_is_not_guessed() -> None:
    assert InstalledModule(None, None, "03-04-2008 00:00:00").when is None
    assert AnswerModule(None, None, None, "03-04-2008 00:00:00").to_json()["when"] is None
