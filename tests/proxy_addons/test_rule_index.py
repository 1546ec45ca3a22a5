"""Deciding with the index must be deciding by going through all rules."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dissectors.version import Version
from proxy_addons.policy import Phone, mismatch
from proxy_addons.rules import Rules

MACS = [f"00:04:f2:00:00:0{number}" for number in range(3)]
PATHS = "".join(
    f'[[path]]\nname = "{vendor}-{model}"\ndevice_type = "UCPhone"\nvendor = "{vendor}"\nmodel = "{model}"\n'
    'revision = "A"\nlocale = "ENU"\nwaypoints = ["2.0.0.0"]\n'
    for vendor, model in itertools.product(("Polycom", "LG"), ("X", "Y"))
)
RULE = st.fixed_dictionaries(
    {},
    optional={
        "path": st.sampled_from(["Polycom-X", "Polycom-Y", "LG-X", "LG-Y"]),
        "when.mac": st.lists(st.sampled_from(MACS), max_size=2),
        "when.serial": st.lists(st.sampled_from(["a1", "B2"]), max_size=2),
        "when.subnet": st.lists(st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd00::/8"]), max_size=2),
        "when.version": st.just("< 2.0.0.0"),
    },
)


def file_of(rules: list[dict[str, object]]) -> str:
    tables = [
        "\n".join([f'[[rule]]\nname = "{number}"\nthen.observe = true', *(f"{key} = {rule[key]!r}" for key in rule)])
        for number, rule in enumerate(rules)
    ]
    return PATHS + "\n".join(tables)


def reachable(rules: list[dict[str, object]]) -> list[dict[str, object]]:
    """Without those behind one that matches every phone: a file with such is refused."""
    kept: list[dict[str, object]] = []
    taken: set[object] = set()
    for rule in rules:
        if not taken & {rule.get("path"), None}:
            kept.append(rule)
            if not rule.keys() - {"path"}:
                taken.add(rule.get("path"))
    return kept


PHONE = st.builds(
    Phone,
    device_type=st.sampled_from(["UCPhone", "ucphone", None]),
    vendor=st.sampled_from(["Polycom", "POLYCOM ", "LG"]),
    model=st.sampled_from(["X", "Y", "Z", None]),
    revision=st.just("A"),
    locale=st.just("ENU"),
    version=st.sampled_from([Version(1, 0, 0, 0), Version(2, 0, 0, 0)]),
    mac=st.sampled_from([*MACS, None]),
    serial=st.sampled_from(["A1", " b2", "", None]),
    address=st.sampled_from(["10.1.2.3", "::ffff:10.9.9.9", "fd00::1%eth0", "192.0.2.1", "nonsense", None]),
)


@given(st.lists(RULE, max_size=12), st.lists(PHONE, min_size=1, max_size=4))
def test_no_rule_that_matches_is_missed_and_the_order_stays(
    rules: list[dict[str, object]], phones: list[Phone]
) -> None:
    read = Rules.parse(file_of(reachable(rules)).encode())
    for phone in phones:
        wanted = [rule for rule in read.rules if mismatch(rule, phone) is None]
        candidates = list(read.index.candidates(phone))
        assert [rule for rule in candidates if mismatch(rule, phone) is None] == wanted
        assert len({rule.name for rule in candidates}) == len(candidates)


def test_rules_for_others_are_not_looked_at() -> None:
    many: list[dict[str, object]] = [{"path": "LG-Y", "when.mac": [MACS[number % 3]]} for number in range(99)]
    read = Rules.parse(file_of([*many, {"path": "Polycom-X"}]).encode())
    phone = Phone("UCPhone", "LG", "Y", "A", "ENU", Version(1, 0, 0, 0), MACS[0])
    assert len(list(read.index.candidates(phone))) == 33
    assert list(read.index.candidates(Phone())) == []
