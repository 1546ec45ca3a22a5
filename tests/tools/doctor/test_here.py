"""Files, the system, and a running upshim."""

from __future__ import annotations

import os
import resource
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from captures.database_url import DatabaseUrl
from captures.recording import Recording
from proxy_addons.forwarded import Fronts
from proxy_addons.rules import Rules
from tests.bodies import REPORT_ZERO
from tests.proxies import running as proxy_running
from tests.proxy_addons.test_launcher import admin_port, update_server
from tests.servers import serving
from tools.doctor import files, running, system
from tools.doctor.result import OK, PROBLEM, WARN

BREAKER = REPORT_ZERO + "limits.fleet_failure_rate = 0.2\n"


@pytest.mark.parametrize(
    ("text", "statuses"),
    [(BREAKER, [OK]), (REPORT_ZERO, [OK, WARN]), ("", [WARN]), ("[[rule]]\n", [PROBLEM]), (None, [PROBLEM])],
)
def test_rules(text: str | None, statuses: list[str], tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    if text is not None:
        file.write_text(text)
    results, read = files.rules(file)
    assert [result.status for result in results] == statuses
    assert (read is None) == (PROBLEM in statuses)


def test_the_vocabulary(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    assert files.profile(file).status == PROBLEM
    file.write_text('[aliases]\nmodel = ["Baureihe"]\n')
    assert files.profile(file).status == OK
    file.write_text("[aliases]\nnonsense = 3\n")
    assert files.profile(file).status == PROBLEM


def states(folder: Path) -> dict[str, str]:
    return {result.check: result.status for result in files.recording(folder)}


def test_the_recording(tmp_path: Path) -> None:
    folder = tmp_path / "rec"
    assert states(folder)["recording"] == OK
    Recording(folder).close()
    assert states(folder) == {"disk": states(tmp_path)["disk"], "private": OK, "recording": OK}
    folder.chmod(0o755)
    assert states(folder)["private"] == PROBLEM
    folder.chmod(0o700)
    with sqlite3.connect(folder / "store.sqlite") as database:
        database.execute("PRAGMA user_version=999")
    database.close()
    assert states(folder)["recording"] == PROBLEM
    (folder / "store.sqlite").write_bytes(b"no database" * 1000)
    assert states(folder)["recording"] == PROBLEM
    assert states(Path("/proc/self"))["recording"] == PROBLEM


def test_a_recording_in_a_database(database: DatabaseUrl, tmp_path: Path) -> None:
    found = {result.check: result.status for result in files.database(database, tmp_path)}
    assert found["recording"] == PROBLEM  # nothing was ever recorded there
    Recording(database, state=tmp_path).close()
    found = {result.check: result.status for result in files.database(database, tmp_path)}
    assert (found["recording"], found["private"]) == (OK, OK)
    away = DatabaseUrl("postgresql://upshim:secret@127.0.0.1:9/upshim")
    (result, *_) = files.database(away, tmp_path)
    assert (result.check, result.status) == ("recording", PROBLEM)
    assert "secret" not in str(result)


@pytest.mark.parametrize(
    ("blocks", "inodes", "status"),
    [(1 << 24, 1 << 20, OK), (1 << 18, 1 << 20, WARN), (1 << 10, 1 << 20, PROBLEM), (1 << 24, 100, WARN)],
)
def test_the_disk(blocks: int, inodes: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = SimpleNamespace(f_bavail=blocks, f_frsize=4096, f_files=1 << 22, f_favail=inodes)
    monkeypatch.setattr(os, "statvfs", lambda _: room)
    assert states(tmp_path / "not" / "yet")["disk"] == status


def test_who_may_read_keys(tmp_path: Path) -> None:
    key = tmp_path / "mitmproxy-ca.pem"
    key.write_text("-----BEGIN PRIVATE KEY-----")
    (tmp_path / "mitmproxy-ca-cert.pem").write_text("-----BEGIN CERTIFICATE-----")
    for mode, status in ((0o600, OK), (0o640, PROBLEM), (0o604, PROBLEM)):
        key.chmod(mode)
        assert [result.status for result in files.state(tmp_path)] == [status]
        assert [result.status for result in files.private(key)] == [status]
    assert [result.status for result in files.private(tmp_path / "none")] == [PROBLEM]
    assert list(files.state(tmp_path / "none")) == []


def test_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, status in ((65536, OK), (1024, WARN), (resource.RLIM_INFINITY, OK)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (1024, limit))
        (result,) = system.descriptors(1000)
        assert result.status == status


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [result.status for result in system.versions()] == [OK]
    for name, value, status in (("MITMPROXY", "10.4.0", WARN), ("cryptography", "47.0.1", PROBLEM)):
        monkeypatch.setattr(system, "MITMPROXY", "12.2.3")
        monkeypatch.setattr(system, name, value)
        assert [result.status for result in system.versions()] == [status]
        monkeypatch.undo()


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the place of /proc: what the kernel would say."""
    monkeypatch.setattr(system, "STATUS", tmp_path / "status")
    monkeypatch.setattr(system, "SETTINGS", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    return tmp_path


def privileges(proc: Path, bits: int, ports: list[int]) -> list[tuple[str, str]]:
    (proc / "status").write_text(f"Name:\tx\nCapEff:\t{bits:016x}\n")
    (proc / "ipv4").mkdir(exist_ok=True)
    (proc / "ipv4/ip_unprivileged_port_start").write_text("1024\n")
    return [(result.subject, result.status) for result in system.privileges(ports)]


def test_rights(proc: Path) -> None:
    assert privileges(proc, 0, [8080]) == [("user 1000", OK)]
    assert privileges(proc, 0, [80]) == [("user 1000", PROBLEM)]
    assert privileges(proc, 1 << 10, [80]) == [("user 1000", OK)]
    assert system.capabilities() == {10}


@pytest.mark.parametrize(
    ("settings", "sixth", "status"),
    [
        ({}, True, {}),
        ({"ipv4/conf/all/forwarding": 0}, False, {"ip_forward": PROBLEM}),
        ({"ipv4/conf/eth0/forwarding": 0}, False, {"forwarding": WARN}),
        ({"ipv4/conf/all/send_redirects": 1}, False, {"send_redirects": WARN}),
        ({"ipv4/conf/eth0/send_redirects": 1}, False, {"send_redirects": WARN}),
        ({"ipv4/conf/default/send_redirects": 1}, False, {"send_redirects": WARN}),
        ({"ipv4/conf/lo/send_redirects": 1}, False, {}),
        ({"ipv6/conf/all/forwarding": 0}, False, {}),
        ({"ipv6/conf/all/forwarding": 0}, True, {"ipv6 forwarding": PROBLEM}),
        ({"ipv6/conf/eth0/forwarding": 0}, True, {}),
    ],
)
def test_a_router(settings: dict[str, int], sixth: bool, status: dict[str, str], proc: Path) -> None:
    for version in ("ipv4", "ipv6"):
        for name in ("all", "default", "eth0", "lo"):
            (proc / version / "conf" / name).mkdir(parents=True)
            (proc / version / "conf" / name / "forwarding").write_text("1\n")
            (proc / version / "conf" / name / "send_redirects").write_text("0\n")
    for setting, value in settings.items():
        (proc / setting).write_text(f"{value}\n")
    results = list(system.routing(sixth=sixth))
    assert {result.subject: result.status for result in results if result.status != OK} == status
    assert len(results) == 2 + sixth
    for result in results:
        assert ("/etc/sysctl.d/90-upshim.conf" in result.advice) is (result.status != OK)


def test_the_kill_switch(tmp_path: Path) -> None:
    switch = tmp_path / "stop"
    assert files.kill_switch(switch).status == OK
    switch.touch()
    assert (files.kill_switch(switch).status, "is on" in files.kill_switch(switch).found) == (WARN, True)
    assert files.kill_switch(tmp_path).status == PROBLEM
    assert files.kill_switch(tmp_path / "none" / "stop").status == PROBLEM
    found = files.kill_switch(Path("/proc/self/stop"))
    assert (found.status, "cannot be made" in found.found) == (WARN, True)


def test_packets(tmp_path: Path) -> None:
    file = tmp_path / "a.pcapng"
    assert files.capture(file).status == OK
    assert not file.exists()
    file.touch()
    assert files.capture(file).status == OK
    for wrong in (tmp_path, tmp_path / "none" / "a.pcapng", Path("/proc/self/a.pcapng")):
        assert files.capture(wrong).status == PROBLEM


def test_fronts() -> None:
    fronts = Fronts.of(["10.0.0.7", "0.0.0.0/0", "fd00::/64"])
    assert [(one.subject, one.status) for one in files.fronts(fronts)] == [
        ("10.0.0.7/32", OK),
        ("0.0.0.0/0", WARN),
        ("fd00::/64", OK),
    ]


def test_a_running_upshim(tmp_path: Path) -> None:
    rules, switch, token = tmp_path / "rules.toml", tmp_path / "stop", tmp_path / "token"
    rules.write_text(BREAKER)
    token.write_text("secret\n")
    options = {"rules": rules, "kill_switch": switch, "admin": "127.0.0.1:0", "admin_token": token, "dry_run": True}
    read = Rules.parse(BREAKER.encode())
    with serving(update_server) as server, proxy_running("upshim", server.url, tmp_path / "s", **options) as proxy:
        admin = f"127.0.0.1:{admin_port(proxy)}"
        assert [(result.status, result.found[:11]) for result in running.running(admin, token, read)] == [
            (OK, "ok: 0 conne"),
            (WARN, "it runs dry"),
        ]
        switch.touch()
        other = Rules.parse(REPORT_ZERO.encode())
        found = [(result.status, result.found) for result in running.running(admin, token, other)]
        assert (PROBLEM, "its rules are not those of the file") in found
        assert (WARN, "the kill switch is on: nothing is rewritten") in found
        assert [result.status for result in running.running(admin, None, None)] == [PROBLEM]
    assert [result.status for result in running.running(admin, token, None)] == [PROBLEM]
    assert [result.status for result in running.running(admin, token, None, expected=False)] == [WARN]
    token.write_bytes(b"\xff\xfe")
    (result,) = running.running(admin, token, None)
    assert (result.status, result.found) == (
        PROBLEM,
        f"{token}: expected a token, one word of ASCII, found something else",
    )


def test_signs_are_metrics_that_there_are(tmp_path: Path) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    from proxy_addons.addon import Upshim

    upshim = Upshim()
    upshim.recording = recording = Recording(tmp_path / "rec")
    recording.lost["x"] += 1
    upshim.rewriter = upshim.rewriter.__class__(Rules.parse(BREAKER.encode()), upshim.rewriter.vocabulary, 1)
    families = text_string_to_metric_families(upshim.metrics.render().decode())
    names = {sample.name for family in families for sample in family.samples}
    recording.close()
    assert {name for name, *_ in running.SIGNS} <= names
