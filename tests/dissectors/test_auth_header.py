from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, auth_header
from dissectors.auth_header import Credentials

WORDS = st.text("abcdefghijklmnopqrstuvwxyzABC-0189", min_size=1, max_size=12)
TEXTS = st.text(st.characters(codec="latin-1"), max_size=20)
CHALLENGES = st.lists(
    st.builds(Credentials, WORDS, st.just(""), st.lists(st.tuples(WORDS, TEXTS), min_size=1, max_size=4).map(tuple)),
    min_size=1,
    max_size=4,
)


@given(CHALLENGES)
def test_written_challenges_are_told_apart(challenges: list[Credentials]) -> None:
    written = ", ".join(
        f"{one.scheme} "
        + ", ".join(
            f'{name}="{value.replace(chr(92), chr(92) * 2).replace(chr(34), chr(92) + chr(34))}"'
            for name, value in one.parameters
        )
        for one in challenges
    )
    assert auth_header.parse(written) == tuple(challenges)


SEEN = [
    ("Negotiate", [("Negotiate", "")]),
    ("Negotiate, NTLM", [("Negotiate", ""), ("NTLM", "")]),
    ("NTLM TlRMTVNTUAAB", [("NTLM", "TlRMTVNTUAAB")]),
    ("Negotiate oYG2MI==, NTLM", [("Negotiate", "oYG2MI=="), ("NTLM", "")]),
    ("Bearer", [("Bearer", "")]),
    ("", []),
]


@pytest.mark.parametrize(("value", "found"), SEEN)
def test_tokens_and_bare_schemes(value: str, found: list[tuple[str, str]]) -> None:
    assert [(one.scheme, one.token) for one in auth_header.parse(value)] == found


def test_several_schemes_with_parameters_in_one_value() -> None:
    ntlm, kerberos = auth_header.parse('NTLM realm="SIP Service", version=4, Kerberos realm="a, b", TargetName="sip/x"')
    assert (ntlm.get("Realm"), ntlm.get("version"), ntlm.get("targetname")) == ("SIP Service", "4", None)
    assert (kerberos.get("realm"), kerberos.get("targetname")) == ("a, b", "sip/x")


@pytest.mark.parametrize("value", ["=", "@", 'NTLM realm="open', "a " * 200, "A" + ' b="c"' * 100, "x" * 300_000])
def test_what_is_no_header_is_refused(value: str) -> None:
    with pytest.raises(DissectError):
        auth_header.parse(value)


def test_noise_raises_nothing_else() -> None:
    rng = random.Random(9110)
    for _ in range(5000):
        text = "".join(rng.choices('NTLM a=",\\ \t/+é=', k=rng.randrange(60)))
        try:
            auth_header.parse(text)
        except DissectError:
            continue
