from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from captures.exchange import Body, Exchange, Request, Response, bodies_held
from captures.store import Store
from tests.bodies import CHECK_TARGET, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.captures.test_store import an_exchange
from tests.proxy_addons.test_upstream_tls import NAME, PEM, Authority, issued
from tests.servers import Received, message, serving
from tools.cli import main

XML = ("Content-Type", "text/xml")
FIRMWARE = "/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.103/CPE/CPE.nbt"


def exchanges() -> list[Exchange]:
    check = Request("POST", CHECK_TARGET, headers=(("Host", "pool"), XML, ("Authorization", "NTLM c2VjcmV0")),
                    body=Body.of(check_body()))  # fmt: skip
    stuck = replace(
        an_exchange(), request=check, response=Response(200, "OK", headers=(XML,), body=Body.of(answer_body()))
    )
    other = replace(stuck, request=replace(check, body=Body.of(check_body(Model="CX600"))))
    fetch = replace(
        stuck,
        request=Request("GET", FIRMWARE, headers=(("Host", "pool"),)),
        response=Response(200, "OK", body=Body.of(b"firmware")),
    )
    later = timedelta(milliseconds=40)
    return [
        replace(each, started=each.started + later * n, connection=str(n))
        for n, each in enumerate((stuck, other, fetch))
    ]


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    folder = tmp_path / "rec"
    with closing(Store.create(folder)) as store:
        for exchange in exchanges():
            for made in (exchange.request, exchange.response):
                if made is not None and made.body.data:
                    store.bodies.put(made.body.sha256, made.body.data)
        store.add(exchanges())
    return folder


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(REPORT_ZERO)
    return path


def test_what_rules_would_have_changed(recording: Path, rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(recording), "--rules", str(rules)]) == 0
    out = capsys.readouterr().out
    assert 'Version="1.0.522.73"' in out
    assert 'Version="0.0.0.0"' in out
    assert "2 update checks, 1 of them changed" in out
    assert "c2VjcmV0" not in out
    rules.write_text(OFFER_NEXT)
    assert main(["replay", str(recording), "--rules", str(rules), "--json"]) == 0
    stuck, other = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert stuck["decision"]["action"] == "offer"
    assert list(stuck["changes"]) == ["response"]
    url = "http://pool/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.103/CPE"
    assert any(url in line for line in stuck["changes"]["response"] if line.startswith("+"))
    assert other["decision"]["action"] == "leave"
    assert other["changes"] == {}


def test_requests_are_sent_again_and_answers_compared(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def same(request: Received) -> Iterator[bytes]:
        yield message(answer_body(), "Content-Type: text/xml") if request.method == "POST" else message(b"firmware")

    with serving(same) as server:
        assert main(["replay", str(recording), "--to", server.url]) == 0
        assert "3 requests sent, 0 answered differently" in capsys.readouterr().out
        assert [request.body for request in server.received] == [check_body(), check_body(Model="CX600"), b""]
        assert b"Authorization" not in server.received[0].head
        assert b"Host: pool\r\n" in server.received[0].head
        assert len({request.connection for request in server.received}) == 3

    def other(request: Received) -> Iterator[bytes]:
        if request.method == "POST":
            yield message(answer_body("http://pool" + FIRMWARE, "1.0.522.103"), "Content-Type: text/xml")
        else:
            yield b""

    with serving(other) as server:
        assert main(["replay", str(recording), "--to", server.url]) == 1
        assert capsys.readouterr().out.endswith("3 requests sent, 2 answered differently, 1 not answered\n")
        assert main(["replay", str(recording), "--to", server.url, "--json"]) == 1
    check, _, fetch = (json.loads(line)["differences"] for line in capsys.readouterr().out.splitlines())
    assert check[-1] == "means: offers nothing recorded, offers 1.0.522.103 now"
    assert "no answer" in fetch[0]


def test_a_difference_that_a_rewrite_may_explain_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stuck = exchanges()[0]
    reported = replace(stuck.request, body=Body.of(check_body(Version="0.0.0.0")))
    rewritten = replace(stuck, rewritten_request=reported)
    with closing(Store.create(tmp_path / "rec")) as store:
        store.add([stuck, rewritten], bodies=bodies_held([stuck, rewritten]))

    def offers(_: Received) -> Iterator[bytes]:
        yield message(answer_body("http://pool" + FIRMWARE, "1.0.522.103"), "Content-Type: text/xml")

    with serving(offers) as server:
        assert main(["replay", str(tmp_path / "rec"), "--to", server.url, "--json"]) == 1
        assert [request.body for request in server.received] == [check_body()] * 2
    plain, other = (json.loads(line)["differences"] for line in capsys.readouterr().out.splitlines())
    assert other[:-1] == plain
    assert "rewritten by upshim" in other[-1]


def test_the_recorded_pace_can_be_kept(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    sleep, here = time.sleep, threading.get_ident()

    def note(seconds: float) -> None:
        if threading.get_ident() == here:
            slept.append(seconds)
        else:
            sleep(seconds)  # threads of others

    monkeypatch.setattr("time.sleep", note)
    with serving(lambda _: [message(b"")]) as server:
        main(["replay", str(recording), "--to", server.url, "--speed", "0.01"])
    assert len(slept) == 3
    assert 4 < slept[2] <= 8


@pytest.mark.parametrize(
    "words",
    [
        ["--rules", "/nowhere.toml"],
        ["--to", "ftp://x"],
        ["--to", "http://127.0.0.1:9", "--speed", "0"],
    ],
)
def test_unusable_options(words: list[str], recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(recording), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_unreadable_capture(tmp_path: Path, rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "junk").write_bytes(b"junk")
    assert main(["replay", str(tmp_path / "junk"), "--rules", str(rules)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_https_server_with_a_ca_of_its_own(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, key = Authority(), ec.generate_private_key(ec.SECP256R1())
    leaf = issued(NAME, key, root, x509.SubjectAlternativeName([x509.DNSName(NAME)]))
    unprotected = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.pem").write_bytes(unprotected + leaf.public_bytes(PEM))
    (tmp_path / "ca.pem").write_bytes(root.certificate.public_bytes(PEM))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "server.pem")
    with serving(lambda _: [message(b"firmware")], served) as server:
        words = ["replay", str(recording), "--to", f"https://{NAME}:{server.port}"]
        assert main(words) == 1
        assert "3 not answered" in capsys.readouterr().out
        assert main([*words, "--server-ca", str(tmp_path / "ca.pem")]) == 1
        assert "3 requests sent, 2 answered differently\n" in capsys.readouterr().out
        assert main([*words, "--server-ca", str(tmp_path / "none.pem")]) == 2
        assert "--server-ca: " in capsys.readouterr().err
