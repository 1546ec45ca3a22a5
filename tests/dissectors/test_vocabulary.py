from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.vocabulary import MAX_PROFILE, Vocabulary, normal_name

DEFAULT = Vocabulary.default()


@pytest.mark.parametrize("name", ["MACAddress", "mac_address", "MAC Address", "ns:Mac-Address", "mac.address"])
def test_spelling_does_not_count(name: str) -> None:
    assert DEFAULT.field_of(name, "Request") == "mac"


def test_the_two_published_names_are_known() -> None:
    assert DEFAULT.field_of("BaseURL", "") == "base_url"
    assert DEFAULT.field_of("ExternalBaseURL", "") == "external_base_url"


def test_an_owner_can_be_asked_for() -> None:
    assert DEFAULT.field_of("Name", "x:Module") == "file"
    assert DEFAULT.field_of("Name", "User") is None


def test_a_profile_adds_names_and_wins() -> None:
    mine = DEFAULT.extended('[aliases]\nmac = ["Hw/Addr"]\nserial = ["SN2", "Model"]\n[generic]\nname = ["Label"]\n')
    assert mine.field_of("addr", "HW") == "mac"
    assert mine.field_of("addr", "Other") is None
    assert mine.field_of("sn-2", "") == "serial"
    assert mine.field_of("Model", "") == "serial"
    assert mine.field_of("MACAddress", "") == "mac"
    assert mine.generic["label"] == "name"
    assert DEFAULT.field_of("sn2", "") is None


WRONG = {
    "mac = ": "a TOML profile",
    "a = " + "[" * 5000: "",
    "a = " + "1" * 5000: "a TOML profile",
    "[names]\n": "only the tables",
    "aliases = 3": "a table",
    "[aliases]\nimei = ['x']": "a field of",
    "[aliases]\nmac = 'x'": "a list",
    "[aliases]\nmac = [3]": "names in quotes",
    "[aliases]\nmac = ['']": "a Name",
    "[aliases]\nmac = ['a/b/c']": "a Name",
    "[aliases]\nmac = ['" + "x" * 100 + "']": "a Name",
    "[aliases]\nmac = ['x']\nuser = ['X']": "one field alone",
    "#" * (MAX_PROFILE + 1): "at most",
}


@pytest.mark.parametrize("text", WRONG, ids=lambda text: text[:30])
def test_wrong_profiles_are_refused_with_the_reason(text: str) -> None:
    with pytest.raises(DissectError) as caught:
        DEFAULT.extended(text)
    assert WRONG[text] in caught.value.expected


def test_the_place_of_a_syntax_error_is_told() -> None:
    text = "[aliases]\nmac = ['x']\nuser == 3\n"
    with pytest.raises(DissectError) as caught:
        DEFAULT.extended(text)
    assert caught.value.offset == text.index("== 3") + 1


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(DissectError):
        DEFAULT.extended(text)


@given(st.text(max_size=80))
def test_normal_names_are_normal(name: str) -> None:
    assert normal_name(normal_name(name)) == normal_name(name)
