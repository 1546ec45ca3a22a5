from __future__ import annotations

import contextlib
from datetime import time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.mac_address import normal_mac
from dissectors.version import Version
from proxy_addons.conditions import UNDECIDED, Limits, Rollout, Window
from proxy_addons.rules import HeaderEdits, Offer, Report, Rules, RulesError, VersionRange
from tests.bodies import OFFER_NEXT, REPORT_ZERO, RULES

ZERO_FILETIME = "01-01-1601 00:00:00"


def test_a_whole_file() -> None:
    text = (
        REPORT_ZERO
        + """
[[rule]]
name = "interim"
path = "cx700"
when = { version = ">= 1.0.199.123, < 1.0.522.101", mac = ["00-04-F2-00-01-76"], serial = ["07823-A345"] }
then.offer = { version = "1.0.522.103", base_url = "http://10.0.0.5/x", file = "CPE.nbt" }
allow_downgrade = true

[[rule]]
name = "mark"
then.request_headers = { set = { X-Upshim = "1" }, remove = ["X-Debug"] }
"""
    )
    rules = Rules.parse(text.encode())
    zero, interim, mark = rules.rules
    assert zero.report == Report(Version(0, 0, 0, 0), ZERO_FILETIME)
    assert interim.offer == Offer(Version(1, 0, 522, 103), base_url="http://10.0.0.5/x", file="CPE.nbt")
    assert interim.macs == frozenset({normal_mac("0004F2000176")})
    assert interim.serials == frozenset({"07823-a345"})
    assert interim.path is rules.paths[0]
    assert mark.request_headers == HeaderEdits((("X-Upshim", "1"),), ("X-Debug",))
    assert len(rules.sha256) == 64
    assert Rules.parse(b"") == Rules(sha256=Rules.parse(b"").sha256)
    assert Rules.parse(OFFER_NEXT.encode()).rules[0].offer == Offer(None)
    assert Rules.parse(b"\xef\xbb\xbf" + OFFER_NEXT.encode()).rules == Rules.parse(OFFER_NEXT.encode()).rules


def test_conditions_scope_and_limits() -> None:
    text = (
        REPORT_ZERO
        + """
when.subnet = ["10.1.0.0/16", "fd00::/8", "192.0.2.7"]
when.window = "22:00-05:00 UTC"
when.percentage = 12.5
scope = { mac = ["0004F2000176"], serial = ["AB37_679e"] }
limits.per_phone_per_day = 3
limits.stop_after_failures = 2
limits.fleet_failure_rate = 0.2
limits.fleet_window = "7d"
limits.fleet_minimum = 10
limits.concurrent_downloads = 25
allow_address_identity = true
"""
    )
    (rule,) = Rules.parse(text.encode()).rules
    assert [str(subnet) for subnet in rule.subnets or ()] == ["10.1.0.0/16", "fd00::/8", "192.0.2.7/32"]
    assert rule.window == Window(time(22), time(5), utc=True)
    assert rule.rollout == Rollout(frozenset({"00:04:f2:00:01:76"}), frozenset({"ab37_679e"}), 12.5)
    assert rule.limits == Limits(3, 2, 0.2, timedelta(days=7), 10, UNDECIDED, 25)
    (capped,) = Rules.parse((text + "limits.fleet_undecided = 7\n").encode()).rules
    assert capped.limits.fleet_undecided == 7
    assert rule.allow_address_identity
    (plain,) = Rules.parse(REPORT_ZERO.encode()).rules
    assert (plain.subnets, plain.window, plain.rollout, plain.limits) == (None, None, None, Limits())
    assert not plain.allow_address_identity


