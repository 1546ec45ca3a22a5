from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.certificates import tlv, values
from dissectors.certificates.tlv import Node, parse_one
from tests.dissectors.certificates import building
from tests.dissectors.certificates.building import leaf, node

ARCS = st.tuples(st.integers(0, 2), st.integers(0, 39)).flatmap(
    lambda head: st.lists(st.integers(0, 1 << 130), max_size=6).map(lambda tail: [*head, *tail])
)


def primitive(number: int, value: bytes) -> Node:
    return parse_one(leaf(number, value))


@given(ARCS)
def test_an_identifier_reads_as_it_was_written(arcs: list[int]) -> None:
    dotted = ".".join(map(str, arcs))
    assert values.oid(parse_one(building.oid(dotted))) == dotted


@given(st.integers(-(1 << 600), 1 << 600))
def test_an_integer_reads_as_it_was_written(number: int) -> None:
    assert values.integer(parse_one(building.integer(number))) == number
    assert int(values.hex_text(number), 16) == number


@pytest.mark.parametrize(
    ("number", "value", "moment"),
    [
        (tlv.UTC_TIME, b"490101000000Z", datetime(2049, 1, 1, tzinfo=UTC)),
        (tlv.UTC_TIME, b"500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (tlv.UTC_TIME, b"0904111024Z", datetime(2009, 4, 11, 10, 24, tzinfo=UTC)),
        (tlv.UTC_TIME, b"090411102418+0130", datetime(2009, 4, 11, 8, 54, 18, tzinfo=UTC)),
        (tlv.GENERALIZED_TIME, b"20500101000000Z", datetime(2050, 1, 1, tzinfo=UTC)),
        (tlv.GENERALIZED_TIME, b"20090411102418.25Z", datetime(2009, 4, 11, 10, 24, 18, tzinfo=UTC)),
    ],
)
def test_times_in_every_form(number: int, value: bytes, moment: datetime) -> None:
    assert values.time(primitive(number, value)) == moment


@pytest.mark.parametrize(
    "value", [b"", b"991332000000Z", b"0904111024", b"0904111024Zx", b"000229246060Z", b"010101000000+9999"]
)
def test_what_is_no_time_is_refused(value: bytes) -> None:
    with pytest.raises(DissectError):
        values.time(primitive(tlv.UTC_TIME, value))


def test_a_time_that_leaves_the_calendar_is_refused() -> None:
    with pytest.raises(DissectError):
        values.time(primitive(tlv.GENERALIZED_TIME, b"00010101000000+2300"))


@pytest.mark.parametrize(
    ("number", "value", "text"),
    [
        (tlv.BMP_STRING, "Größe".encode("utf-16-be"), "Größe"),
        (tlv.UTF8_STRING, b"ab\xff", "ab\\xff"),
        (tlv.PRINTABLE_STRING, b"a\x80", "a\\x80"),
        (tlv.T61_STRING, b"\xe9", "é"),
        (tlv.BMP_STRING, b"\xd8\x00\x00A", "\\xd8\\x00A"),
    ],
)
def test_text_in_every_encoding(number: int, value: bytes, text: str) -> None:
    assert values.text(primitive(number, value)) == text


def test_a_string_in_pieces_is_joined() -> None:
    pieces = node(tlv.OCTET_STRING, leaf(tlv.OCTET_STRING, b"ab"), leaf(tlv.OCTET_STRING, b"cd"))
    assert values.octet_string(parse_one(pieces)) == b"abcd"


@pytest.mark.parametrize("value", ["", "80", "2a86", "88" * 300])
def test_a_broken_identifier_is_refused(value: str) -> None:
    with pytest.raises(DissectError):
        values.oid(primitive(tlv.OID, bytes.fromhex(value)))
