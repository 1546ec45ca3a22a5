from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.user_agent import UserAgent
from dissectors.version import Version

WORDS = st.text("abcXYZ0189.-_", min_size=1, max_size=10)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5), st.lists(WORDS, max_size=3))
def test_products_and_comments_are_told_apart(products: list[tuple[str, str]], comments: list[str]) -> None:
    text = " ".join([f"{name}/{version}" for name, version in products] + [f"(x ({word}) y)" for word in comments])
    agent = UserAgent.parse(text)
    assert list(agent.products) == products
    assert list(agent.comments) == [f"x ({word}) y" for word in comments]


def test_the_phone_of_microsoft_s_report(corpus: Path) -> None:
    lines = (corpus / "logs/ms-user-agents-and-uris.txt").read_text().splitlines()
    agent = UserAgent.parse(lines[0].partition("\t")[0])
    assert agent.is_phone
    assert agent.firmware == Version(4, 0, 7423, 1)
    assert agent.comments == ("Microsoft Lync 2010 (Beta) Phone Edition",)


SEEN = [
    ("UCCAPI/3.5.6907.0 OC/3.5.6907.0 (Microsoft Office Communicator 2007 R2)", False, None),
    ("CPE/1.0.522.73 OCPhone/1.0.522.101", True, "1.0.522.101"),
    ("CPE/1.0.522.73", True, "1.0.522.73"),
    ("OCPHONE/.0.522", True, None),
    ("RTC/3.5", False, None),
    ("", False, None),
]


@pytest.mark.parametrize(("text", "is_phone", "firmware"), SEEN)
def test_a_phone_is_known_by_its_products(text: str, is_phone: bool, firmware: str | None) -> None:
    shown = UserAgent.parse(text).to_json()
    assert (shown["is_phone"], shown["firmware"], shown["text"]) == (is_phone, firmware, text)


def test_an_open_comment_ends_with_the_text() -> None:
    agent = UserAgent.parse("a/1 (b (c")
    assert agent.comments == ("b (c",)


def test_noise_is_read() -> None:
    rng = random.Random(7231)
    for _ in range(2000):
        UserAgent.parse("".join(rng.choices("a/.() \t\0é", k=rng.randrange(40))))
    assert UserAgent.parse("(" * 100_000).products == ()