SUBTABLES = (
    RULES.replace("when.version", "[rule.when]\nversion").replace(
        'path = "cx700"', 'path = "cx700"\nthen.report = "0.0.0.0"'
    )
    + '[rule.scope]\nmac = ["0004f2000176"]\nserial = [""]\n'
)
OBSERVE_ALL = RULES.replace('when.version = "< 1.0.522.101"\n', "then.observe = true\n").replace("stuck", "all")
MISTAKES = [
    ("[[rule]\n", 1, "not TOML: .*, column 7"),
    ("x = 1\ny = [", 2, "not TOML: .*end of document"),
    ("x = 1\n\xff", 2, "expected UTF-8, found byte 0xff"),
    ("x = 1", 1, "found 'x'"),
    ("# the x of all\n\n[[x]]", 3, "found 'x'"),
    ("rule = 1", 1, r"\[\[rule\]\] tables"),
    (REPORT_ZERO.replace("model", "modell"), 6, "unknown key 'modell'"),
    (REPORT_ZERO.replace('"CX700"', "700"), 6, "model: expected text, found 700"),
    (REPORT_ZERO.replace('model = "CX700"\n', ""), 2, "model: expected text, found nothing"),
    (REPORT_ZERO.replace('"CX700"', "true"), 6, "model: expected text, found true"),
    (REPORT_ZERO.replace('"CX700"', "2026-11-01"), 6, "model: expected text, found 2026-11-01"),
    (REPORT_ZERO.replace('"1.0.522.103", "3.5.6907.222"', '"3.5.6907.222", "1.0.522.103"'), 9, "oldest to the newest"),
    (REPORT_ZERO.replace('required = ["1.0.522.103"]', 'required = ["1.0.522.101"]'), 10, "not a waypoint"),
    (REPORT_ZERO.replace('"1.0.522.103", "3.5.6907.222"', '"1.0.522"'), 9, "expected a version such as"),
    (REPORT_ZERO.replace('path = "cx700"', 'path = "cx600"'), 14, "no path is named 'cx600'"),
    (REPORT_ZERO.replace("< 1.0.522.101", "below 1"), 15, "expected a constraint"),
    (
        REPORT_ZERO.replace("< 1.0.522.101", "< 1.0.522.101, > 2.0.0.0"),
        15,
        "expected constraints that a version can meet",
    ),
    (REPORT_ZERO.replace("< 1.0.522.101", "< 9.0.0.0"), 15, "would never stop: .* the last waypoint, 3.5.6907.222"),
    (REPORT_ZERO.replace('"0.0.0.0"', '"zero"'), 16, "then.report: expected a version"),
    (REPORT_ZERO + 'then.offer = "next"\n', 17, "expected one of report, offer and observe"),
    (REPORT_ZERO + "then.reprot = 1\n", 17, "unknown key 'then.reprot'"),
    (REPORT_ZERO + 'when.mac = ["00:04"]\n', 17, "when.mac: expected a MAC address"),
    (REPORT_ZERO + 'when.mac = [\n  "0004f2000176",\n  "00:04",\n]\n', 19, "when.mac: expected a MAC address"),
    (REPORT_ZERO + 'when.subnet = ["10.0.0.0/8",\n  "10.1/16"]\n', 18, "when.subnet: expected a subnet"),
    (REPORT_ZERO.replace('"1.0.522.103", "3.5.6907.222"', '\n"1.0.522.103",\n"3.5"\n'), 11, "waypoints: expected a v"),
    (REPORT_ZERO.replace('path = "cx700"\n', ""), 13, "for which device"),
    (REPORT_ZERO.replace('when.version = "< 1.0.522.101"\n', ""), 12, "would never stop"),
    (RULES, 12, "does nothing"),
    (RULES + 'then.offer = "2.0.0.0"\n', 16, "2.0.0.0 is not a waypoint"),
    (RULES + 'then.request_headers.set = { Content-Length = "1" }\n', 16, "not a header that can be edited"),
    (RULES + 'then.request_headers.set = { X-A = "a\\r\\nb" }\n', 16, "expected text"),
    (RULES + 'then.request_headers.set = { X-A = "\\u65e5" }\n', 16, "then.request_headers.set.X-A: expected ASCII"),
    (RULES + "then.observe = false\n", 16, "expected true"),
    (REPORT_ZERO + 'when.subnet = ["10.1.0.1/16"]\n', 17, "when.subnet: expected a subnet such as 10.1.0.0/16"),
    (REPORT_ZERO + 'when.window = "22-5"\n', 17, "when.window: expected a time of day such as"),
    (REPORT_ZERO + "when.percentage = 101\n", 17, "when.percentage: expected a number from 0 to 100, found 101"),
    (REPORT_ZERO + "when.percentage = true\n", 17, "when.percentage: expected a number"),
    (REPORT_ZERO + "scope = {}\n", 17, "scope: expected mac or serial"),
    (REPORT_ZERO + "when.mac = []\nscope.percentage = 5\n", 18, "unknown key 'scope.percentage'"),
    (REPORT_ZERO + 'when.mac = []\nscope.mac = ["00:04"]\n', 18, "scope.mac: expected a MAC address"),
    (SUBTABLES, 20, "scope.serial: expected texts that are not blank"),
    (SUBTABLES.replace('"0004f2000176"', "1"), 19, "scope.mac: expected a list of texts"),
    (REPORT_ZERO + "limits.per_phone_per_day = 0\n", 17, "limits.per_phone_per_day: expected a whole number from 1"),
    (REPORT_ZERO + "limits.stop_after_failures = 1.5\n", 17, "limits.stop_after_failures: expected a whole number"),
    (REPORT_ZERO + "limits.fleet_failure_rate = 20\n", 17, "limits.fleet_failure_rate: expected a number from 0 to 1"),
    (REPORT_ZERO + "limits.fleet_minimum = 3\n", 17, "expected limits.fleet_failure_rate beside it"),
    (REPORT_ZERO + 'limits.fleet_failure_rate = 0.2\nlimits.fleet_window = "1w"\n', 18, "expected a time such as 90s"),
    (REPORT_ZERO + "limits.concurrent_downloads = false\n", 17, "expected a whole number from 1"),
    (REPORT_ZERO + "limits.per_day = 1\n", 17, "unknown key 'limits.per_day'"),
    (REPORT_ZERO + "limits = 5\n", 17, "limits: expected a table"),
    (REPORT_ZERO + 'allow_address_identity = "yes"\n', 17, "expected true or false"),
    (
        OBSERVE_ALL + '[[rule]]\nname = "late"\npath = "cx700"\nthen.observe = true\n',
        17,
        "'late' is never reached: .*'all'",
    ),
    (
        REPORT_ZERO.replace("[[rule]]", '[[rule]]\nname = "any"\nthen.observe = true\n[[rule]]'),
        16,
        "'stuck' is never reached: rule 'any'",
    ),
    (REPORT_ZERO + REPORT_ZERO, 19, "a path named 'cx700' is there already"),
]


