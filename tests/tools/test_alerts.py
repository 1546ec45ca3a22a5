"""Alert rules and dashboard by Prometheus' own tool: which numbers raise which alert, and with what words."""

from __future__ import annotations

import io
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from proxy_addons.addon import Upshim
from tests.conftest import require_tool
from tools.deploy import watching
from tools.grafana import dashboard

US = 'job="upshim", instance="a"'
CHECKS = f'upshim_exchanges_total{{{US}, kind="check", outcome="answered"}}'


@dataclass(frozen=True, slots=True)
class Case:
    """Series in promtool's notation (a value a minute), and the alert they raise at `at` minutes.

    `labels` are those of the alert beside job, instance and severity, `value` is what its words tell.
    """

    alert: str
    series: dict[str, str]
    at: int
    labels: dict[str, str]
    value: str = ""
    without: tuple[str, ...] = ()  # labels that the expression sums away


CASES = (
    Case("UpshimDown", {f"up{{{US}}}": "1x5 0x10"}, 9, {}),
    Case("UpshimRestarts", {f"process_start_time_seconds{{{US}}}": "0x5 300x5 600x5 900x5"}, 20, {}, "3"),
    Case("UpshimFailsOpen", {f"upshim_fail_open_total{{{US}}}": "0x5 1x5"}, 8, {}),
    Case("UpshimBreakerOpen", {f'upshim_breaker_open{{{US}, path="p", rule="r"}}': "1"}, 0, {"path": "p", "rule": "r"}),
    Case(
        "UpshimPhonesFail",
        {f'upshim_phones{{{US}, state="failed"}}': "1x20", f'upshim_phones{{{US}, state="installed"}}': "9x20"},
        16,
        {},
        "10%",
        without=("job",),
    ),
    Case("UpshimStopped", {f"upshim_rewriting_stopped{{{US}}}": "1x70"}, 61, {}),
    Case("UpshimRulesRefused", {f"upshim_rules_reload_successful{{{US}}}": "0x9"}, 6, {}),
    Case(
        "UpshimRulesDiffer",
        {f'upshim_rules_file_info{{{US}, sha256="{one}"}}': "1x12" for one in "xy"},
        11,
        {},
        without=("job", "instance"),
    ),
    Case(
        "UpshimCertificateExpires",
        {f"upshim_certificate_expires_timestamp_seconds{{{US}}}": "864000x70"},  # ten days after the beginning
        61,
        {},
        "9d 22h 59m 0s",
    ),
    Case("UpshimCertificateRefused", {f"upshim_certificate_reload_successful{{{US}}}": "1x5 0x9"}, 11, {}),
    Case("UpshimHistoryUnknown", {f"upshim_history_known{{{US}}}": "0"}, 0, {}),
    # Of a second loss, and of the first one, with which its series begins.
    Case("UpshimRecordingLoses", {f'upshim_recording_lost_total{{{US}, what="w"}}': "1x20 2x5"}, 22, {"what": "w"}),
    Case("UpshimRecordingLoses", {f'upshim_recording_lost_total{{{US}, what="w"}}': "_x20 1x5"}, 22, {"what": "w"}),
    Case("UpshimRecordingLags", {f"upshim_recording_lag_seconds{{{US}}}": "90x9"}, 6, {}, "1m 30s"),
    Case("UpshimDatabaseAway", {f"upshim_recording_behind{{{US}}}": "1x9"}, 3, {}),
    Case("UpshimJournalFailed", {f"upshim_journal_failed{{{US}}}": "1"}, 0, {}),
    Case("UpshimDiskFills", {f"upshim_recording_free_bytes{{{US}}}": "1e9x20"}, 16, {}),
    Case("UpshimDiskFills", {f"upshim_recording_free_bytes{{{US}}}": "100e9-100e6x400"}, 400, {}),
    Case(
        "UpshimNoChecks",
        {f"process_start_time_seconds{{{US}}}": "0x3000", CHECKS: "5x60 7x3000"},
        1700,
        {},
    ),
    Case("UpshimNoChecks", {f"process_start_time_seconds{{{US}}}": "0x3000"}, 1700, {}),
    Case(
        "UpshimChecksUnread",
        {f'upshim_checks_total{{{US}, action="unread", rule="", dry_run="no"}}': "0+1x30"},
        30,
        {"action": "unread", "rule": "", "dry_run": "no"},
    ),
    Case(
        "UpshimPackagesMissing",
        {f'upshim_packages{{{US}, state="not there"}}': "2x40"},
        31,
        {"state": "not there"},
        "2",
    ),
    Case(
        "UpshimExchangesBreak",
        {CHECKS: "0+9x40", f'upshim_exchanges_total{{{US}, kind="check", outcome="broken"}}': "0+1x40"},
        35,
        {},
        "10%",
        without=("job",),
    ),
    Case("UpshimServerUnreachable", {f"upshim_server_unreachable{{{US}}}": "1x9"}, 3, {}),
    Case(
        "UpshimServerSlow",
        {
            f'upshim_upstream_seconds_bucket{{{US}, kind="check", le="{bound}"}}': f"0+{count}x40"
            for bound, count in (("5", 0), ("10", 10), ("+Inf", 10))
        },
        35,
        {},
        "9.75s",
        without=("job",),
    ),
    Case(
        "UpshimSlow",
        {
            f'upshim_handling_seconds_bucket{{{US}, message="request", le="{bound}"}}': f"0+{count}x40"
            for bound, count in (("0.05", 0), ("0.1", 100), ("+Inf", 100))
        },
        35,
        {},
        "99.5ms",
        without=("job",),
    ),
    Case(
        "UpshimRefusesConnections",
        {f'upshim_connections_closed_total{{{US}, why="too many"}}': "_x20 1x5"},
        22,
        {"why": "too many"},
    ),
    Case(
        "UpshimResources",
        {f"process_open_fds{{{US}}}": "90x20", f"process_max_fds{{{US}}}": "100x20"},
        11,
        {},
    ),
    Case(
        "UpshimResources",
        {f"{name}_resident_memory_bytes{{{US}}}": "16e7x20" for name in ("process", "upshim_writer")},
        11,
        {},
    ),
    Case("UpshimResources", {f"process_resident_memory_bytes{{{US}}}": "31e7x20"}, 11, {}),
)

