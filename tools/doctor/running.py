"""A running upshim, asked through its admin listener."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from proxy_addons.rules import Rules
from tools import switch
from tools.doctor.result import OK, PROBLEM, WARN, Result
from tools.errors import UnusableInput
from tools.proxy import host_and_port

MAX_METRICS = 16 << 20

# Sample, from which value on it is told, how badly, in words (with the number), and what to do.
SIGNS = (
    ("upshim_fail_open_total", WARN, "failed open {} times", "The log names the causes: please report them."),
    (
        "upshim_recording_lost_total",
        WARN,
        "{} things are missing in the recording",
        "upshim_recording_lost_total says what.",
    ),
    (
        "upshim_breaker_open",
        PROBLEM,
        "{} breakers are open: too many phones failed",
        "upshim rules explain says which.",
    ),
    (
        "upshim_server_unreachable",
        PROBLEM,
        "it cannot reach the server: phones behind a front go past it, others get 502",
        "Its log says why; run doctor with its options as its user.",
    ),
    ("upshim_journal_failed", PROBLEM, "the journal cannot be written, and nothing is rewritten", "Look at the disk."),
    ("upshim_rewriting_stopped", WARN, "the kill switch is on: nothing is rewritten", "upshim rules start"),
    ("upshim_dry_run", WARN, "it runs dry: decisions are not carried out", "Leave out --dry-run when you mean it."),
    ("upshim_log_lines_lost_total", WARN, "{} lines of the log were lost", "Whoever reads it is too slow."),
)


def running(admin: str, token: Path | None, rules: Rules | None, *, expected: bool = True) -> Iterator[Result]:
    """Is it well, does it run the rules of the file, and what has gone wrong since it started?

    Where it is not expected to run yet, that it does not is no problem.
    """
    try:
        health = switch.ask(admin, token, "GET", "/health")
    except UnusableInput as error:
        said = str(error).removeprefix(f"{admin}: ")
        yield Result("running", admin, PROBLEM if expected else WARN, said, "Is upshim running, with this --admin?")
        return
    status = str(health.get("status"))
    since = f"{health.get('connections')} connections, up for {health.get('uptime_seconds')} s"
    yield Result("running", admin, OK if status == "ok" else WARN, f"{status}: {since}")
    found = {name: value for name, value in numbers(admin, token).items() if value}
    if rules is not None and health.get("rules_sha256") != rules.sha256:
        advice = "It looks every second; its log says why it did not take the file. Is it the same file?"
        yield Result("running", admin, PROBLEM, "its rules are not those of the file", advice)
    for name, state, words, advice in SIGNS:
        if name in found:
            yield Result("running", admin, state, words.format(round(found[name])), advice)


def numbers(admin: str, token: Path | None) -> dict[str, float]:
    """The metrics, summed over their labels; empty where they cannot be had. Raises `UnusableInput`."""
    host, port = host_and_port("--admin", admin)
    headers = {} if token is None else {"Authorization": f"Bearer {switch.token_of(token)}"}
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=switch.WITHIN)) as connection:
            connection.request("GET", "/metrics", headers=headers)
            text = connection.getresponse().read(MAX_METRICS).decode("utf-8", "replace")
        families = list(text_string_to_metric_families(text))
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    summed: dict[str, float] = {}
    for family in families:
        for sample in family.samples:
            summed[sample.name] = summed.get(sample.name, 0.0) + sample.value
    return summed
