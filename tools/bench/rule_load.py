"""One measurement of `upshim bench rules`, in a process of its own: `python -m tools.bench.rule_load SHAPE RULES PHONES
CHECKS`; prints one JSON object.

Phones are known with a day of history behind them: one in ten was offered something. A check is what the proxy does
with one: the body is decoded, the check goes into the history, the decision is made and noted, the body is edited, the
answer is decoded and the history told.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from dissectors.mac_address import normal_mac
from dissectors.version import Version
from dissectors.vocabulary import Vocabulary
from proxy_addons import phone_events
from proxy_addons.history import Histories, identity_of
from proxy_addons.interlocks import Situation
from proxy_addons.phone import Phone
from proxy_addons.policy import decide
from proxy_addons.rewriter import Rewriter
from proxy_addons.rules import Rules
from tools.ucphone.identity import PhoneIdentity
from tools.ucphone.messages import write_check
from tools.ucphone.phone import installed_module
from tools.update_server.messages import NoOffer, write_answer
from tools.update_server.service import Answer

SHAPES = ("models", "branches", "phones")
OLD, INTERIM = Version(1, 0, 522, 73), Version(1, 0, 522, 103)
HEADERS = (("Content-Type", "text/xml; charset=utf-8"),)
BODY_LIMIT = 1 << 20
CHUNK = 500  # checks with rules, then as many without
DAY = timedelta(hours=24)
LIMITS = """when.version = "< 1.0.522.101"
when.percentage = 100
limits = { per_phone_per_day = 3, fleet_failure_rate = 0.5, fleet_undecided = 1000000, concurrent_downloads = 1000000 }
then.report = "0.0.0.0"
"""


def path_text(model: str) -> str:
    """An upgrade path for a model."""
    return (
        f'[[path]]\nname = "{model}"\ndevice_type = "UCPhone"\nvendor = "Polycom"\nmodel = "{model}"\nrevision = "A"\n'
        'locale = "ENU"\nwaypoints = ["1.0.522.103", "3.5.6907.222"]\nrequired = ["1.0.522.103"]\n'
    )


def rules_text(shape: str, count: int) -> str:
    """So many rules: for a model each with a path of its own, or for a branch or a phone each."""
    if shape == "models":
        names = [f"M{number}" for number in range(count)]
        rules = [f'[[rule]]\nname = "{name}"\npath = "{name}"\n{LIMITS}' for name in names]
        return "\n".join([path_text(name) for name in names] + rules)
    rules = [f'[[rule]]\nname = "{number}"\npath = "M0"\n{chosen(shape, number)}{LIMITS}' for number in range(count)]
    return "\n".join([path_text("M0"), *rules])


def chosen(shape: str, number: int) -> str:
    """Whom a rule is for."""
    if shape == "branches":
        return f'when.subnet = ["10.{number >> 8 & 255}.{number & 255}.0/24"]\n'
    return f'when.mac = ["{mac_of(number)}"]\n'


def mac_of(number: int) -> str:
    """A phone's address."""
    return f"00-04-F2-{number >> 16 & 255:02X}-{number >> 8 & 255:02X}-{number & 255:02X}"


def phone_of(number: int, shape: str, count: int) -> Phone:
    """A phone; the phones are spread over the models or branches there are rules for."""
    place = number % count
    branch = f"10.{place >> 8 & 255}.{place & 255}.{number // count % 250 + 1}"
    model = f"M{place}" if shape == "models" else "M0"
    mac = normal_mac(mac_of(number))
    return Phone("UCPhone", "Polycom", model, "A", "ENU", OLD, mac, f"S{number}", branch)


def body_of(phone: Phone, number: int) -> bytes:
    """The body of its check."""
    identity = PhoneIdentity(mac_of(number), phone.serial or "", model=phone.model or "")
    return write_check(identity, [installed_module(OLD)])


