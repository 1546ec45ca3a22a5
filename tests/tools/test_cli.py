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
from tools.errors import without_passwords

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
        several = words[0] in {"exchanges", "decode"}
        # What is imported late is there then, whoever may read it.
        for form in ([*words, "--json"], words, *([[*words, str(rules)]] if several else [])):
            main(form)
        capsys.readouterr()
        with as_a_stranger(folder, 0):
            assert main(words) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert err.startswith(f"upshim {words[0]}: {folder}")
        assert err.endswith(": Permission denied\n")
        if several:  # the others are still read
            with as_a_stranger(folder, 0):
                assert main([*words, str(rules)]) == 2
            assert capsys.readouterr().err.startswith(err)


@pytest.mark.parametrize(
    "words",
    [
        ["proxy", "--upstream", "http://10.0.0.5", "http://u:secret@h"],
        ["deploy", "haproxy", "https://u:secret@127.0.0.1"],
        ["doctor", "http://u:secret@127.0.0.1"],
        ["phone", "--server", "http://u:secret@127.0.0.1:1", "--version", "1.0.522.73"],
        ["rules", "stop", "--admin", "http://u:secret@127.0.0.1:1"],
        ["exchanges", "postgresql://u:secret@127.0.0.1:1/x"],
    ],
)
def test_a_password_in_a_url_is_not_repeated(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as end:  # argparse
        code = int(end.code or 0)
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "secret" not in err
    assert ":***@" in err or "a login before the host is not supported" in err


@pytest.mark.parametrize("content", [b"\xff\xfe", b"two words", b"line\r\nX: y", "caf\u00e9".encode(), b" \n"])
def test_a_token_file_that_is_none_is_named_and_not_shown(
    content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    assert main(["rules", "stop", "--admin", "127.0.0.1:1", "--admin-token", str(file)]) == 2
    found = "found something else" if content.strip() else "found nothing"
    err = capsys.readouterr().err
    assert err.startswith(f"upshim rules: {file}: expected a token")
    assert err.endswith(f", {found}\n")


@pytest.mark.parametrize("verb", ["proxy", "doctor"])
@pytest.mark.parametrize(
    "words",
    [
        ["--upstream", "http://u:secret@10.0.0.5"],
        ["--upstream", "u:secret@10.0.0.5:80"],
        ["--upstream", "ftp://u:secret@10.0.0.5"],
        ["--upstream", "http://secret@10.0.0.5"],
        ["--upstream", "http://u:se/cret#?@secret@10.0.0.5"],
        ["--upstream", "http://10.0.0.5", "--via", "http://u:secret@127.0.0.1:1/x"],
        ["--upstream", "http://10.0.0.5", "--via", "http://u:sec ret/@secret@127.0.0.1:1/x"],
    ],
)
def test_a_login_for_a_server_is_not_supported(verb: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, *words]) == 2
    told = "a login before the host is not supported: expected a server such as http://10.0.0.5"
    assert capsys.readouterr().err == f"upshim {verb}: {words[-2]}: {told}\n"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("--to: found 'u:pw@h:80'", "--to: found 'u:***@h:80'"),
        ("found 'http://u:p@w@h' and 'http://h'", "found 'http://u:***@h' and 'http://h'"),
        (
            "expected http://10.0.0.5 or https://10.0.0.5:8443, found 'http://u:p w@h'",
            "expected http://10.0.0.5 or https://10.0.0.5:8443, found 'http://u:***@h'",
        ),
        ("'http://u:p@http://u:a://b@h', 'x://v:w@k'", "'http://u:***@h', 'x://v:***@k'"),
        ("upshim rules: a@b.toml: line 3: c@d", "upshim rules: a@b.toml: line 3: c@d"),
        ("http://u@h: no answer", "http://u@h: no answer"),
    ],
)
def test_what_is_taken_for_a_password(line: str, shown: str) -> None:
    assert without_passwords(line) == shown
