from __future__ import annotations

import random
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.log_upload import VALID_EXTENSIONS, LogName

TYPES = st.text("ABCUPhonexyz0189-", min_size=1, max_size=12)
IDS = st.text("ABC0189-_:", min_size=1, max_size=20)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2099, 1, 1)).map(lambda moment: moment.replace(microsecond=0))


@given(TYPES, IDS, TIMES, st.integers(0, 1))
def test_the_documented_form(device_type: str, device_id: str, written: datetime, number: int) -> None:
    name = f"{device_type}_{device_id}-{written:%Y%m%d}-CELOG{written:%H%M%S}_{number}.clg"
    found = LogName.parse(f"\\\\server\\Logs\\Client\\CE Log\\{name}")
    assert found == LogName(name, "CELog", "documented", device_type, device_id, written, number)


def test_the_example_that_does_not_fit_the_form() -> None:
    found = LogName.parse("20090501170926-CELOG0.clg")
    assert (found.form, found.log_type, found.number) == ("example", "CELog", 0)
    assert found.written == datetime(2009, 5, 1, 17, 9, 26)
    assert (found.device_type, found.device_id) == ("", "")


@pytest.mark.parametrize(
    ("name", "log_type"), [("abc.kdmp", "Watson"), ("x.DMP", "Watson"), ("RTConfig.xml", "Config"), ("a.bin", None)]
)
def test_other_names_are_told_by_their_extension(name: str, log_type: str | None) -> None:
    shown = LogName.parse(name).to_json()
    assert (shown["fact"], shown["log_type"], shown["form"]) == ("log-upload", log_type, "other")


def test_a_date_that_is_none_is_told() -> None:
    found = LogName.parse("20091399250000-CELOG0.clg")
    assert found.written is None
    assert "no date" in found.problems[0]


@pytest.mark.parametrize("name", ["", "x", "a.exe", "clg", "a.clg.exe", "x" * 300 + ".clg"])
def test_other_extensions_are_refused(name: str) -> None:
    with pytest.raises(DissectError):
        LogName.parse(name)


def test_noise_raises_nothing_else() -> None:
    rng = random.Random(2009)
    for _ in range(3000):
        name = "".join(rng.choices("09_-.CELOG\\/é", k=rng.randrange(30))) + rng.choice(VALID_EXTENSIONS)
        LogName.parse(name).to_json()