class Load:
    """Rules, a fleet with a past, and a clock that moves as if the fleet polled once a day."""

    def __init__(self, shape: str, count: int, phones: int) -> None:
        text = rules_text(shape, count).encode()
        began = time.process_time()
        self.rules = Rules.parse(text)
        self.load_seconds = time.process_time() - began
        self.phones, self._shape, self._count = phones, shape, count
        self.now = datetime(2026, 1, 5, 12).astimezone()
        self._step = DAY / phones
        self.histories = Histories()
        for number in range(phones):
            self._live(number)

    def phone(self, number: int) -> Phone:
        """A phone by its number."""
        return phone_of(number, self._shape, self._count)

    def tick(self) -> datetime:
        """The time of the next check."""
        self.now += self._step
        return self.now

    def situate(self, phone: Phone) -> Situation:
        """As the proxy does."""
        return phone_events.situation(self.histories, phone, self.now, "")

    def _live(self, number: int) -> None:
        """A check of the day before, and for one in ten an offer that worked."""
        phone, now = self.phone(number), self.tick() - DAY
        identity = identity_of(phone.mac, phone.serial, phone.address) or ""
        self.histories.checked(identity, now, version=phone.version, address=phone.address)
        if number % 10 == 0:
            path = phone.model or ""
            self.histories.decided(identity, now, "report", path, path)
            self.histories.answered(identity, now, rule=path, path=path, offers=True, version=INTERIM)


class Timed:
    """CPU time of calls, and the wall-clock time of each."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self._work = work
        self._single: list[float] = []
        self._cpu = 0.0

    def run(self, numbers: list[int]) -> None:
        """Call for each number."""
        began = time.process_time()
        for number in numbers:
            start = time.perf_counter()
            self._work(number)
            self._single.append(time.perf_counter() - start)
        self._cpu += time.process_time() - began

    def result(self) -> dict[str, float]:
        """Microseconds: CPU time on the average, quantiles of the wall clock."""
        cuts = statistics.quantiles(self._single, n=100)
        return {
            "us": round(self._cpu / len(self._single) * 1e6, 2),
            "p50_us": round(cuts[49] * 1e6, 2),
            "p99_us": round(cuts[98] * 1e6, 2),
        }


def measure(shape: str, count: int, phones: int, checks: int) -> dict[str, Any]:
    """Run it all."""
    before = peak()
    load = Load(shape, count, phones)
    drawn = random.Random(1)
    numbers = [drawn.randrange(phones) for _ in range(checks)]
    asked = {number: load.phone(number) for number in numbers}
    bodies = {number: body_of(phone, number) for number, phone in asked.items()}
    answer = write_answer(Answer((), "nothing"), NoOffer.BLANK)
    actions: dict[str, int] = {}

    def decision(number: int) -> None:
        phone, now = asked[number], load.tick()
        decided = decide(load.rules, phone, load.situate(phone))
        phone_events.decided(load.histories, phone, now, decided, dry_run=False)
        actions[decided.action] = actions.get(decided.action, 0) + 1

    def through(rewriter: Rewriter) -> Callable[[int], None]:
        def check(number: int) -> None:
            now = load.tick()
            checked = rewriter.check(bodies[number], HEADERS, asked[number].address, load.situate)
            if checked.phone is not None:
                phone_events.decided(load.histories, checked.phone, now, checked.decision, dry_run=False)
            rewriter.answer(answer, HEADERS, checked, "10.0.0.5")

        return check

    vocabulary = Vocabulary.default()
    decisions = Timed(decision)
    decisions.run(numbers)
    whole, bare = (Timed(through(Rewriter(rules, vocabulary, BODY_LIMIT))) for rules in (load.rules, Rules()))
    for start in range(0, len(numbers), CHUNK):
        for each in (whole, bare):  # in turns: what slows the machine slows both
            each.run(numbers[start : start + CHUNK])
    decided, with_rules, without = decisions.result(), whole.result(), bare.result()
    return {
        "kind": "bench",
        "bench": "rules",
        "shape": shape,
        "rules": count,
        "phones": phones,
        "checks": checks,
        "actions": actions,
        "load_s": round(load.load_seconds, 3),
        "decisions_per_s": round(1e6 / decided["us"]),
        "decision": decided,
        "exchange": with_rules,
        "exchange_without_rules": without,
        "added_us": round(with_rules["us"] - without["us"], 2),
        "peak": peak(),
        "start": before,
    }


def peak() -> int:
    """The most memory this process ever held, in bytes."""
    match = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) * 1024 if match else 0


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], *map(int, sys.argv[2:5]))))
