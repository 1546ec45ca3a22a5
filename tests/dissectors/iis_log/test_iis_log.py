from __future__ import annotations

import json
import random
import re
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain, cycle, islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded
from dissectors.iis_log import Entry, LogReader, LogSummary, looks_like_iis_log
from dissectors.iis_log.reader import MAX_FIELDS, MAX_LINES_WITHOUT_FIELDS
from dissectors.lines import MAX_LINE
from dissectors.update_urls import Resource

FIELDS = (
    "date time s-ip cs-method cs-uri-stem cs-uri-query s-port cs-username c-ip cs(User-Agent) sc-status sc-substatus"
)
HEAD = f"#Software: Microsoft Internet Information Services 7.5\n#Date: 2011-02-03 00:00:00\n#Fields: {FIELDS}\n"


def read(text: str) -> list[Entry]:
    return list(LogReader().read([text.encode()]))


def manifest(corpus: Path) -> Iterator[tuple[str, int]]:
    for line in (corpus / "MANIFEST.tsv").read_text().splitlines():
        name, *rest = line.split("\t")
        if name.startswith("logs/") and (told := re.search(r"(\d+) data lines", " ".join(rest))):
            yield name, int(told[1])


def test_every_log_of_the_corpus_has_its_lines(corpus: Path) -> None:
    listed = list(manifest(corpus))
    assert listed
    for name, count in listed:
        data = (corpus / name).read_bytes()
        assert looks_like_iis_log(data)
        for size in (1, 100, len(data)):
            summary = LogSummary()
            entries = list(summary.read(data[at : at + size] for at in range(0, len(data), size)))
            assert len(entries) == summary.entries == count, name
            assert not summary.problem_count, name
            assert all(entry.moment or entry.local_time for entry in entries)
        json.dumps(summary.to_json())


def test_the_times_are_those_written(corpus: Path) -> None:
    written = re.compile(r"^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)")
    for name in ("plaso-iis6.log", "plaso-iis10_edge_cases.log", "plaso-iis7_owa.log"):
        data = (corpus / "logs" / name).read_bytes()
        told = [" ".join(match.groups()) for line in data.decode().splitlines() if (match := written.match(line))]
        assert [f"{entry.moment:%Y-%m-%d %H:%M:%S}" for entry in LogReader().read([data])] == told


VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12)


@given(st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=5), st.booleans())
def test_values_are_read_as_written(rows: list[list[str]], quoted: bool) -> None:
    def value(text: str) -> str:
        return '"' + text.replace('"', '""') + '"' if quoted or text.startswith('"') else text

    lines = [" ".join(("/x", *map(value, row))) for row in rows]
    found = read("#Fields: cs-uri-stem a b c\n" + "\n".join(lines) + "\n")
    assert [list(entry.values[1:]) for entry in found] == rows


def test_a_phone_s_check_and_the_steps_of_its_logon() -> None:
    line = "2011-02-03 04:05:06 192.0.2.1 POST /RequestHandlerExt/ucdevice.upx - 443 {} 198.51.100.7 - {}"
    entries = read(HEAD + "\n".join([line.format("-", "401 2"), line.format("CONTOSO\\amy", "200 0")]))
    assert [entry.resource for entry in entries] == [Resource.UPDATE_HANDLER] * 2
    assert [(entry.status, entry.user, entry.client) for entry in entries] == [
        (401, None, "198.51.100.7"),
        (200, "CONTOSO\\amy", "198.51.100.7"),
    ]
    first = entries[0].to_json()
    assert first["time"] == "2011-02-03T04:05:06.000000Z"
    assert "step of every NTLM logon" in first["meaning"]["cause"]
    summary = LogSummary()
    list(summary.read([(HEAD + "\n".join([line.format("-", "401 2"), line.format("x", "200 0")])).encode()]))
    shown = summary.to_json()
    assert shown["resources"] == {"update-handler": {"200": 1, "401": 1}}
    assert (shown["kind"], shown["update_clients"], shown["entries"]) == ("iis-log", 1, 2)


def test_spaces_in_a_user_agent_come_back() -> None:
    line = "2011-02-03 04:05:06 192.0.2.1 GET /a b=c 80 - 192.0.2.2 Mozilla/4.0+(compatible;+MSIE+6.0) 200 0"
    (entry,) = read(HEAD + line)
    assert entry.user_agent == "Mozilla/4.0 (compatible; MSIE 6.0)"
    assert entry.values[9] == "Mozilla/4.0+(compatible;+MSIE+6.0)"
    assert entry.target == "/a?b=c"


def test_fields_may_change_on_the_way() -> None:
    summary = LogSummary()
    text = "#Fields: time c-ip\n00:00:01 192.0.2.1\n#Fields: c-ip sc-status\n192.0.2.2 404\n#Fields: c-ip sc-status\n"
    entries = list(summary.read([text.encode()]))
    assert [(entry.client, entry.status) for entry in entries] == [("192.0.2.1", None), ("192.0.2.2", 404)]
    assert summary.reader.field_changes == 1


