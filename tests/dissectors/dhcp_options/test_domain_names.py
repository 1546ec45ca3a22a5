from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded
from dissectors.dhcp_options.domain_names import MAX_NAMES, build_names, parse_names

LABELS = st.lists(st.binary(min_size=1, max_size=63), min_size=1, max_size=3)


def wire(labels: list[bytes]) -> bytes:
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


@given(st.lists(LABELS, min_size=1, max_size=4))
def test_any_labels_survive_the_text_form(names: list[list[bytes]]) -> None:
    data = b"".join(map(wire, names))
    assert build_names(parse_names(data)) == data


def test_text_form_is_that_of_zone_files() -> None:
    assert parse_names(b"\x03a.b\x02c\\\x01\x07\0\0") == ("a\\.b.c\\\\.\\007", ".")
    assert build_names(("sip.contoso.com.",)) == build_names(("sip.contoso.com",))


def test_compressed_names_are_followed_backwards() -> None:
    data = b"\x03eng\x05apple\x03com\x00\x09marketing\xc0\x04"  # the example of RFC 3397 section 2
    assert parse_names(data) == ("eng.apple.com", "marketing.apple.com")


@pytest.mark.parametrize("data", [b"\x01a\xc0\x00", b"\x01a\xc0\x02", b"\xc0\x02\xc0\x00", b"\x01a\x00\xc0", b"\xc0"])
def test_pointers_that_lead_nowhere_are_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        parse_names(data)


def test_a_chain_of_pointers_ends() -> None:
    chain = b"\x01a\x00" + b"".join(b"\xc0" + bytes([max(0, at - 2)]) for at in range(3, 203, 2))
    with pytest.raises(DissectError):
        parse_names(chain + b"\xc1\x00")


def test_limits() -> None:
    with pytest.raises(LimitExceeded, match="names"):
        parse_names(b"\x01a\x00" * (MAX_NAMES + 1))
    with pytest.raises(LimitExceeded, match="255"):
        parse_names(wire([b"x" * 63] * 4))
    with pytest.raises(LimitExceeded, match="255"):
        build_names((".".join(["x" * 63] * 4),))


@pytest.mark.parametrize("name", ["", "a..b", ".a", "\\256", "a\\", "x" * 64, "ä"])
def test_names_that_are_none_are_not_built(name: str) -> None:
    with pytest.raises(DissectError):
        build_names((name,))


def test_noise_raises_nothing_else() -> None:
    rng = random.Random(1035)
    for _ in range(5000):
        data = bytes(rng.choice((0, 1, 2, 3, 0xC0, rng.randrange(256))) for _ in range(rng.randrange(30)))
        try:
            names = parse_names(data)
        except DissectError:
            continue
        assert parse_names(build_names(names)) == names
