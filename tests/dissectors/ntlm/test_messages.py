from __future__ import annotations

import json
import random
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from dissectors import DissectError, Unsupported, ntlm
from dissectors.ntlm import Authenticate, AvId, AvPair, Challenge, Flags, Form, Login, Negotiate
from tests.dissectors.ntlm.strategies import authenticates, challenges, negotiates

SAMPLES = ("sip/lync2013-ntlm-type2.bin", "sip/sipe-type2-0.bin", "sip/sipe-type3-0.bin")


def visible(message: Negotiate | Challenge | Authenticate) -> Negotiate | Challenge | Authenticate:
    return replace(message, problems=())


@given(negotiates())
def test_negotiate_there_and_back(message: Negotiate) -> None:
    assert visible(ntlm.parse(message.to_bytes())) == message


@given(challenges())
def test_challenge_there_and_back(message: Challenge) -> None:
    assert visible(ntlm.parse(message.to_bytes())) == message


@given(authenticates())
def test_authenticate_there_and_back(message: Authenticate) -> None:
    assert visible(ntlm.parse(message.to_bytes())) == message
    json.dumps(message.to_json()).encode()


def truth_of(corpus: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((corpus / "truth" / f"{Path(name).name}.spnego.txt").read_text())
    return found


def known_by(text: str) -> int:
    return int(text.rsplit("(", 1)[1].rstrip(")"))


def pairs_of(listed: list[dict[str, Any]]) -> list[tuple[int, object]]:
    return [(known_by(pair["AvId"]), pair["Value"]) for pair in listed if known_by(pair["AvId"]) != AvId.MsvAvEOL]


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_equal_the_field_decode_of_pyspnego(corpus: Path, name: str) -> None:
    data = (corpus / name).read_bytes()
    truth = truth_of(corpus, name)["Data"]
    message = ntlm.parse(data)
    assert isinstance(message, Challenge | Authenticate)
    assert message.flags == truth["NegotiateFlags"]["raw"]
    assert {int(flag) for flag in message.flags} == {known_by(flag) for flag in truth["NegotiateFlags"]["flags"]}
    version = truth["Version"]
    assert message.version == (version["Major"], version["Minor"], version["Build"], version["NTLMRevision"])
    if isinstance(message, Challenge):
        assert message.server_challenge.hex().upper() == truth["ServerChallenge"]
        assert message.target_name == (truth["Payload"]["TargetName"] or "")
        shown = message.to_json()["target_info"]
        assert [(pair["id"], pair["value"]) for pair in shown] == pairs_of(truth["Payload"]["TargetInfo"])
    else:
        payload = truth["Payload"]
        assert message.login == (payload["DomainName"], payload["UserName"])
        assert message.workstation == payload["Workstation"]
        assert message.session_key.hex().upper() == payload["EncryptedRandomSessionKey"]
        proof = payload["NtChallengeResponse"]
        shown = message.response.to_json()
        assert (shown["kind"], shown["client_time"]) == (proof["ResponseType"], proof["ClientChallenge"]["TimeStamp"])
        listed = [(pair["id"], pair["value"]) for pair in shown["target_info"]]
        assert listed == pairs_of(proof["ClientChallenge"]["AvPairs"])
        assert message.mic is None


@pytest.mark.parametrize("name", SAMPLES[:2])
def test_a_server_s_message_is_rebuilt_to_the_byte(corpus: Path, name: str) -> None:
    data = (corpus / name).read_bytes()
    assert ntlm.parse(data).to_bytes() == data


def test_secrets_are_shown_only_when_asked_for() -> None:
    message = Authenticate(Flags(1), "CONTOSO", "amy", "", b"L" * 24, b"N" * 60, b"K" * 16, mic=b"M" * 16)
    hidden = json.dumps(message.to_json()) + repr(message)
    for secret in ("4c4c4c4c", "4e4e4e4e", "4b4b4b4b", "4d4d4d4d", "LLLL", "NNNN", "KKKK", "MMMM"):
        assert secret not in hidden
    shown = message.to_json(secrets=True)["secrets"]
    assert shown == {"lm_response": "4c" * 24, "nt_response": "4e" * 60, "session_key": "4b" * 16, "mic": "4d" * 16}


FORMS = [
    (Login("CONTOSO", "amy"), Form.NETBIOS_DOMAIN),
    (Login("contoso.local", "amy"), Form.DNS_DOMAIN),
    (Login("", "amy@contoso.local"), Form.PRINCIPAL),
    (Login("", "amy"), Form.NO_DOMAIN),
    (Login("", "contoso.local\\amy"), Form.DOMAIN_IN_USER),
    (Login("", ""), Form.ANONYMOUS),
]


@pytest.mark.parametrize(("login", "form"), FORMS)
def test_the_form_of_a_login_is_told(login: Login, form: Form) -> None:
    assert login.form is form
    message = Authenticate(Flags.NEGOTIATE_UNICODE, *login)
    shown = ntlm.parse(message.to_bytes()).to_json()
    assert (shown["domain"], shown["user"], shown["form"]) == (*login, form.value)


def test_a_domain_is_found_among_the_names_of_the_server() -> None:
    names = {AvId.MsvAvNbDomainName: "COSMO", AvId.MsvAvDnsDomainName: "cosmo.local"}
    info = [AvPair(id_, name.encode("utf-16-le")) for id_, name in names.items()]
    assert Login("cosmo", "user").names_in(info) == ("MsvAvNbDomainName",)
    assert Login("Cosmo.Local", "user").names_in(info) == ("MsvAvDnsDomainName",)
    assert Login("sip.cosmo.local", "user").names_in(info) == ()


def header(kind: int, rest: bytes) -> bytes:
    return b"NTLMSSP\0" + struct.pack("<I", kind) + rest


def test_old_headers_end_early() -> None:
    assert ntlm.parse(header(1, struct.pack("<I", 0xB203))) == Negotiate(Flags(0xB203))
    at = struct.pack("<HHI", 3, 3, 52)
    old = ntlm.parse(header(3, bytes(16) + at + struct.pack("<HHI", 0, 0, 55) * 2) + b"DOM")
    assert isinstance(old, Authenticate)
    assert old.domain == "DOM"
    assert old.problems
    challenge = ntlm.parse(header(2, struct.pack("<HHII", 0, 0, 32, 0x0200_0201) + b"12345678"))
    assert challenge == Challenge(Flags(0x0200_0201), b"12345678")


def test_a_version_flag_without_the_field_is_no_version() -> None:
    flags = Flags.NEGOTIATE_VERSION | Flags.NEGOTIATE_OEM
    short = replace(Authenticate(flags, "D", "user"), version=None).to_bytes()
    message = ntlm.parse(short)
    assert isinstance(message, Authenticate)
    assert (message.version, message.mic, message.user) == (None, None, "user")


def test_a_domain_without_its_flag_is_read_where_it_is_one_and_ignored_where_not() -> None:
    sent = Negotiate(Flags.NEGOTIATE_OEM_DOMAIN_SUPPLIED, "DOM").to_bytes()
    unflagged = sent[:12] + bytes(4) + sent[16:]
    found = ntlm.parse(unflagged)
    assert isinstance(found, Negotiate)
    assert (found.domain, found.problems) == ("DOM", ("domain: its flag is not set",))
    wild = unflagged[:20] + b"\xff\xff\xff\x7f" + unflagged[24:]
    assert ntlm.parse(wild) == Negotiate(Flags(0))
    with pytest.raises(DissectError, match="domain"):
        ntlm.parse(sent[:20] + b"\xff\xff\xff\x7f" + sent[24:])


def test_text_that_is_none_is_shown_with_a_problem() -> None:
    odd = Authenticate(Flags(0), "", "abc", version=None).to_bytes()
    odd = odd[:60] + struct.pack("<I", 1) + odd[64:]
    message = ntlm.parse(odd)
    assert isinstance(message, Authenticate)
    assert message.problems
    assert "user" in message.problems[0]
    lone = Authenticate(Flags(1), "", "a\ud800b").to_json()
    assert lone["user"] == "a�b"


WRONG = [b"", b"NTLMSSP", b"NTLMSSP\0\x04\0\0\0", b"NTLMSSP\0\x01\0\0\0", b"NTLMSSP\0\x03\0\0\0" + bytes(20), b"x" * 90]


@pytest.mark.parametrize("data", WRONG)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        ntlm.parse(data)


def test_an_unknown_type_is_told() -> None:
    with pytest.raises(Unsupported, match="type 9"):
        ntlm.parse(header(9, bytes(80)))


def test_a_field_inside_the_header_is_refused() -> None:
    with pytest.raises(DissectError, match="header of 32 bytes"):
        ntlm.parse(header(2, struct.pack("<HHII", 4, 4, 12, 0) + bytes(40)))


def test_names_of_flags_keep_unknown_bits() -> None:
    shown = Flags(0x0100_0001).to_json()
    assert shown == {"raw": 0x0100_0001, "names": ["NTLMSSP_NEGOTIATE_UNICODE"], "unknown": 0x0100_0000}


def test_broken_messages_raise_nothing_else(corpus: Path) -> None:
    rng = random.Random(20090209)
    for name in SAMPLES:
        data = (corpus / name).read_bytes()
        for _ in range(3000):
            broken = bytearray(data[: rng.randrange(len(data) + 1)] if rng.random() < 0.2 else data)
            for _ in range(rng.randrange(1, 6)):
                if broken:
                    broken[rng.randrange(min(len(broken), rng.choice((90, 400))))] = rng.choice(
                        (0, 1, 0xFF, rng.randrange(256))
                    )
            try:
                message = ntlm.parse(bytes(broken))
            except DissectError:
                continue
            json.dumps(message.to_json(secrets=True)).encode()