def test_without_a_date_column_the_directive_counts_and_midnight_passes() -> None:
    head = "#Date: 2011-12-31 23:00:00\n#Fields: time c-ip\n"
    entries = read(
        head + "23:59:59 a\n00:00:01 b\n00:00:00 c\n23:59:59 d\n00:00:01 e\n#Date: 2011-12-31 00:00:00\n01:00:00 f\n"
    )
    days = [entry.moment.date().isoformat() if entry.moment else None for entry in entries]
    assert days == ["2011-12-31", "2012-01-01", "2012-01-01", "2012-01-01", "2012-01-02", "2011-12-31"]
    (lost,) = read("#Fields: time c-ip\n10:00:00 a\n")
    assert (lost.moment, lost.problems) == (None, ("no date: neither a column nor #Date",))


def test_local_times_are_not_taken_for_utc(corpus: Path) -> None:
    entries = list(LogReader().read([(corpus / "logs/lnav-logfile_w3c.3").read_bytes()]))
    assert [entry.moment for entry in entries] == [None] * 3
    assert entries[0].local_time == "2012-08-15 17:00:00.363"
    assert entries[2].get("sc-substatus") == ' "garbage" w/ spaces '


def test_lines_that_do_not_fit_are_told() -> None:
    entries = read(
        "#Fields: date time c-ip sc-status\n2011-01-01 00:00:00 a\n2011-13-01 00:00:00 a 200 more\nx y z 1\n"
    )
    assert [entry.problems[0] for entry in entries[:2]] == ["3 values for 4 fields", "5 values for 4 fields"]
    assert all("no date and time" in entry.problems[-1] for entry in entries[1:])
    assert entries[0].moment == datetime(2011, 1, 1, tzinfo=UTC)


def test_an_open_quotation_mark_is_a_plain_one() -> None:
    (entry,) = read('#Fields: a b c\n"x y z\n')
    assert entry.values == ('"x', "y", "z")


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "cp1252"])
def test_resaved_logs_are_read(codec: str) -> None:
    (entry,) = LogReader().read(["#Fields: c-ip cs-username\r\n10.0.0.1 DOM\\jürgen\r\n".encode(codec)])
    assert entry.user == "DOM\\jürgen"


@pytest.mark.parametrize(
    "text", ["", "hello\n", "#Software: x\n", "#Fields:\na b\n", "a,b\n" * (MAX_LINES_WITHOUT_FIELDS + 2)]
)
def test_what_has_no_fields_is_refused(text: str) -> None:
    assert not looks_like_iis_log(text.encode()) or text.startswith("#Fields:")
    with pytest.raises(DissectError, match="#Fields"):
        read(text)


ENTRY = "2011-02-03 04:05:06 192.0.2.1 GET / - 80 - 192.0.2.7 - 200 0\n"


@pytest.mark.parametrize("before", ["\n \n", "\t\n", ENTRY, "04:05:06 192.0.2.1 GET\n", ENTRY * 200])
def test_a_log_may_begin_with_blank_lines_or_entries(before: str) -> None:
    assert looks_like_iis_log((before + HEAD + ENTRY).encode())
    assert len(read(before + HEAD + ENTRY)) == 1


@pytest.mark.parametrize("before", ["The log has these lines:\n", "2011 was\n"])
def test_words_about_a_log_are_none(before: str) -> None:
    assert not looks_like_iis_log((before + HEAD + ENTRY).encode())


def test_limits() -> None:
    with pytest.raises(LimitExceeded, match="fields"):
        read("#Fields: " + "a " * (MAX_FIELDS + 1) + "\n")
    with pytest.raises(LimitExceeded, match="line"):
        list(LogReader().read([b"#Fields: a\n", *[b"x" * 1024] * (MAX_LINE // 1024 + 1)]))


def test_memory_does_not_grow_with_the_log() -> None:
    rows = [b"2011-02-03 04:05:06 192.0.2.1 POST /RequestHandler/ucdevice.upx - 80 - 192.0.2.7 - 200 0\n" * 100]
    summary = LogSummary()
    tracemalloc.start()
    entries = sum(1 for _ in summary.read(chain([HEAD.encode()], islice(cycle(rows), 200))))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert entries == summary.entries == 20_000
    assert peak < 512 * 1024  # the text alone is 1.8 MB


def test_noise_raises_nothing_else(corpus: Path) -> None:
    rng = random.Random(1996)
    texts = [path.read_bytes()[:3000] for path in sorted((corpus / "logs").glob("*log*"))]
    for _ in range(400):
        broken = bytearray(rng.choice(texts))
        for _ in range(rng.randrange(1, 20)):
            broken[rng.randrange(len(broken))] = rng.choice(b'\n #":-\0\xff' + bytes([rng.randrange(256)]))
        try:
            for entry in LogReader().read([bytes(broken)]):
                json.dumps(entry.to_json()).encode()
        except DissectError:
            continue
