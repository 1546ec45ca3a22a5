from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from captures.store import Store
from proxy_addons.rules import Rules
from tests.conftest import ROOT, require_tool
from tools import demo_story
from tools.cli import main
from tools.cx700_rules import OBSERVE, THEN


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tools", "demo", "--keep", str(folder), "--poll-scale", "600", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module", params=["report", "offer"])
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, object]]]:
    folder = tmp_path_factory.mktemp("demo")
    ended = demo(folder, "--json", "--fix", request.param, "--firmware-size", "300000")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    return folder, [json.loads(line) for line in ended.stdout.splitlines()]


def test_the_story_ends_well(told: tuple[Path, list[dict[str, object]]]) -> None:
    _, lines = told
    assert lines[-1]["kind"] == "demo"
    assert lines[-1]["ok"] is True
    assert sorted(lines[-1]["phones"].values()) == ["1.0.522.73", "3.5.6907.222"]  # type: ignore[attr-defined]
    installed = [line["text"] for line in lines if line.get("event") == "installed"]
    assert installed == ["1.0.522.73 -> 1.0.522.103", "1.0.522.103 -> 3.5.6907.222"]
    before = lines[: [line["kind"] for line in lines].index("act", 1)]
    assert any(line.get("event") == "no-update" and line["status"] == "0x0;200" for line in before)
    assert any(line.get("event") == "crash" for line in before)


def test_the_servers_own_audit_log_tells_the_same(told: tuple[Path, list[dict[str, object]]]) -> None:
    folder, _ = told
    (log,) = (folder / "updates" / "Logs").rglob("RequestHandlerAuditLog_*")
    rows = [line.split(",") for line in log.read_text().splitlines()[1:]]
    offered = Counter(row[10].split(";")[2] for row in rows if row[10])
    reported = [row[9] for row in rows]
    if any("0.0.0.0" in modules for modules in reported):
        assert offered == {"1.0.522.103": 1, "3.5.6907.222": 1}
    else:  # the interim was upshim's offer, the server knows nothing of it
        assert offered == {"3.5.6907.222": 1}
    assert not any("CX500" in row[6] and row[10] for row in rows)


def test_the_packets_show_what_the_recording_holds(told: tuple[Path, list[dict[str, object]]], tmp_path: Path) -> None:
    tshark = require_tool("tshark")
    folder, _ = told
    with closing(Store.open(folder / "recording")) as store:
        exchanges = list(store.exchanges())
    fields = ["http.request.method", "http.request.uri", "http.response.code"]
    words = [
        tshark,
        "-r",
        str(folder / "phones.pcapng"),
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ]
    listed = subprocess.run(
        [*words, "-Y", "http", "-T", "fields", *(word for field in fields for word in ("-e", field))],
        capture_output=True, text=True, check=True, timeout=120,
    ).stdout.splitlines()  # fmt: skip
    shown = Counter(tuple(line.split("\t")) for line in listed)
    expected = Counter((exchange.request.method, exchange.request.target, "") for exchange in exchanges)
    statuses = [str(exchange.response.status) for exchange in exchanges if exchange.response]
    # tshark shows the URI of the request beside the status of its answer in some versions only.
    assert Counter({key: count for key, count in shown.items() if key[0]}) == expected
    assert Counter(line.split("\t")[2] for line in listed if line.split("\t")[2]) == Counter(statuses)

    subprocess.run([*words, "--export-objects", f"http,{tmp_path}", "-Q"], check=True, timeout=120, capture_output=True)
    exported = {hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    delivered = {answer.body.sha256
                 for exchange in exchanges if (answer := exchange.rewritten_response or exchange.response)}  # fmt: skip
    assert delivered <= exported

    faults = subprocess.run(
        [*words, "-Y", "tcp.checksum.status == 0 || ip.checksum.status == 0 || tcp.analysis.flags"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert faults.stdout == ""


def test_people_get_a_timeline(tmp_path: Path) -> None:
    ended = demo(tmp_path / "kept", "--firmware-size", "1000")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "It ended well" in ended.stdout
    assert str(tmp_path / "kept" / "recording") in ended.stdout
    assert "\x1b[" not in ended.stdout


def test_the_rules_it_writes_are_good() -> None:
    for then in THEN.values():
        assert Rules.parse((OBSERVE + then).encode()).rules


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").touch()
    assert main(["demo", "--keep", str(tmp_path)]) == 2
    assert main(["demo", "--keep", str(tmp_path / "mine")]) == 2
    assert main(["demo", "--firmware-size", "0"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "expected an empty or new folder" in lines[0]


def test_a_story_that_ends_badly_is_exit_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(THEN, "report", THEN["observe"])  # the rules come, and help nobody
    monkeypatch.setattr(demo_story, "ACT_WITHIN", 2.0)
    words = ["demo", "--keep", str(tmp_path), "--firmware-size", "1000", "--poll-scale", "600", "--json"]
    assert main(words) == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["ok"] is False
    assert "waited 2 s in vain for the installation of 1.0.522.103" in last["failure"]


@pytest.mark.parametrize("words", [["--poll-scale", "0"], ["--firmware-size", "0"]])
def test_what_cannot_be_told_leaves_no_folder(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert main(["demo", *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
