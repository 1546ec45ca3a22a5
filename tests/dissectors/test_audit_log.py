"""All rows here are synthetic: no real row of this log is public (protocol.md section 3.2)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.audit_log import COLUMNS, AuditLogName, AuditRow, header_text, read_rows
from dissectors.errors import DissectError, LimitExceeded
from dissectors.installed_module import NOTHING_INSTALLED, AnswerModule, InstalledModule
from dissectors.version import Version

ROW = AuditRow(
    logged="2009-03-17 21:04:05",
    user_host_address="192.168.7.81",
    device_type="UCPhone",
    mac="0004F2000176",
    serial="07823-A345",
    vendor="Polycom",
    model="CX700",
    revision="A",
    locale="ENU",
    request_modules=(InstalledModule("CPE.nbt", Version(1, 0, 522, 73), "03-17-2008 10:00:00"), NOTHING_INSTALLED),
    response_modules=(AnswerModule("CPE.nbt", "CPE.cat", Version(1, 0, 522, 103), "03-17-2009 10:00:00"),),
    user_id="litware\\upgrade",
    line=2,
)


def read(text: str, encoding: str = "utf-8") -> list[AuditRow]:
    return list(read_rows([text.encode(encoding)]))


def log(*rows: AuditRow, delimiter: str = ",") -> str:
    return "\r\n".join([header_text(delimiter), *(row.to_text(delimiter) for row in rows), ""])


def test_a_row_reads_as_written() -> None:
    assert read(log(ROW)) == [ROW]
    assert ROW.to_text() == (
        "2009-03-17 21:04:05,192.168.7.81,UCPhone,0004F2000176,07823-A345,Polycom,CX700,A,ENU,"
        "CPE.nbt;1.0.522.73;03-17-2008 10:00:00#0.0.0.0;01-01-1601 00:00:00,"
        "CPE.nbt;CPE.cat;1.0.522.103;03-17-2009 10:00:00,litware\\upgrade"
    )
    assert ROW.normal_mac == "00:04:f2:00:01:76"
    assert ROW.when == datetime(2009, 3, 17, 21, 4, 5)


words = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12).map(str.strip)
parts = st.text(
    st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"], blacklist_characters=";#"), max_size=8
).map(lambda text: text.strip() or None)
versions = st.builds(Version, *[st.integers(0, 0xFFFF)] * 4)
rows = st.builds(
    AuditRow,
    **{name: words for name in COLUMNS if not name.endswith("_modules") and name != "mac"},
    mac=st.sampled_from(["", "0004F2000176", "00-04-F2-00-01-76"]),
    request_modules=st.lists(st.builds(InstalledModule, parts, versions, parts), max_size=3).map(tuple),
    response_modules=st.lists(st.builds(AnswerModule, parts, parts, versions, parts), max_size=3).map(tuple),
)


@given(st.lists(rows, max_size=4), st.sampled_from(",;\t|"), st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_any_rows_come_back(some: list[AuditRow], delimiter: str, encoding: str) -> None:
    found = read(log(*some, delimiter=delimiter), encoding)
    assert [row.to_text() for row in found] == [row.to_text() for row in some]
    assert [(row.request_modules, row.response_modules, row.problems) for row in found] == [
        (row.request_modules, row.response_modules, ()) for row in some
    ]


def test_the_user_is_shown_only_when_asked_for() -> None:
    shown = ROW.to_json()
    assert (shown["user_id"], shown["mac_address"], shown["serial"]) == (
        "<redacted>",
        "00:04:f2:00:01:76",
        "07823-A345",
    )
    assert ROW.to_json(secrets=True)["user_id"] == "litware\\upgrade"
    assert AuditRow("").to_json()["user_id"] is None


@pytest.mark.parametrize(
    ("title", "text", "hidden"),
    [
        ("User Name", "Amy Bright", True),
        ("Last User", "amy", True),
        ("E-Mail", "amy", True),
        ("SIP URI", "amy", True),
        ("Whatever", "sip:amy@contoso.com", True),
        ("Whatever", "contoso\\amy", True),
        ("User Agent", "OCPhone/1.0.522.73", False),
        ("Last Update Status", "0x0;200", False),
        ("Response Modules", "CPE.nbt;1.0.522.103", False),
    ],
)
def test_users_in_undocumented_columns_are_shown_only_when_asked_for(title: str, text: str, hidden: bool) -> None:
    row = AuditRow("", extra=((title, text),))
    assert row.to_json()["extra"] == [[title, "<redacted>" if hidden else text]]
    assert row.to_json(secrets=True)["extra"] == [[title, text]]


def test_semicolons_between_columns_and_within_modules_are_told_apart() -> None:
    unquoted = log(ROW).replace(",", ";")
    assert read(unquoted) == [ROW]
    blank = "2009-03-17 21:04:05;10.0.0.1;UCPhone;;;Polycom;CX700;A;ENU;0.0.0.0;01-01-1601 00:00:00;;litware\\x"
    (row,) = read(f"{header_text(';')}\n{blank}\n")
    assert (row.request_modules, row.response_modules, row.user_id) == ((NOTHING_INSTALLED,), (), "litware\\x")


def test_column_names_are_matched_loosely_and_in_any_order() -> None:
    (row,) = read('"MODEL", "Logging Date Time","mac_address",  "User ID"\nCX700, 2009-03-17 21:04:05,,a\\b\n')
    assert (row.model, row.logged, row.mac, row.user_id, row.vendor) == ("CX700", "2009-03-17 21:04:05", "", "a\\b", "")
    assert row.problems == ()


def test_unknown_columns_are_kept_by_their_title() -> None:
    (row,) = read("Logging DateTime,Vendor,Model,Last Update Status\nx,Polycom,CX700,0x0;200,surplus\n")
    assert row.extra == (("Last Update Status", "0x0;200"), ("column 5", "surplus"))


def test_missing_columns_are_told_a_missing_user_is_not() -> None:
    whole = ROW.to_text().split(",")
    assert read(header_text() + "\n" + ",".join(whole[:-1]))[0].problems == ()
    (row,) = read(header_text() + "\n" + ",".join(whole[:7]))
    assert (row.model, row.problems) == ("CX700", ("7 columns of 12",))


def test_modules_that_cannot_be_read_stay_visible() -> None:
    broken = ROW.to_text().replace("1.0.522.73", "1.0.522").replace("CPE.cat;", "")
    (row,) = read(header_text() + "\n" + broken)
    assert (row.request_modules, row.response_modules, len(row.problems)) == ((), (), 2)
    assert dict(row.extra)["Response Modules"] == "CPE.nbt;1.0.522.103;03-17-2009 10:00:00"
    assert row.user_id == "litware\\upgrade"


def test_without_a_header_the_documented_order_holds() -> None:
    for delimiter in ",;\t":
        assert [row.model for row in read(ROW.to_text(delimiter) + "\n" + ROW.to_text(delimiter))] == ["CX700"] * 2


def test_joined_files_may_change_their_header() -> None:
    text = log(ROW) + "Logging Date Time,Model,Vendor\n2010,CX600,POLYCOM\n" + log(ROW)
    assert [(row.vendor, row.model) for row in read(text)] == [
        ("Polycom", "CX700"),
        ("POLYCOM", "CX600"),
        ("Polycom", "CX700"),
    ]


def test_what_a_spreadsheet_adds_is_skipped() -> None:
    assert [row.model for row in read("\ufeffsep=;\n\n" + log(ROW, delimiter=";"))] == ["CX700"]


def test_a_broken_mac_is_told() -> None:
    (row,) = read(log(ROW).replace("0004F2000176", "4.2E+09"))
    assert row.problems == ("not a MAC address: '4.2E+09'",)


@pytest.mark.parametrize("text", ["<html>\n", "#Software: Microsoft Internet Information Services 7.0\n", "\x01\x02\n"])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(DissectError):
        read(text)


@given(st.binary(max_size=300))
def test_any_bytes_give_rows_or_the_one_error(data: bytes) -> None:
    for start in (b"", f"{header_text()}\n".encode(), f"{header_text(';')}\n".encode()):
        try:
            for row in read_rows([start + data]):
                row.to_json()
        except DissectError:
            pass


def test_an_endless_line_is_refused_in_time() -> None:
    with pytest.raises(LimitExceeded):
        list(read_rows(b";" * 65536 for _ in range(1000)))


def test_a_row_that_has_no_such_form_is_not_written() -> None:
    for wrong in (
        AuditRow("a\nb"),
        AuditRow(" a"),
        AuditRow("", response_modules=(AnswerModule("a#b", "", None, ""),)),
    ):
        with pytest.raises(DissectError):
            wrong.to_text()


def test_a_long_log_is_read_in_constant_memory() -> None:
    line = ROW.to_text().encode() + b"\r\n"

    def chunks() -> Iterator[bytes]:
        yield header_text().encode() + b"\r\n"
        for _ in range(200):
            yield line * 20

    tracemalloc.start()
    try:
        count = sum(1 for _ in read_rows(chunks()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 4000
    assert peak < 300_000 < 4000 * len(line)


@pytest.mark.parametrize(
    ("name", "server", "date", "roll"),
    [
        ("RequestHandlerAuditLog_OCS-FE_01_2009-03-17.log", "OCS-FE_01", "2009-03-17", ""),
        ("requesthandlerauditlog_pool01_20090317.log.csv", "pool01", "20090317", ""),
        ("RequestHandlerAuditLog_pool01_03-17-2009_2.log", "pool01", "03-17-2009", "2"),
    ],
)
def test_file_names(name: str, server: str, date: str, roll: str) -> None:
    assert AuditLogName.parse(name) == AuditLogName(server, date, roll)


def test_other_file_names_are_refused() -> None:
    with pytest.raises(DissectError):
        AuditLogName.parse("u_ex090317.log")