# A day and a half in which nothing is wrong: some checks a minute, then, after a restart, a pause of hours.
WELL = {
    f"up{{{US}}}": "1x2160",
    f"process_start_time_seconds{{{US}}}": "0x1800 108000x360",
    f"upshim_fail_open_total{{{US}}}": "3x1800 0x360",
    f'upshim_breaker_open{{{US}, path="p", rule="r"}}': "0x2160",
    f'upshim_phones{{{US}, state="failed", version="1.0.522.73"}}': "1x2160",
    f'upshim_phones{{{US}, state="installed", version="3.5.6907.222"}}': "99x2160",
    f"upshim_rewriting_stopped{{{US}}}": "0x2160",
    f"upshim_rules_reload_successful{{{US}}}": "1x2160",
    f'upshim_rules_file_info{{{US}, sha256="x"}}': "1x2160",
    'upshim_rules_file_info{job="upshim", instance="b", sha256="x"}': "1x2160",
    f"upshim_certificate_expires_timestamp_seconds{{{US}}}": "0x1000 9e6x1160",  # none at first
    f"upshim_certificate_reload_successful{{{US}}}": "1x2160",
    f"upshim_history_known{{{US}}}": "1x2160",
    f'upshim_recording_lost_total{{{US}, what="w"}}': "_x100 1x1700 _x360",
    f"upshim_recording_lag_seconds{{{US}}}": "0x2160",
    f"upshim_recording_behind{{{US}}}": "0x2160",
    f"upshim_journal_failed{{{US}}}": "0x2160",
    f"upshim_recording_free_bytes{{{US}}}": "100e9-1e6x2160",
    CHECKS: "0+7x1800 2x360",
    f'upshim_exchanges_total{{{US}, kind="check", outcome="broken"}}': "0x2160",
    f'upshim_checks_total{{{US}, action="unread", rule="", dry_run="no"}}': "0x2160",
    f'upshim_packages{{{US}, state="not there"}}': "0x2160",
    f"upshim_server_unreachable{{{US}}}": "0x100 1x1 0x2059",
    f'upshim_upstream_seconds_bucket{{{US}, kind="check", le="0.1"}}': "0+7x2160",
    f'upshim_upstream_seconds_bucket{{{US}, kind="check", le="+Inf"}}': "0+7x2160",
    f'upshim_handling_seconds_bucket{{{US}, message="request", le="0.001"}}': "0+7x2160",
    f'upshim_handling_seconds_bucket{{{US}, message="request", le="+Inf"}}': "0+7x2160",
    f'upshim_connections_closed_total{{{US}, why="idle"}}': "0+1x2160",
    f"process_open_fds{{{US}}}": "50x2160",
    f"process_max_fds{{{US}}}": "1000x2160",
    f"process_resident_memory_bytes{{{US}}}": "120e6x2160",
    f"upshim_writer_resident_memory_bytes{{{US}}}": "90e6x2160",
}


