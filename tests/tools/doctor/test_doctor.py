from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path

import pytest

from tests.phone_certificates import identity_file
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


def test_the_line_of_a_unit_may_be_put_behind_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "rules.toml").write_text(BREAKER)
    certs = identity_file(tmp_path / "phones.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with serving(update_server) as server:
        words = ["--upstream", server.url, "--listen", f"127.0.0.1:{port}", "--rules", str(tmp_path / "rules.toml")]
        assert main(["deploy", "systemd", *words, "--certs", str(certs)]) == 0
        unit = capsys.readouterr().out.replace("\\\n", " ")
        (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
        line = line.replace("%S", str(tmp_path)).replace("%d", str(tmp_path)).replace("127.0.0.1:9180", "127.0.0.1:1")
        options = shlex.split(line.replace("$UPSHIM_OPTIONS", ""))[2:]
        extra = ["--kill-switch", str(tmp_path / "stop"), "--trust-forwarded", "127.0.0.1", "--store", "no-bodies"]
        extra += [
            "--hand-over",
            "--log-format",
            "json",
            "--pcap",
            str(tmp_path / "a.pcapng"),
            "--idle",
            "9",
            "--dry-run",
        ]
        code = main(["doctor", *options, *extra, "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    states = {(one["check"], one["status"]) for one in lines}
    assert {("server", "ok"), ("rules", "ok"), ("kill-switch", "ok"), ("fronts", "ok"), ("pcap", "ok")} <= states
    assert ("running", "warn") in states  # not yet: its port is free
    assert (code, [one for one in lines if one["status"] == "problem"]) == (0, [])


def test_every_server_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(update_server) as one, serving(update_server) as other:
        upstreams = ["--upstream", one.url, "--upstream", other.url]
        main(["doctor", "--mode", "transparent", *upstreams, "--json"])
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert (len(one.received), len(other.received)) == (1, 1)
    shown = {result["subject"]: result["status"] for result in found if result["check"] == "server"}
    assert shown == {f"127.0.0.1:{server.port}": "ok" for server in (one, other)}


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
        (["--upstream", "http://x", "--upstream", "http://y"], "--mode reverse takes one --upstream"),
        (["--listen", "*:80", "--listen", "*:80"], "--listen *:80 is given twice"),
        (["--via", "http://x"], "--via needs --upstream"),
        (["--trust-forwarded", "lb"], "--trust-forwarded: expected an address or a network"),
        (["--admin", "here"], "--admin: expected HOST:PORT"),
        (["--admin-token", "/nowhere"], "--admin-token needs --admin"),
    ],
)
def test_options_that_cannot_be_used(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *words]) == 2
    assert complaint in capsys.readouterr().err
