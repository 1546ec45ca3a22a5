from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from dissectors import DissectError
from dissectors.sip import Diagnostics, SipMessage, diagnostics, in_band, to_json

REFUSED = (
    b"SIP/2.0 403 Forbidden\r\n"
    b'ms-diagnostics: 4003;reason="Because \\"so\\"; really";source="pool01.contoso.com";user=sip:amy@contoso.com\r\n'
    b'From: "Amy"<sip:amy@contoso.com>;tag=1;epid=0004f2000176\r\nTo: <sip:amy@contoso.com>\r\n'
    b"CSeq: 3 REGISTER\r\nServer: RTC/3.5\r\nContent-Length: 0\r\n\r\n"
)


def read(corpus: Path, name: str) -> SipMessage:
    return SipMessage.parse((corpus / name).read_bytes())


def test_a_challenge_names_its_schemes(corpus: Path) -> None:
    shown = to_json(read(corpus, "sip/lync2013-401-a.txt"))
    assert [one["scheme"] for one in shown["authentication"]] == ["NTLM", "Kerberos", "TLS-DSK"]
    assert shown["authentication"][2]["sts-uri"].endswith("/CertProv/CertProvisioningService.svc")
    assert shown["authentication"][0]["realm"] == "SIP Communications Service"
    assert (shown["fact"], shown["method"], shown["status"], shown["server"]) == ("sip", "REGISTER", 401, "RTC/5.0")
    assert shown["ntlm"] == []


def test_a_login_shows_who_and_hides_the_proof(corpus: Path) -> None:
    message = read(corpus, "sip/sipe-0-request.txt")
    shown = to_json(message)
    (token,) = shown["ntlm"]
    assert (token["domain"], token["user"], token["response"]["kind"]) == ("COSMO", "User", "NTLMv2")
    text = json.dumps(shown)
    value = message.get("proxy-authorization") or ""
    for secret in ("user@cosmo", "2BDBAC9D", value.partition('gssapi-data="')[2][:60], "8DC0C800AE76ECA6".lower()):
        assert secret not in text
    assert "8dc0c800ae76eca6" in json.dumps(to_json(message, secrets=True))
    assert shown["user_agent"]["products"][1] == {"name": "OC", "version": "3.5.6907.0"}


def test_a_refusal_tells_code_reason_and_source() -> None:
    message = SipMessage.parse(REFUSED)
    (found,) = diagnostics(message)
    assert (found.code, found.get("reason"), found.get("source")) == (
        4003,
        'Because "so"; really',
        "pool01.contoso.com",
    )
    shown = to_json(message)
    assert shown["diagnostics"][0]["parameters"] == {"user": "sip:*@contoso.com"}
    assert (shown["from"], shown["epid"]) == ("sip:*@contoso.com", "0004f2000176")
    assert "amy" not in json.dumps(shown).lower()
    assert to_json(message, secrets=True)["from"] == "sip:amy@contoso.com"


@pytest.mark.parametrize(
    ("value", "code"), [("", None), ("abc", None), ("1002", 1002), ("1002 ; x", 1002), ("1x", None)]
)
def test_diagnostics_of_any_form_are_read(value: str, code: int | None) -> None:
    assert Diagnostics.parse("ms-diagnostics", value).code == code


def test_settings_in_the_body_are_found_though_it_is_cut(corpus: Path) -> None:
    message = read(corpus, "logs/ms-siprege-4.2.2-excerpt.txt")
    settings = in_band(message)
    assert settings is not None
    assert settings.get("maxphotosizekb") == "10"
    assert not settings.complete
    shown = to_json(message)
    assert "Content-Length 52146" in shown["problems"][0]
    assert shown["in_band"]["groups"] == ["endpointConfiguration"]


def test_what_cannot_be_read_is_a_problem() -> None:
    head = b'SIP/2.0 401 Unauthorized\r\nWWW-Authenticate: NTLM gssapi-data="AAAA"\r\nWWW-Authenticate: =\r\n'
    body = b"Content-Type: application/vnd-microsoft-roaming-provisioning-v2+xml\r\n\r\n<a/>"
    message = SipMessage.parse(head + body)
    assert len(to_json(message)["problems"]) == 3
    with pytest.raises(DissectError):
        in_band(message)


def test_noise_raises_nothing_else(corpus: Path) -> None:
    rng = random.Random(401)
    texts = [path.read_bytes() for path in sorted((corpus / "sip").glob("*.txt"))] + [REFUSED]
    for _ in range(1500):
        broken = bytearray(rng.choice(texts))
        for _ in range(rng.randrange(1, 8)):
            broken[rng.randrange(len(broken))] = rng.choice(b'\r\n :;="\\\0\xff' + bytes([rng.randrange(256)]))
        try:
            message = SipMessage.parse(bytes(broken))
        except DissectError:
            continue
        json.dumps(to_json(message, secrets=True)).encode()
