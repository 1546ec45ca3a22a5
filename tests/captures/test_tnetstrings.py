from __future__ import annotations

import io
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.io import tnetstring

from captures import tnetstrings
from captures.tnetstrings import flow_id, read_records
from dissectors.errors import DissectError, LimitExceeded

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.binary() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), VALUES), max_size=4))
def test_what_mitmproxy_writes_passes(values: list[dict[str, object]]) -> None:
    file = b"".join(map(tnetstring.dumps, values))
    records = list(read_records(io.BytesIO(file)))
    assert b"".join(record.data for record in records) == file
    assert not any(record.refused for record in records)


@given(st.dictionaries(st.text(max_size=3) | st.just("id"), VALUES | st.just("id"), max_size=6), st.text())
def test_the_id_of_a_flow(values: dict[str, object], name: str) -> None:
    (record,) = read_records(io.BytesIO(tnetstring.dumps({**values, "id": name})))
    assert flow_id(record) == name.encode()
    (record,) = read_records(io.BytesIO(tnetstring.dumps({key: each for key, each in values.items() if key != "id"})))
    assert flow_id(record) is None


@given(st.binary(max_size=60), st.sampled_from([b"", b"3:0:~}", b"5:"]))
def test_anything_is_read_or_refused(data: bytes, before: bytes) -> None:
    try:
        for record in read_records(io.BytesIO(before + data)):
            flow_id(record)
            if not record.refused:
                try:
                    tnetstring.loads(record.data)
                except (ValueError, TypeError):
                    continue
    except DissectError:
        return


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"2:-1~", "the length of a value"),
        (b"8:-1:-1:-1:", "the length of a value"),
        (b"4:99:,", "a value of at most 0 bytes"),
        (b"4:1:a?", "the type of a value"),
        (b"4:01:a,", "the length of a value"),
        (b"12:99999999999:", "a value of at most 0 bytes"),
    ],
)
def test_values_that_mitmproxy_would_trip_over(value: bytes, expected: str) -> None:
    content = value.partition(b":")[2]
    (record,) = read_records(io.BytesIO(b"%d:%b}" % (len(content), content)))
    assert isinstance(record.refused, DissectError)
    assert expected in record.refused.expected


def test_reading_goes_on_behind_a_refused_record() -> None:
    first, second = read_records(io.BytesIO(b"4:1:a?}7:1:a,0:~}"))
    assert first.refused
    assert second == tnetstrings.Record(7, b"7:1:a,0:~}")


def test_not_a_dictionary() -> None:
    (record,) = read_records(io.BytesIO(b"5:hello,"))
    assert record.refused
    assert record.refused.expected == "a dictionary"


@pytest.mark.parametrize("file", [b"x", b"5:abc", b"5", b"5:hello", b"1234567890123:"])
def test_the_rest_cannot_be_read(file: bytes) -> None:
    with pytest.raises(DissectError):
        list(read_records(io.BytesIO(file)))


def test_a_lying_length_costs_nothing() -> None:
    tracemalloc.start()
    with pytest.raises(DissectError, match="the end of the file"):
        list(read_records(io.BytesIO(b"999999999999:x")))
    with pytest.raises(DissectError, match="the end of the file"):
        list(read_records(io.BytesIO(b"%d:x" % (tnetstrings.MAX_RECORD - 1))))
    assert tracemalloc.get_traced_memory()[1] < 4_000_000
    tracemalloc.stop()


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(file: bytes) -> DissectError | None:
        (record,) = read_records(io.BytesIO(file))
        return record.refused

    deep = b"0:]"
    for _ in range(tnetstrings.MAX_DEPTH):
        deep = b"%d:%b]" % (len(deep), deep)
    assert isinstance(refusal(b"%d:%b}" % (len(deep), deep)), LimitExceeded)
    monkeypatch.setattr(tnetstrings, "MAX_VALUES", 10)
    assert refusal(b"30:%b}" % (b"0:~" * 10)) is None
    assert isinstance(refusal(b"33:%b}" % (b"0:~" * 11)), LimitExceeded)
    monkeypatch.setattr(tnetstrings, "MAX_RECORD", 20)
    assert isinstance(refusal(b"30:%b}" % (b"0:~" * 10)), LimitExceeded)
