from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.version import MAX_PART, ZERO, Version

PARTS = st.integers(0, MAX_PART)


@given(PARTS, PARTS, PARTS, PARTS)
def test_what_is_printed_is_read_again(major: int, minor: int, build: int, qfe: int) -> None:
    version = Version(major, minor, build, qfe)
    assert Version.parse(str(version)) == version


def test_order_is_numeric() -> None:
    path = ["1.0.199.123", "1.0.522.73", "1.0.522.101", "1.0.522.103", "3.5.6907.35", "3.5.6907.222", "4.0.7577.4066"]
    assert sorted(path, key=Version.parse) == path
    assert ZERO.is_zero
    assert not Version.parse("0.0.0.1").is_zero


WRONG = ["", "1.0", "1.0.522", "1.0.522.73.1", "1.0.522.x", "1.0.-1.2", "٣.5.6907.1", "1.0.522.99999999999"]


@pytest.mark.parametrize("text", WRONG)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(DissectError):
        Version.parse(text)
