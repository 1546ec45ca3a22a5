from __future__ import annotations

import textwrap

import pytest

from dissectors.version import Version
from tools.update_server import config
from tools.update_server.config import read_server_rules
from tools.update_server.field_story import FieldStory
from tools.update_server.packages import CX700
from tools.update_server.rules import IdentifierType, Rule, RuleBook, TestDevice


def test_the_example_in_the_documentation_is_read() -> None:
    example = textwrap.dedent((config.__doc__ or "").partition("\n\n")[2])
    rules = read_server_rules(example)
    versions = [Version.parse(text) for text in ("1.0.522.101", "3.5.6907.35", "1.0.199.123")]
    assert rules.book == RuleBook(
        (Rule(CX700, "CPE", *versions),),
        (TestDevice(IdentifierType.MAC_ADDRESS, "00-04-F2-00-01-76", "the one on my desk"),),
    )
    assert rules.stories == (FieldStory.of("1.0.522.73", None, "CX700"),)


def test_an_empty_file_has_no_rules() -> None:
    assert read_server_rules("") == (RuleBook(), ())


CX = '[[rule]]\nbrand = "Polycom"\nmodel = "CX700"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rule = 1", "two brackets"),
        ("rule = [1]", "rule 1: expected a table"),
        ("[rule]", "two brackets"),
        ("[[rules]]", r"expected \[\[rule\]\].*'rules'"),
        ("[[rule]]\nmodel = 'x'", "rule 1: brand is missing"),
        (CX + "colour = 'red'", "'colour' is not known; expected approved, brand"),
        (CX + "approved = 1.0", "approved: expected text in quotes"),
        (CX + "approved = '1.0'", "rule 1: approved: expected a version such as"),
        (CX + "approved = '99999.99999.99999.99999'", "rule 1: a version of at most 20"),
        (CX + CX, "two rules for UCPhone/Polycom/CX700/A/ENU CPE"),
        ("[[test_device]]", "either mac or serial"),
        ("[[test_device]]\nmac = 'x'", "test_device 1: not a MAC address"),
        ("[[field_story]]\nanswer = ''", "reported is missing"),
        ("[[field_story]]\nreported = '1.0.522.73'", "answer is missing"),
        ("x = = 1", "line 1"),
        ("x = " + "[" * 100_000, "nested"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_server_rules(text)
