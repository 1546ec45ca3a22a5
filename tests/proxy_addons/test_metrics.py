"""The metrics as Prometheus would read them, and what alert rules and dashboard say about them."""

from __future__ import annotations

import io
import json
import os
import re
import resource
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from captures.recording import Recording
from dissectors.version import Version
from dissectors.vocabulary import Vocabulary
from proxy_addons.addon import Upshim
from proxy_addons.history import Histories
from proxy_addons.metrics import Metrics, offer_source
from proxy_addons.rewriter import Rewriter
from proxy_addons.rules import Rules
from proxy_addons.standing import resident_bytes
from proxy_addons.watch import Message, Watch
from tests.bodies import INTERIM, OFFER_NEXT, REPORT_ZERO, STUCK, answer_body, check_body
from tools.deploy import watching
from tools.grafana import dashboard

Sample = tuple[str, tuple[tuple[str, str], ...]]
LIMITED = REPORT_ZERO + "limits.fleet_failure_rate = 0.5\nlimits.fleet_minimum = 2\n"


def rewriter(rules: str) -> Rewriter:
    return Rewriter(Rules.parse(rules.encode()), Vocabulary.default(), 1 << 20)


def samples(text: bytes) -> dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(found: dict[Sample, float], name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


class Written(Recording):
    """A recording with a writer, as far as the metrics are concerned."""

    writer = os.getpid()


@pytest.fixture
def upshim(tmp_path: Path) -> Iterator[Upshim]:
    """An addon that has seen something of everything."""
    addon = Upshim()
    addon.rewriter = rewriter(LIMITED)
    addon.recording = recording = Written(tmp_path / "rec")
    histories = addon.histories = Histories()
    now = datetime.now().astimezone()
    for number in range(3):
        identity = f"mac:{number}"
        histories.checked(identity, now, version=Version.parse(STUCK))
        histories.decided(identity, now, "report", "stuck")
        histories.answered(identity, now, rule="stuck", path="cx700", offers=True, version=Version.parse(INTERIM))
    for number in range(2):
        identity = f"mac:{number}"
        histories.checked(identity, now, version=Version.parse(INTERIM))
        histories.checked(identity, now, version=Version.parse(STUCK))
    addon.failures.note("a cause", "a detail")
    recording.lost["a body: the disk is too slow"] += 1
    addon.metrics.checked(addon.rewriter.check(check_body(), ()), 0.001, dry_run=False)
    addon.metrics.answered(0.001)
    addon.metrics.recorded(0.002)
    yield addon
    recording.close()


def test_the_memory_of_the_process_that_writes() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        page = resource.getpagesize()
        assert resident_bytes(process.pid) in range(page, 100 << 20, page)
    finally:
        process.kill()
        process.wait()
    assert resident_bytes(process.pid) is None
    assert resident_bytes(None) is None


def test_how_things_stand(upshim: Upshim) -> None:
    found = samples(upshim.metrics.render())
    assert value(found, "upshim_phones", state="failed", version=STUCK) == 2
    assert value(found, "upshim_phones", state="offered", version=STUCK) == 1
    assert value(found, "upshim_breaker_failed", path="cx700", rule="stuck") == 2
    assert value(found, "upshim_breaker_ended", path="cx700", rule="stuck") == 4
    assert value(found, "upshim_breaker_open", path="cx700", rule="stuck") == 0
    assert value(found, "upshim_rules_reload_successful") == 1
    assert value(found, "upshim_rewriting_stopped") == 0
    assert value(found, "upshim_recording_waiting") == 0
    assert value(found, "upshim_recording_lost_total", what="a body: the disk is too slow") == 1
    assert value(found, "upshim_recording_free_bytes") > 0
    assert value(found, "upshim_writer_resident_memory_bytes") > 10e6
    assert value(found, "upshim_failures_total", cause="a cause") == 1
    assert value(found, "upshim_record_wait_seconds_count") == 1
    assert [name for name, _ in found if name == "upshim_build_info"]
    upshim.kill_switch.toggle()
    upshim.rules_refused = True
    now = datetime.now().astimezone()
    assert upshim.histories is not None
    upshim.histories.answered("mac:2", now, path="cx700", offers=True, version=Version.parse(INTERIM))
    for version in (INTERIM, STUCK):
        upshim.histories.checked("mac:2", now, version=Version.parse(version))
    upshim.histories._outcome("cx700", now, worked=False)
    found = samples(upshim.metrics.render())
    assert value(found, "upshim_rewriting_stopped") == 1
    assert value(found, "upshim_rules_reload_successful") == 0
    assert value(found, "upshim_breaker_open", path="cx700", rule="stuck") == 1
    upshim.histories = None
    assert value(samples(upshim.metrics.render()), "upshim_history_known") == 0


def test_hostile_versions_do_not_make_series(upshim: Upshim) -> None:
    assert upshim.histories is not None
    now = datetime.now().astimezone()
    for number in range(5000):
        upshim.histories.checked(f"mac:x{number}", now, version=Version(9, 9, 9, number))
    text = upshim.metrics.render()
    phones = [name for name in samples(text) if name[0] == "upshim_phones"]
    assert len(phones) < 100
    assert sum(number for name, number in samples(text).items() if name in phones) == len(upshim.histories)


def test_a_scrape_while_the_fleet_moves(upshim: Upshim) -> None:
    histories, ending = upshim.histories, threading.Event()
    assert histories is not None

    def move() -> None:
        number = 0
        while not ending.is_set():
            number += 1
            now = datetime.now().astimezone()
            histories.checked(f"mac:{number % 500}", now, version=Version(1, 0, 0, number % 90))
            histories._outcome("cx700", now, worked=number % 3 == 0)

    mover = threading.Thread(target=move)
    mover.start()
    try:
        for _ in range(20):
            assert value(samples(upshim.metrics.render()), "upshim_history_known") == 1
    finally:
        ending.set()
        mover.join(20)


@pytest.mark.parametrize(
    ("rules", "body", "answer", "source"),
    [
        (REPORT_ZERO, check_body(), answer_body("http://x/y", INTERIM), "report"),
        (REPORT_ZERO, check_body(INTERIM), answer_body("http://x/y", INTERIM), "server"),
        (OFFER_NEXT, check_body(), answer_body(), "offer"),
        (OFFER_NEXT, check_body(), answer_body("http://x/y", INTERIM), "server"),
        (REPORT_ZERO, check_body(), answer_body(), None),
        (REPORT_ZERO, check_body(), b"no answer", None),
    ],
)
def test_whose_offer_it_is(rules: str, body: bytes, answer: bytes, source: str | None) -> None:
    one = rewriter(rules)
    watch = Watch(True, Message())
    watch.checked = one.check(body, ())
    watch.request.edited = watch.checked.body
    watch.response.edited = one.answer(answer, (), watch.checked, "x")
    assert offer_source(watch) == source


def exported(upshim: Upshim) -> dict[str, set[str]]:
    """Names of the samples that Prometheus would store, with their labels."""
    metrics = upshim.metrics
    assert isinstance(metrics, Metrics)
    metrics._offers.labels("server", "").inc(0)
    metrics._rewrites.labels("request").inc(0)
    for kind in ("check", "other"):
        metrics._exchanges.labels(kind, "broken").inc(0)
        metrics._upstream.labels(kind).observe(0)
    metrics._streamed.labels("request").inc(0)
    metrics.refused("idle")
    names: dict[str, set[str]] = {}
    for name, labels in samples(metrics.render()):
        names.setdefault(name, set()).update(label for label, _ in labels)
    return names


NAME = re.compile(r"\b((?:upshim|process)_[a-z_]+)(?:\{([^}]*)\})?")


def alert_expressions() -> list[str]:
    (group,) = YAML(typ="safe").load(io.StringIO(watching("alerts")))["groups"]
    return [rule["expr"] for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    return [target["expr"] for panel in json.loads(dashboard())["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("expressions", [alert_expressions, dashboard_expressions])
def test_what_they_ask_for_is_exported(expressions: Callable[[], list[str]], upshim: Upshim) -> None:
    names = exported(upshim)
    found = [(name, matchers) for expression in expressions() for name, matchers in NAME.findall(expression)]
    assert len(found) > 15
    for name, matchers in found:
        assert name in names, name
        labels = set(re.findall(r"([a-z_0-9]+)\s*(?:=~?|!=|!~)", matchers)) - {"instance", "job"}
        assert labels <= names[name], (name, labels)


@pytest.mark.parametrize("expressions", [alert_expressions, dashboard_expressions])
def test_expressions_are_whole(expressions: Callable[[], list[str]], upshim: Upshim) -> None:
    labels = set().union(*exported(upshim).values()) | {"instance"}
    for expression in expressions():
        assert "@" not in expression
        for opening, closing in ("()", "{}", "[]"):
            assert expression.count(opening) == expression.count(closing), expression
        for names in re.findall(r"\bby \(([^)]*)\)", expression):
            assert set(re.split(r", ?", names)) <= labels, expression


def test_every_metric_of_ours_is_somewhere_to_be_seen(upshim: Upshim) -> None:
    shown = {
        name for expression in [*alert_expressions(), *dashboard_expressions()] for name, _ in NAME.findall(expression)
    }
    ours = {name for name in exported(upshim) if name.startswith("upshim_")}
    ours = {name for name in ours if not name.endswith(("_created", "_sum", "_count"))}
    unseen = {"build_info", "rules_loaded_timestamp_seconds", "draining", "log_lines_lost_total", "rewrites_total",
              "recording_waiting_bytes"}  # fmt: skip
    assert {name.removeprefix("upshim_") for name in ours - shown} == unseen


def test_panels_do_not_overlap() -> None:
    places: set[tuple[int, int]] = set()
    for panel in json.loads(dashboard())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places
        assert max(x for x, _ in cells) < 24
        places |= cells
