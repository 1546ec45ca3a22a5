from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from captures.exchange import Body, Request, Response
from captures.facts import facts_of
from captures.store import Store
from tests.bodies import CHECK_TARGET, answer_body, check_body
from tests.captures.test_store import an_exchange
from tests.conftest import ROOT, require_tool
from tools import exchanges
from tools.cli import main
from tools.exchange_lines import Lines


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "rec"
    store = Store.create(folder)
    headers = (("Authorization", "NTLM c2VjcmV0"), ("X-Ugly", "\x1b[31m"))
    exchange = replace(
        an_exchange("a \x1b[31m problem"),
        request=Request("POST", CHECK_TARGET, headers=headers, body=Body.of(check_body())),
        response=Response(200, body=Body.of(answer_body())),
    )
    store.add([exchange.with_facts(facts_of(exchange)), an_exchange()])
    store.bodies.put(exchange.request.body.sha256, check_body())
    store.close()
    return folder


def test_for_people(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchanges", str(recording)]) == 0
    out = capsys.readouterr().out
    (row,) = (line.split() for line in out.splitlines() if CHECK_TARGET in line and "POST" in line)
    assert row[4:6] == ["POST", "200"]
    assert "00:04:f2:00:01:76 CX700 runs 1.0.522.73; offers nothing" in out
    assert "! a \\x1b[31m problem" in out
    assert "\x1b" not in out
    assert "no answer" in out
    assert "2 exchanges" in out


def test_for_programs(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchanges", "--json", str(recording)]) == 0
    first, second, summary = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    contract = ["kind", "capture", "index", "client", "server", "started", "ended", "request", "response", "complete",
                "problems", "facts"]  # fmt: skip
    assert [key for key in first if key in contract] == contract
    assert first["request"]["headers"][0] == ["Authorization", "NTLM <redacted, 8 characters>"]
    assert first["request"]["body"] == {"size": len(check_body()), "sha256": Body.of(check_body()).sha256}
    assert set(first["response"]["body"]) == {"size", "sha256", "encoded_size"}
    assert second["response"] is None
    assert summary["kind"] == "capture"
    assert main(["exchanges", "--json", "--secrets", str(recording)]) == 0
    assert "c2VjcmV0" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["a.mitm", "a.har"])
def test_bodies_that_a_file_holds_are_extracted(recording: Path, tmp_path: Path, name: str) -> None:
    assert main(["convert", str(recording), str(tmp_path / name)]) == 0
    assert main(["exchanges", str(tmp_path / name), "--extract", str(tmp_path / "out")]) == 0
    (kept,) = (tmp_path / "out").iterdir()
    assert (kept.name, kept.read_bytes()) == (Body.of(check_body()).sha256, check_body())
    kept.unlink()
    (tmp_path / "out").rmdir()
    (tmp_path / "out").touch()
    assert main(["exchanges", str(tmp_path / name), "--extract", str(tmp_path / "out")]) == 2


def test_bodies_are_extracted(recording: Path, tmp_path: Path) -> None:
    assert main(["exchanges", str(recording), "--extract", str(tmp_path / "out")]) == 0
    (file,) = (tmp_path / "out").iterdir()
    assert file.read_bytes() == check_body()
    assert file.name == Body.of(check_body()).sha256
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_read_is_named_and_the_rest_is_listed(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "junk").write_bytes(b"\x01\x02junk")
    (tmp_path / "empty").touch()
    paths = [tmp_path / "junk", tmp_path / "empty", tmp_path / "none", recording]
    assert main(["exchanges", *map(str, paths)]) == 2
    out, err = capsys.readouterr()
    assert "2 exchanges" in out
    assert [line.split(": ")[1] for line in err.splitlines()] == [str(path) for path in paths[:3]]
    assert main(["exchanges", str(recording), "--extract", str(tmp_path / "junk")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(("place", "found"), [("/dev/null", "an empty file"), ("/", "a directory")])
def test_what_is_found_instead_of_a_capture(place: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["exchanges", place]) == 2
    assert capsys.readouterr().err.endswith(f", found {found}\n")


@pytest.mark.parametrize("option", ["--keylog", "--tls-key"])
def test_secrets_that_are_not_there(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["exchanges", str(recording), option, str(tmp_path / "none")]) == 2
    assert "none: No such file or directory" in capsys.readouterr().err


def test_an_interrupt_from_the_keyboard_is_no_traceback(
    recording: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lines, "show", interrupt)
    assert main(["exchanges", str(recording)]) == 130
    assert capsys.readouterr() == ("", "")


def test_the_filters_in_readme_and_help_run_to_the_end(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jq = require_tool("jq")
    texts = (ROOT / "README.md").read_text(), exchanges.__doc__
    filters = [found for text in texts for found in re.findall(r"upshim exchanges .*\| jq '(.*)'", text)]
    assert len(filters) == 2
    main(["exchanges", "--json", str(recording)])
    listed = capsys.readouterr().out
    for wanted in filters:
        done = subprocess.run([jq, "-c", wanted], input=listed, capture_output=True, text=True, check=True)
        assert (done.stdout.count("\n"), done.stderr) == (1, "")  # of two exchanges and the account of the capture
