"""The verbs `serve` and `phone` as a user runs them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dissectors.audit_log import read_rows
from tools.cli import main
from tools.serve import listen_address, synthetic_package

PATIENCE = 30
UPSHIM = [sys.executable, "-c", "from tools.cli import main; raise SystemExit(main())"]


@contextmanager
def serve(*options: str) -> Iterator[dict[str, Any]]:
    """The first event of a server that is stopped the way systemd does it."""
    command = [*UPSHIM, "serve", "--listen", "127.0.0.1:0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
        assert process.returncode == 0


def phone(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UPSHIM, "phone", "--poll-scale", "8640000", *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_phone_is_taken_to_the_approved_version(tmp_path: Path) -> None:
    packages = ("--synthetic", "1.0.522.103", "--synthetic", "3.5.6907.222:2M")
    with serve("--updates", str(tmp_path), *packages, "--field-story") as listening:
        assert listening["approved"] == ["UCPhone/Polycom/CX700/A/ENU 3.5.6907.222"]
        stuck = phone(
            "--server", listening["url"], "--version", "1.0.522.73", "--polls", "2", "--until", "3.5.6907.222"
        )
        freed = phone("--server", listening["url"], "--version", "0.0.0.0", "--json", "--until", "3.5.6907.222")
    assert (stuck.returncode, freed.returncode) == (1, 0)
    assert stuck.stdout.count("crash ") == 2
    events = [json.loads(line) for line in freed.stdout.splitlines()]
    assert [event["version"] for event in events if event["event"] == "installed"] == ["1.0.522.103", "3.5.6907.222"]
    (log,) = (tmp_path / "Logs" / "Server" / "Audit" / "imageUpdates").iterdir()
    assert len(list(read_rows([log.read_bytes()]))) == 5


def test_rules_from_a_file(tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[rule]]\nbrand = "Polycom"\nmodel = "CX700"\napproved = "1.0.522.103"\npending = "3.5.6907.222"\n'
        '[[test_device]]\nmac = "00:04:F2:00:01:77"\n'
    )
    packages = ("--updates", str(tmp_path / "u"), "--synthetic", "1.0.522.103:1K", "--synthetic", "3.5.6907.222:1K")
    with serve(*packages, "--rules-of-server", str(rules)) as listening:
        asked = ("--server", listening["url"], "--version", "1.0.522.101", "--polls", "2", "--json")
        reached = [
            json.loads(phone(*asked, "--mac", mac).stdout.splitlines()[-1])["version"]
            for mac in ("0004F2000176", "0004F2000177", "")
        ]
    assert reached == ["1.0.522.103", "3.5.6907.222", "1.0.522.103"]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong = ["serve", "--updates", str(tmp_path), "--synthetic", "1.0.522.103:1", "--listen", f"127.0.0.1:{port}"]
        assert main(wrong) == 2
    gone = phone("--server", f"http://127.0.0.1:{port}", "--version", "1.0.522.101", "--polls", "1")
    assert gone.returncode == 1
    assert "0x2efd;0" in gone.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serve", "--updates", "missing"], "missing: expected a folder of update packages"),
        (["serve", "--updates", "."], "found none; see --synthetic"),
        (["serve", "--updates", ".", "--listen", "8080"], "expected HOST:PORT, found '8080'"),
        (["serve", "--updates", ".", "--synthetic", "1.0"], "expected a version such as"),
        (["serve", "--updates", ".", "--synthetic", "1.0.522.103:2T"], "expected VERSION or VERSION:SIZE"),
        (["serve", "--updates", ".", "--device", "CX700"], "expected TYPE/VENDOR/MODEL"),
        (
            ["serve", "--updates", ".", "--device", "a/b/../d/e", "--synthetic", "1.0.522.103"],
            "not the name of a folder",
        ),
        (["serve", "--updates", ".", "--rules-of-server", "none.toml"], "none.toml: .*No such file"),
        (["serve", "--updates", ".", "--rules-of-server", "bad.toml"], "bad.toml: .*line 1"),
        (["serve", "--updates", ".", "--approve", "1.0.522.103"], r"versions there \(none\), found 1.0.522.103"),
        (["serve", "--updates", "bad.toml", "--synthetic", "1.0.522.103"], "bad.toml: .*Not a directory"),
        (["serve", "--updates", ".", "--synthetic", "1.0.522.103:1", "--poll-scale", "0"], "above 0"),
        (["serve", "--updates", ".", "--synthetic", "1.0.522.103:1", "--name", "a/b"], "--name: expected letters"),
        (["serve", "--updates", ".", "--synthetic", "1.0.522.103:1", "--listen", "192.0.2.1:1"], "192.0.2.1:1: Cannot"),
        (["phone", "--server", "pool01", "--version", "1.0.522.73"], "not an http or https URL: 'pool01'"),
        (["phone", "--server", "http://127.0.0.1", "--version", "1.0"], "--version: expected a version such as"),
        (["phone", "--server", "http://127.0.0.1", "--version", "1.0.522.73", "--polls", "0"], "1 or more"),
        (["phone", "--server", "http://127.0.0.1", "--version", "1.0.522.73", "--poll-scale", "nan"], "above 0"),
        (["phone", "--server", "http://127.0.0.1", "--version", "1.0.522.73", "--ca", "bad.toml"], "--ca: bad.toml"),
    ],
)
def test_options_that_cannot_be_used(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    (tmp_path / "bad.toml").write_text("x = = 1")
    assert main(words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert re.search(message, told), told


def test_small_forms() -> None:
    assert listen_address("[::1]:80") == ("::1", 80)
    assert listen_address("pool01:0") == ("pool01", 0)
    assert synthetic_package("1.0.522.103:3k")[1] == 3072
