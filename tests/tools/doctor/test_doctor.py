from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.proxies import running
from tests.proxy_addons.test_launcher import admin_port
from tests.servers import Received, message, serving
from tests.tools.doctor.test_here import BREAKER
from tools.cli import main


def update_server(_: Received) -> list[bytes]:
    return [message(b"", status="405 Method Not Allowed")]


def test_all_is_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules, record, state = tmp_path / "rules.toml", tmp_path / "rec", tmp_path / "state"
    rules.write_text(BREAKER)
    options = {"rules": rules, "record": record, "admin": "127.0.0.1:0"}
    with serving(update_server) as server, running("upshim", server.url, state, **options) as proxy:
        words = ["--upstream", server.url, "--listen", f"127.0.0.1:{proxy.port}", "--state", str(state)]
        words += ["--rules", str(rules), "--record", str(record), "--admin", f"127.0.0.1:{admin_port(proxy)}"]
        assert main(["doctor", *words, "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert main(["doctor", *words]) == 0
        table = capsys.readouterr().out
    assert {line["kind"] for line in lines} == {"check"}
    assert [line for line in lines if line["status"] == "problem"] == []
    seen = {line["check"] for line in lines}
    assert seen >= {"versions", "descriptors", "privileges", "port", "server", "rules", "disk", "recording", "running"}
    for line in lines:
        assert f"{line['status']} " in table
        assert line["found"].split(" ")[0] in table
    assert "\x1b" not in table


def test_a_problem_is_exit_1_and_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rules[red].toml"
    file.write_text("nonsense")
    assert main(["doctor", "--rules", str(file)]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "would be refused: line 1: not TOML" in out
    assert "rules[red].toml" in out.replace(" ", "")
    assert "a running upshim keeps its old rules meanwhile" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--upstream", "ftp://x"], "--upstream: expected http"),
        (["--listen", "here"], "--listen: expected HOST:PORT"),
        (["--max-connections", "0"], "--max-connections: expected a number above 0"),
    ],
)
def test_options_that_cannot_be_used(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert complaint in capsys.readouterr().err
