from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions

from captures.live_recording import LiveRecording
from captures.retention import Keep
from proxy_addons.addon import Upshim
from proxy_addons.open_recording import recording_settings
from tests.proxy_addons.test_addon import in_mitmproxy


@pytest.mark.parametrize(
    ("options", "settings"),
    [
        ({}, (Keep(), "full")),
        ({"upshim_keep_days": 30, "upshim_store": "no-bodies"}, (Keep(30), "no-bodies")),
        ({"upshim_keep_bytes": 10}, (Keep(None, 10), "full")),
    ],
)
def test_options_become_settings(options: dict[str, Any], settings: tuple[Keep, str]) -> None:
    async def test(_upshim: Upshim, _context: Any) -> None:
        assert recording_settings() == settings

    in_mitmproxy(test, **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"upshim_store": "some"},
        {"upshim_keep_days": -1},
        {"upshim_keep_days": 1_000_000},
        {"upshim_keep_bytes": -1},
    ],
)
def test_wrong_options_are_refused_in_one_line(tmp_path: Path, wrong: dict[str, Any]) -> None:
    async def test(upshim: Upshim, context: Any) -> None:
        with pytest.raises(exceptions.OptionsError, match=next(iter(wrong))):
            context.configure(upshim, upshim_record=str(tmp_path), **wrong)

    in_mitmproxy(test)


def test_nothing_is_rewritten_while_the_journal_cannot_be_written(tmp_path: Path) -> None:
    async def test(upshim: Upshim, _context: Any) -> None:
        assert upshim.why_stopped() == ""
        assert isinstance(upshim.recording, LiveRecording)
        upshim.recording._link.journal_failed = True
        assert upshim.why_stopped() == "the journal cannot be written"

    in_mitmproxy(test, upshim_record=str(tmp_path))


def test_a_folder_that_others_may_look_into_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def test(_upshim: Upshim, _context: Any) -> None:
        pass

    for mode, told in ((0o755, 1), (0o700, 0)):
        caplog.clear()
        folder = tmp_path / str(mode)
        folder.mkdir()
        folder.chmod(mode)
        in_mitmproxy(test, upshim_record=str(folder))
        assert caplog.text.count(f"{folder} was there before, and others may look into it (755)") == told
        assert {path.stat().st_mode & 0o077 for path in folder.iterdir()} == {0}
