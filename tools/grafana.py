"""The Grafana dashboard that `upshim deploy grafana` prints: panels over what proxy_addons/metrics.py counts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import count
from typing import Any

WIDTH, HEIGHT = 8, 8  # three panels stand side by side
SOURCE = {"type": "prometheus", "uid": "${source}"}
CHOSEN = 'instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart: PromQL with its legend, one or more times; `@`, or `{@, ...}`, stands for the chosen instances."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    stacked: bool = False
    about: str = ""


def of_chosen(expr: str) -> str:
    """A query of the instances that are chosen."""
    return expr.replace("{@", f"{{{CHOSEN}").replace("@", f"{{{CHOSEN}}}")


def quantile(which: float, metric: str, by: str = "") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({which}, sum by (le{by}) (rate({metric}_bucket@[$__rate_interval])))"


def per_second(metric: str, by: str) -> str:
    """How fast a counter moves."""
    return f"sum by ({by}) (rate({metric}@[$__rate_interval]))"


ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    (
        "Phones",
        (
            Panel("Phones by state", (("sum by (state) (upshim_phones@)", "{{state}}"),), stacked=True),
            Panel("Phones by version", (("sum by (version) (upshim_phones@)", "{{version}}"),), stacked=True),
            Panel(
                "Breakers",
                (
                    ("max by (path, rule) (upshim_breaker_open@)", "{{path}} {{rule}} open"),
                    ("upshim_breaker_failed@ / upshim_breaker_ended@", "{{path}} {{rule}} failed"),
                ),
                "percentunit",
                about="The share of attempts that failed, and 100 % where the breaker has stopped the path.",
            ),
        ),
    ),
    (
        "Decisions",
        (
            Panel(
                "Update checks", ((per_second("upshim_checks_total", "action"), "{{action}}"),), "reqps", stacked=True
            ),
            Panel("Offers", ((per_second("upshim_offers_total", "source, rule"), "{{source}} {{rule}}"),), "reqps"),
            Panel(
                "What is in force",
                (
                    ("upshim_rules@", "rules {{instance}}"),
                    ("upshim_rules_reload_successful@", "file accepted {{instance}}"),
                    ("upshim_certificate_reload_successful@", "certificate accepted {{instance}}"),
                    ("upshim_rewriting_stopped@", "stopped {{instance}}"),
                    ("upshim_dry_run@", "dry run {{instance}}"),
                    ('upshim_packages{@, state="not there"}', "packages missing {{instance}}"),
                ),
                about="Age of the rules: time() - upshim_rules_loaded_timestamp_seconds.",
            ),
        ),
    ),
    (
        "Time",
        (
            Panel(
                "upshim's own part",
                ((quantile(0.5, "upshim_handling_seconds"), "p50"), (quantile(0.99, "upshim_handling_seconds"), "p99")),
                "s",
            ),
            Panel(
                "The server's part",
                (
                    (quantile(0.5, "upshim_upstream_seconds", ", kind"), "{{kind}} p50"),
                    (quantile(0.99, "upshim_upstream_seconds", ", kind"), "{{kind}} p99"),
                ),
                "s",
            ),
            Panel(
                "Wait for the record",
                (
                    (quantile(0.5, "upshim_record_wait_seconds"), "p50"),
                    (quantile(0.99, "upshim_record_wait_seconds"), "p99"),
                ),
                "s",
            ),
        ),
    ),
    (
        "What goes wrong",
        (
            Panel("Failures by cause", ((per_second("upshim_failures_total", "cause"), "{{cause}}"),), "cps"),
            Panel(
                "Failed open, and broken exchanges",
                (
                    (per_second("upshim_fail_open_total", "instance"), "failed open {{instance}}"),
                    (
                        'sum by (kind) (rate(upshim_exchanges_total{@, outcome="broken"}[$__rate_interval]))',
                        "broken {{kind}}",
                    ),
                ),
                "cps",
            ),
            Panel("Not recorded", ((per_second("upshim_recording_lost_total", "what"), "{{what}}"),), "cps"),
        ),
    ),
    (
        "Recording",
        (
            Panel(
                "Waiting",
                (
                    ("upshim_recording_waiting@", "exchanges {{instance}}"),
                    ("upshim_recording_lag_seconds@", "seconds {{instance}}"),
                    ("upshim_recording_spool_bytes@", "bytes spooled {{instance}}"),
                ),
            ),
            Panel(
                "Recorded",
                (
                    (per_second("upshim_recorded_exchanges_total", "instance"), "exchanges {{instance}}"),
                    (per_second("upshim_streamed_bytes_total", "message"), "bytes streamed: {{message}}"),
                    (per_second("upshim_recorded_bytes_total", "instance"), "bytes {{instance}}"),
                ),
            ),
            Panel("Room", (("upshim_recording_free_bytes@", "{{instance}}"),), "bytes"),
        ),
    ),
    (
        "Process",
        (
            Panel(
                "Connections",
                (
                    ("upshim_connections@", "open {{instance}}"),
                    (per_second("upshim_connections_closed_total", "why"), "closed: {{why}}"),
                ),
            ),
            Panel(
                "Memory",
                (
                    ("process_resident_memory_bytes@", "{{instance}}"),
                    ("upshim_writer_resident_memory_bytes@", "writer {{instance}}"),
                ),
                "bytes",
                about="The unit's MemoryMax is for both together.",
            ),
            Panel(
                "Processor and descriptors",
                (
                    (per_second("process_cpu_seconds_total", "instance"), "processor {{instance}}"),
                    ("process_open_fds@ / process_max_fds@", "descriptors {{instance}}"),
                ),
                "percentunit",
            ),
        ),
    ),
)


def dashboard() -> str:
    """The dashboard as JSON, to import into Grafana 9 or later."""
    numbers = count(1)
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append({"id": next(numbers), "type": "row", "title": title, "gridPos": _place(0, top, 24, 1)})
        panels += [
            _panel(panel, next(numbers), _place(WIDTH * n, top + 1, WIDTH, HEIGHT)) for n, panel in enumerate(row)
        ]
        top += 1 + HEIGHT
    choices = [
        {"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "instance",
            "label": "Shim",
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": "label_values(upshim_build_info, instance)", "refId": "instance"},
            "refresh": 2,
            "includeAll": True,
            "multi": True,
        },
    ]
    whole = {
        "uid": "upshim",
        "title": "upshim",
        "tags": ["upshim"],
        "schemaVersion": 37,
        "timezone": "browser",
        "time": {"from": "now-24h", "to": "now"},
        "refresh": "1m",
        "templating": {"list": choices},
        "panels": panels,
    }
    return json.dumps(whole, indent=1) + "\n"


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom = {"fillOpacity": 60 if panel.stacked else 8, "stacking": {"mode": "normal" if panel.stacked else "none"}}
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": of_chosen(expr), "legendFormat": legend}
            for n, (expr, legend) in enumerate(panel.queries)
        ],
    }
