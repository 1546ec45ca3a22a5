from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from dissectors.vocabulary import Vocabulary
from proxy_addons.failures import TELL_EVERY, Failures
from proxy_addons.log_lines import JsonLines, Lines, TextLines, event, log_decision, scrub, to_journal
from proxy_addons.rewriter import Rewriter
from proxy_addons.rules import Rules
from tests.bodies import REPORT_ZERO, check_body


def record(
    message: str, *args: object, name: str = "upshim", level: int = logging.INFO, **extra: Any
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    made.created = 1_700_000_000.25
    return made


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("sign-in of sip:amy@contoso.com failed", "sign-in of sip:*@contoso.com failed"),
        ("Authorization: NTLM TlRMTVNTUAADAAAA", "Authorization: <redacted>"),
        ("headers: b'Cookie: a=b; c=d\\r\\nHost: x'", "headers: b'Cookie: <redacted>"),
        ("('set-cookie', 'a=b')", "('set-cookie', <redacted>"),
        ("found NTLM TlRMTVNTUAADAAAA== there", "found NTLM <redacted> there"),
        ("found Basic YW15OnNlY3JldA== there", "found Basic <redacted> there"),
        ("NTLM authentication is passed through", "NTLM authentication is passed through"),
        ("model CX700\nupshim: forged\x1b[2J\u202e", "model CX700\\x0aupshim: forged\\x1b[2J\\x202e"),
        ("an Ünïcode name", "an Ünïcode name"),
    ],
)
def test_no_secrets_and_one_line(text: str, shown: str) -> None:
    assert scrub(text) == shown


def test_a_line_is_not_endless() -> None:
    assert len(scrub("x" * 100_000)) == 4000
    assert scrub("sip:" * 10_000)  # and quickly told


def test_text_has_the_time_and_the_journal_its_own() -> None:
    one = record("upshim: %s", "done", level=logging.WARNING)
    assert TextLines().format(one) == "2023-11-14T22:13:20.250Z WARNING upshim: done"
    assert TextLines(journal=True).format(one) == "<4>upshim: done"


def test_json_has_the_fields_of_the_event_and_a_traceback() -> None:
    try:
        raise ValueError("sip:amy@contoso.com\nx")
    except ValueError:
        told = record("upshim: it broke", exc_info=sys.exc_info(), **event("failure", cause="a\nb", count=3))
    line = json.loads(JsonLines().format(told))
    assert line["traceback"][-1] == "x"
    assert "sip:*@contoso.com" in line["traceback"][-2]
    del line["traceback"]
    assert line == {
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "event": "failure",
        "message": "it broke",
        "cause": "a\\x0ab",
        "count": 3,
    }
    other = json.loads(JsonLines().format(record("hello", name="mitmproxy.proxy.server")))
    assert (other["event"], other["logger"]) == ("log", "mitmproxy.proxy.server")


def test_the_line_of_a_decision(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "upshim")
    rewriter = Rewriter(Rules.parse(REPORT_ZERO.encode()), Vocabulary.default(), 1 << 20)
    log_decision(rewriter.check(check_body(Model="CX700\r\nX"), (), "10.0.0.9"), "uid", dry_run=False)
    log_decision(rewriter.check(check_body(), (), "10.0.0.9"), "uid", dry_run=True)
    log_decision(rewriter.check(b"no check", ()), "uid", dry_run=False)
    lines = [JsonLines().format(one) for one in caplog.records]
    assert [line.count("\n") for line in lines] == [0, 0]
    left, reported = map(json.loads, lines)
    assert left["action"] == "leave"
    expected = {
        "event": "decision",
        "connection": "uid",
        "address": "10.0.0.9",
        "phone": "00:04:f2:00:01:76",
        "vendor": "Polycom",
        "model": "CX700",
        "version": "1.0.522.73",
        "action": "report",
        "rule": "stuck",
        "target": "0.0.0.0",
        "dry_run": True,
    }
    assert {name: reported[name] for name in expected} == expected


def test_whether_it_is_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        assert to_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not to_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not to_journal(stream, {})
    assert not to_journal(io.StringIO(), {"JOURNAL_STREAM": "1:1"})


class Stuck(io.StringIO):
    """A pipe that nobody reads for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.free = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        assert self.free.wait(20)
        return super().write(text)


def test_a_reader_that_is_stuck_holds_nobody_up() -> None:
    stream = Stuck()
    lines = Lines(stream, TextLines(), most=3)
    lines.emit(record("first"))
    assert stream.reached.wait(20)
    for number in range(10):
        lines.emit(record("more %d", number))
    assert lines.lost == 7
    stream.free.set()
    lines.close()
    written = stream.getvalue().splitlines()
    assert [line.split(" ", 2)[2] for line in written] == [
        "first",
        "more 0",
        "more 1",
        "more 2",
        "upshim: 7 lines of this log were lost: nobody read them in time",
    ]


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    stream = io.StringIO()
    lines = Lines(stream, TextLines())
    stream.close()
    lines.emit(record("gone"))
    lines.emit(record("%d", "not a number"))
    lines.close()
    assert lines.lost >= 2


def test_what_goes_on_failing_is_told_at_intervals(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures()
    for _ in range(5):
        failures.note("a disk", "full")
    failures.note("a decoder", "at byte 3")
    failures.tell_growth(0.0)
    failures.tell_growth(TELL_EVERY - 1)
    assert len(caplog.records) == 2
    failures.tell_growth(TELL_EVERY)
    failures.tell_growth(TELL_EVERY + 1)
    assert [one.getMessage() for one in caplog.records[2:]] == ["upshim: a disk: 4 more times, 5 in all"]
    failures.note("a disk", "full")
    failures.tell_growth(2 * TELL_EVERY)
    assert json.loads(JsonLines().format(caplog.records[-1]))["count"] == 6
    failures.tell_growth(3 * TELL_EVERY)
    assert len(caplog.records) == 4
