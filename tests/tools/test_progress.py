from __future__ import annotations

import io

import pytest

from tools import progress
from tools.progress import Progress


class Terminal(io.StringIO):
    """Standard error as a person sees it."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Called in the test itself: pytest puts a stream of its own in place before each."""
    made = Terminal()
    monkeypatch.setattr("sys.stderr", made)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return made


def test_long_work_shows_how_much_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with Progress("decoding", 4_000_000) as shown:
        shown.advance(1_000_000)
        shown.advance(2_000_000)
        shown.hide()
        assert "decoding" in screen.getvalue()
        assert "3.0/4.0 MB" in screen.getvalue()


def test_short_work_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = terminal(monkeypatch)
    monkeypatch.setattr(progress, "PATIENCE", 3600.0)
    with Progress("decoding") as shown:
        shown.advance(1_000_000)
    assert screen.getvalue() == ""


def test_a_pipe_is_shown_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    with Progress("decoding") as shown:
        shown.advance(1_000_000)
    assert capsys.readouterr().err == ""
