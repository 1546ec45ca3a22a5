from __future__ import annotations

import base64
import json
import random
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given

from dissectors import DissectError, ntlm
from dissectors.ntlm import Authenticate, Challenge, Flags, Negotiate, spnego
from tests.conftest import require_tool
from tests.dissectors.ntlm.strategies import NTLM_OID, authenticates, neg_token_init, neg_token_resp

KERBEROS = bytes.fromhex("2a864886f712010202")
MS_KERBEROS = bytes.fromhex("2a864882f712010202")


@given(authenticates())
def test_a_message_is_found_in_every_wrapping(message: Authenticate) -> None:
    data = message.to_bytes()
    for wrapped in (data, neg_token_init(data), neg_token_init(data, framed=False), neg_token_resp(data)):
        assert ntlm.from_bytes(wrapped).message == ntlm.parse(data)
        text = base64.b64encode(wrapped).decode()
        assert ntlm.from_header(f"Negotiate {text}")[0].message == ntlm.parse(data)


def test_mechanisms_and_state_are_named() -> None:
    offered = ntlm.from_bytes(neg_token_init(b"", (MS_KERBEROS, KERBEROS, NTLM_OID)))
    assert offered.mechanisms == ("Kerberos (Microsoft)", "Kerberos", "NTLM")
    assert (offered.mechanism, offered.message) == ("Kerberos (Microsoft)", None)
    assert ntlm.from_bytes(neg_token_resp(b"", 2)).state == "reject"


def test_kerberos_without_spnego_is_told() -> None:
    token = bytes.fromhex("6010") + b"\x06\x09" + KERBEROS + b"\x01\x00\x6e\x7f\x00"
    found = ntlm.from_bytes(token, "Negotiate")
    assert (found.mechanism, found.wrapping, found.message) == ("Kerberos", "", None)


def test_a_sip_challenge_holds_its_token_in_gssapi_data(corpus: Path) -> None:
    text = (corpus / "sip/lync2013-401-b-ntlm2.txt").read_text()
    value = next(line for line in text.splitlines() if line.startswith("WWW-Authenticate")).partition(":")[2]
    (token,) = ntlm.from_header(value)
    assert token.message == ntlm.parse((corpus / "sip/lync2013-ntlm-type2.bin").read_bytes())
    assert token.to_json()["fact"] == "ntlm"


@pytest.mark.parametrize("value", ["NTLM", "Negotiate, NTLM", 'NTLM realm="SIP", version=4', "Basic dXNlcjpwYXNz"])
def test_headers_without_a_token_have_none(value: str) -> None:
    assert ntlm.from_header(value) == ()


TOKEN = Negotiate(Flags(0xB203), "", "").to_bytes()
BASE64 = base64.b64encode(TOKEN).decode()
PASTED = [
    BASE64,
    BASE64.rstrip("="),
    f"NTLM {BASE64}",
    f"Authorization: NTLM {BASE64}\r\n",
    f"WWW-Authenticate: Negotiate {BASE64[:20]}\r\n {BASE64[20:]}",
    "\n".join(BASE64[at : at + 16] for at in range(0, len(BASE64), 16)),
    f'Proxy-Authorization: NTLM qop="auth", realm="SIP", gssapi-data="{BASE64}", version=4',
]


@pytest.mark.parametrize("text", PASTED)
def test_what_people_paste_is_read(text: str) -> None:
    assert ntlm.from_text(text).message == ntlm.parse(TOKEN)


@pytest.mark.parametrize("text", ["", "NTLM", "hello world", "Authorization: Basic dXNlcjpwYXNz", "NTLM ====", "é"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(DissectError):
        ntlm.from_text(text)


@pytest.mark.parametrize("capture", ["http-ntlm-webdav.pcap", "http-ntlm-arkime-synthetic.pcap"])
def test_tokens_of_a_capture_agree_with_tshark(corpus: Path, capture: str) -> None:
    path = corpus / "pcap" / capture
    names = ["messagetype", "auth.domain", "auth.username", "auth.hostname", "ntlmserverchallenge"]
    columns = [part for name in names for part in ("-e", f"ntlmssp.{name}")]
    ran = subprocess.run(
        [require_tool("tshark"), "-r", str(path), "-Y", "http && ntlmssp", "-T", "fields", *columns],
        capture_output=True,
        text=True,
        check=True,
    )
    told = [line.split("\t") for line in ran.stdout.splitlines()]
    tokens = re.findall(rb"(?:NTLM|Negotiate) (TlRM[A-Za-z0-9+/=]+)\r", path.read_bytes())
    assert len(told) == len(tokens) > 0
    for (kind, domain, user, host, challenge), token in zip(told, tokens, strict=True):
        message = ntlm.from_text(token.decode()).message
        assert {"0x00000001": Negotiate, "0x00000002": Challenge, "0x00000003": Authenticate}[kind] is type(message)
        if isinstance(message, Authenticate):
            shown = ["" if text == "NULL" else text for text in (domain, user, host)]
            assert [message.domain, message.user, message.workstation] == shown
        if isinstance(message, Challenge):
            assert message.server_challenge.hex() == challenge


def test_broken_tokens_raise_nothing_else() -> None:
    rng = random.Random(4178)
    whole = neg_token_init(TOKEN, (MS_KERBEROS, NTLM_OID))
    for _ in range(4000):
        broken = bytearray(whole if rng.random() < 0.8 else whole[: rng.randrange(len(whole))])
        for _ in range(rng.randrange(1, 4)):
            if broken:
                broken[rng.randrange(len(broken))] = rng.choice((0, 0x80, 0xFF, rng.randrange(256)))
        try:
            token = ntlm.from_bytes(bytes(broken))
        except DissectError:
            continue
        json.dumps(token.to_json()).encode()


def test_too_many_mechanisms_are_refused() -> None:
    with pytest.raises(DissectError, match="mechanisms"):
        ntlm.from_bytes(neg_token_init(b"", (NTLM_OID,) * (spnego.MAX_MECHANISMS + 1)))


@pytest.mark.parametrize("data", [b"", b"\x60\x00", b"\x60\x01\x06", b"\x60\x02\x06\x80", b"\x30\x00", b"\xa0\x00"])
def test_frames_that_hold_nothing_are_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        ntlm.from_bytes(data)


def test_a_response_without_members_is_one() -> None:
    assert ntlm.from_bytes(b"\xa1\x02\x30\x00").to_json()["wrapping"] == "spnego"