def rules() -> dict[str, dict[str, Any]]:
    """The alert rules by their names."""
    (group,) = YAML(typ="safe").load(io.StringIO(watching("alerts")))["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def promtool(folder: Path, *words: str, given: bytes = b"") -> None:
    """Run it; what it complains about fails the test."""
    done = subprocess.run([require_tool("promtool"), *words], cwd=folder, input=given, capture_output=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


def unit_tested(folder: Path, tests: list[dict[str, Any]]) -> None:
    """promtool's own kind of test; JSON is YAML too."""
    (folder / "alerts.yml").write_text(watching("alerts"))
    (folder / "tests.yml").write_text(json.dumps({"rule_files": ["alerts.yml"], "tests": tests}))
    promtool(folder, "test", "rules", "tests.yml")


def told(template: str, labels: dict[str, str], value: str) -> str:
    """The words of an alert."""
    text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels[found[1]], template)
    return re.sub(r"\{\{ \$value[^}]*\}\}", value, text)


def inputs(series: dict[str, str]) -> list[dict[str, str]]:
    return [{"series": name, "values": values} for name, values in series.items()]


def test_the_rules_are_sound(tmp_path: Path) -> None:
    (tmp_path / "alerts.yml").write_text(watching("alerts"))
    promtool(tmp_path, "check", "rules", "--lint-fatal", "alerts.yml")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
def test_an_alert(case: Case, tmp_path: Path) -> None:
    rule = rules()[case.alert]
    labels = {"job": "upshim", "instance": "a", **case.labels, **rule["labels"]}
    labels = {name: value for name, value in labels.items() if value and name not in case.without}
    words = {name: told(text, labels, case.value) for name, text in rule["annotations"].items()}
    expected = {"exp_labels": labels, "exp_annotations": words}
    asked = {"alertname": case.alert, "eval_time": f"{case.at}m", "exp_alerts": [expected]}
    unit_tested(tmp_path, [{"interval": "1m", "input_series": inputs(case.series), "alert_rule_test": [asked]}])


def test_every_alert_has_a_case() -> None:
    assert {case.alert for case in CASES} == set(rules())


def test_none_is_raised_while_all_is_well(tmp_path: Path) -> None:
    times = (60, 1000, 1700, 1799, 1805, 1900, 2160)
    asked = [{"alertname": name, "eval_time": f"{at}m", "exp_alerts": []} for name in rules() for at in times]
    unit_tested(tmp_path, [{"interval": "1m", "input_series": inputs(WELL), "alert_rule_test": asked}])


def test_the_dashboard_asks_in_promql(tmp_path: Path) -> None:
    asked = [target["expr"] for panel in json.loads(dashboard())["panels"] for target in panel.get("targets", ())]
    assert len(asked) > 20
    asked = [one.replace("$__rate_interval", "5m").replace("$instance", ".*") for one in asked]
    group = {"name": "dashboard", "rules": [{"record": f"panel:{n}", "expr": one} for n, one in enumerate(asked)]}
    (tmp_path / "dashboard.yml").write_text(json.dumps({"groups": [group]}))
    promtool(tmp_path, "check", "rules", "dashboard.yml")


def test_every_panel_is_of_the_chosen_instances() -> None:
    for panel in json.loads(dashboard())["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\b(?:upshim|process)_\w+", target["expr"])
            chosen = re.findall(r"\b(?:upshim|process)_\w+{instance=~\"\$instance\"[,}]", target["expr"])
            assert len(names) == len(chosen) > 0, target["expr"]


def test_the_metrics_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    promtool(tmp_path, "check", "metrics", given=Upshim().metrics.render())
