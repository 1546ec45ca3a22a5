from __future__ import annotations

import pytest

from tools.fact_words import WORDS, words


@pytest.mark.parametrize("kind", sorted(WORDS.keys() - {"tls"}))
def test_facts_of_another_version_are_named(kind: str) -> None:
    for fields in ({}, {"modules": 3, "offers": None, "options": 7, "questions": [1], "action": "report"}):
        assert words({"fact": kind, **fields}) == kind


def test_facts_nobody_has_words_for() -> None:
    assert words({"fact": "new"}) == "new"
    assert words({}) == "None"


def test_a_check_in_words() -> None:
    modules = [{"version": "1.0.522.73"}, {"version": None}]
    told = {"fact": "update-check", "modules": modules, "mac_address": None, "serial": "7", "model": "CX700"}
    assert words(told) == "7 CX700 runs 1.0.522.73, ?"
