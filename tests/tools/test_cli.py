from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bodies import REPORT_ZERO
from tests.conftest import ROOT
from tests.strangers import as_a_stranger, for_everybody
from tests.tools.test_phones import CHECKS, record
from tools.cli import main

UPSHIM = (sys.executable, "-m", "tools")


def upshim(*words: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UPSHIM, *words], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False, cwd=ROOT
    )


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    record(tmp_path / "rec", CHECKS, folded=True)
    return tmp_path / "rec"


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["phones", "--help"],
        ["rules", "example"],
        ["deploy", "haproxy", "--upstream", "http://10.0.0.5"],
        ["doctor"],
        ["exchanges", "RECORDING"],
        ["exchanges", "--json", "RECORDING"],
        ["phones", "RECORDING"],
        ["journal", "show", "RECORDING"],
        ["journal", "verify", "RECORDING"],
        ["convert", "RECORDING", "OUT"],
        ["forget", "--mac", "00-04-F2-00-01-76", "RECORDING"],
        ["decode", "RECORDING/store.sqlite"],
    ],
)
def test_a_full_disk_behind_standard_output_is_one_line(recording: Path, words: list[str]) -> None:
    places = {"RECORDING": str(recording), "RECORDING/store.sqlite": str(recording / "store.sqlite")}
    places["OUT"] = str(recording.parent / "out.har")
    with Path("/dev/full").open("wb") as full:
        done = upshim(*(places.get(word, word) for word in words), stdout=full.fileno())
    assert done.stderr.endswith(": standard output: No space left on device\n")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("words", [["rules", "example"], ["--help"], ["--version"]])
def test_a_reader_who_has_gone_is_nobody_to_complain_to(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = upshim(*words, stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_cannot_be_shown_is_escaped(tmp_path: Path) -> None:
    done = upshim("decode", os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_the_version_is_told_where_it_can_be_piped() -> None:
    done = upshim("--version")
    assert done.stdout.startswith("upshim ")
    assert done.stderr == ""


def test_an_interrupt_while_modules_are_loaded_is_no_traceback(tmp_path: Path) -> None:
    # A verb that is still being imported when the key is pressed.
    slow = tmp_path / "slow.py"
    slow.write_text("import tools.cli\ntools.cli.VERBS['slow'] = 'slow_verb'\nraise SystemExit(tools.cli.main())\n")
    (tmp_path / "slow_verb.py").write_text("print('here', flush=True)\nimport time\ntime.sleep(60)\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    with subprocess.Popen(
        [sys.executable, str(slow), "slow"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"here\n"
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    "words",
    [
        ["exchanges", "RECORDING"],
        ["phones", "RECORDING"],
        ["journal", "verify", "RECORDING"],
        ["forget", "--mac", "00-04-F2-00-09-99", "RECORDING"],
        ["replay", "--rules", "RULES", "RECORDING"],
        ["decode", "RECORDING"],
    ],
)
def test_a_recording_of_somebody_else_is_one_line(
    recording: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with for_everybody() as reachable:
        folder = reachable / "rec"
        shutil.copytree(recording, folder)
        rules = reachable / "rules.toml"
        rules.write_text(REPORT_ZERO)
        words = [{"RECORDING": str(folder), "RULES": str(rules)}.get(word, word) for word in words]
        main([*words, "--json"])  # what is imported late is there, whoever may read it
        capsys.readouterr()
        with as_a_stranger(folder, 0):
            assert main(words) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"upshim {words[0]}: {folder}")
        assert err.endswith(": Permission denied\n")
        if words[0] in {"exchanges", "decode"}:  # the others are still read
            with as_a_stranger(folder, 0):
                assert main([*words, str(rules)]) == 2
            assert capsys.readouterr().err.startswith(err)