@pytest.mark.parametrize(("text", "line", "words"), MISTAKES)
def test_a_mistake_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(RulesError, match=words) as caught:
        Rules.parse(text.encode("latin-1"))
    assert caught.value.line == line


@given(st.text())
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with contextlib.suppress(RulesError):
        Rules.parse(text.encode())


@pytest.mark.parametrize(
    ("constraint", "inside", "outside"),
    [
        ("< 1.0.522.101", "1.0.522.73", "1.0.522.101"),
        ("<=1.0.522.101", "1.0.522.101", "1.0.522.102"),
        ("> 1.0.0.9", "1.0.0.10", "1.0.0.9"),
        (">= 1.0.0.9, < 2.0.0.0", "1.9.0.0", "2.0.0.0"),
        ("1.0.522.73", "1.0.522.73", "1.0.522.74"),
        ("== 1.0.522.73", "1.0.522.73", "1.0.522.72"),
        ("!= 1.0.522.73", "1.0.522.74", "1.0.522.73"),
    ],
)
def test_constraints_compare_numbers(constraint: str, inside: str, outside: str) -> None:
    found = VersionRange.parse(constraint)
    assert Version.parse(inside) in found
    assert Version.parse(outside) not in found


@pytest.mark.parametrize("text", ["", "> 1.0.0.1, < 1.0.0.2", "< 0.0.0.0", "1.0.0.0, 1.0.0.1", "!= 1.0.0.0, 1.0.0.0"])
def test_a_range_that_no_version_meets_is_refused(text: str) -> None:
    with pytest.raises(DissectError):
        VersionRange.parse(text)


@pytest.mark.parametrize(
    "text", ["< 1.0.522.0", "> 1.0.0.1, < 1.0.0.3", "!= 0.0.0.0", "<= 0.0.0.0", ">= 1.0.0.0, <= 1.0.0.0"]
)
def test_a_range_that_a_version_meets_is_taken(text: str) -> None:
    assert str(VersionRange.parse(text)) == text
