from __future__ import annotations

import json
import shutil
import ssl
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from captures import tls_decryption
from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.items import DECRYPTED, CaptureSummary, Item, Observation
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from captures.tls_secrets import check_keylog, check_rsa_key
from tests.bodies import REPORT_ZERO
from tests.captures.test_bootstrap import FORBIDDEN, REGISTER
from tests.captures.tls_talk import make_certificate, tls_talk
from tests.captures.wire import (
    START,
    Packet,
    Talk,
    answer,
    block,
    enhanced,
    interface,
    option,
    payload_of,
    pcap,
    request,
    section,
    written,
)
from tests.conftest import require_tool
from tools.cli import main

CAPTURES = {
    "tls12-dsb.pcapng": ReadOptions(),
    "tls-dhe1.pcapng.gz": ReadOptions(keylog=Path("tls-dhe1.keys")),
    "tls-nss-example.pcap": ReadOptions(keylog=Path("tls-nss-example.keys")),
    "tls-rsasnakeoil2.pcap": ReadOptions(tls_key=Path("tls-rsasnakeoil2.key")),
}

# Answers that are in the streams tshark follows, and that its HTTP dissector does not show.
MORE_ANSWERS = {"tls-nss-example.pcap": [200, 200]}


def read(corpus: Path, name: str) -> list[Item]:
    given = CAPTURES[name]
    keylog = corpus / "pcap" / given.keylog if given.keylog else None
    key = corpus / "pcap" / given.tls_key if given.tls_key else None
    return list(read_exchanges(corpus / "pcap" / name, ReadOptions(keylog=keylog, tls_key=key)))


@pytest.mark.parametrize("name", CAPTURES)
def test_what_tshark_shows_is_read(corpus: Path, name: str) -> None:
    require_tool("tshark")
    truth = json.loads((corpus / "truth" / f"pcap__{name}.json").read_text())
    exchanges = [item for item in read(corpus, name) if isinstance(item, Exchange)]
    assert all(DECRYPTED in exchange.facts for exchange in exchanges)
    assert [exchange.started for exchange in exchanges] == sorted(exchange.started for exchange in exchanges)
    asked = sorted((row["method"], row["uri"]) for row in truth["http"] if "method" in row)
    assert sorted((exchange.request.method, exchange.request.target) for exchange in exchanges) == asked
    statuses = sorted(int(row["status"]) for row in truth["http"] if "status" in row)
    ours = sorted(exchange.response.status for exchange in exchanges if exchange.response)
    assert ours == sorted(statuses + MORE_ANSWERS.get(name, []))
    hashes = {exchange.response.body.sha256 for exchange in exchanges if exchange.response}
    assert {each["sha256"] for each in truth["objects"]} <= hashes


def test_without_tshark_it_is_said(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    summary = read(corpus, "tls12-dsb.pcapng")[-1]
    assert isinstance(summary, CaptureSummary)
    assert summary.problems == ("tshark is not installed: TLS connections are not decrypted",)
    assert summary.partial


def test_a_key_log_may_begin_with_a_blank_line(corpus: Path, tmp_path: Path) -> None:
    require_tool("tshark")
    keylog = tmp_path / "keys"
    keylog.write_bytes(b"\n" + (corpus / "pcap" / "tls-dhe1.keys").read_bytes())
    items = read_exchanges(corpus / "pcap" / "tls-dhe1.pcapng.gz", ReadOptions(keylog=keylog))
    assert [item.request.target for item in items if isinstance(item, Exchange)] == ["/test"]


def session(name: str) -> list[tuple[bool, bytes]]:
    return [
        (True, request(f"{name}/one")), (False, answer(b"x" * 40_000)),
        (True, request(f"{name}/two", method="POST", body=b"asked")), (False, answer(b"answered")),
    ]  # fmt: skip


SESSION = session("")
V = ssl.TLSVersion
WEAK = ":@SECLEVEL=0"
SUITES = [
    (V.TLSv1, "AES128-SHA"), (V.TLSv1, "AES256-SHA"), (V.TLSv1, "ECDHE-RSA-AES128-SHA"), (V.TLSv1_1, "AES128-SHA"),
    (V.TLSv1_2, "AES128-SHA"), (V.TLSv1_2, "AES256-SHA256"), (V.TLSv1_2, "ECDHE-RSA-AES256-SHA"),
    (V.TLSv1_2, "ECDHE-RSA-AES256-GCM-SHA384"), (V.TLSv1_2, "ECDHE-RSA-CHACHA20-POLY1305"), (V.TLSv1_3, "ALL"),
]  # fmt: skip


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def told(path: Path, options: ReadOptions | None = None) -> list[tuple[str, bytes | None, bytes | None]]:
    require_tool("tshark")
    found = [item for item in read_exchanges(path, options) if isinstance(item, Exchange)]
    return [
        (one.request.target, one.request.body.data, one.response.body.data if one.response else None) for one in found
    ]


def test_versions_and_suites(tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    keylog = tmp_path / "keys"
    packets: list[Packet] = []
    said: list[tuple[str, bytes, bytes]] = []
    by_rsa: list[tuple[str, bytes, bytes]] = []
    for number, (version, suite) in enumerate(SUITES):
        name = f"/{version.name}/{suite}"
        talk = Talk(sport=5000 + number, time=START + number * 1_000_000_000)
        packets += tls_talk(session(name), certificate, keylog, version=version, ciphers=suite + WEAK, talk=talk)
        whole = [(f"{name}/one", b"", b"x" * 40_000), (f"{name}/two", b"asked", b"answered")]
        said += whole
        by_rsa += whole if suite.startswith("AES") else []
    path = written(tmp_path, pcap(packets))
    assert told(path, ReadOptions(keylog=keylog)) == said
    with monkeypatch.context() as several:
        several.setattr(tls_decryption, "STREAMS_PER_RUN", 4)
        assert told(path, ReadOptions(keylog=keylog)) == said
    assert told(path, ReadOptions(tls_key=certificate[0])) == by_rsa
    secrets = struct.pack("<II", 0x544C534B, keylog.stat().st_size) + keylog.read_bytes()
    nanoseconds = interface(options=option(9, b"\x09"))
    frames = b"".join(enhanced(packet.data, packet.time) for packet in packets)
    before = section() + block(10, secrets) + nanoseconds + frames
    behind = section() + nanoseconds + frames + block(10, secrets)
    assert told(written(tmp_path, before, "before.pcapng")) == said
    assert sorted(told(written(tmp_path, behind, "behind.pcapng"))) == sorted(said)


def test_what_was_said_in_tls_stands_in_order_with_the_rest(tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    """A phone registers over TLS, then asks for updates in plain HTTP, then over TLS again."""
    require_tool("tshark")
    keylog = tmp_path / "keys"
    sip = tls_talk([(True, REGISTER), (False, FORBIDDEN)], certificate, keylog)
    plain = Talk(sport=5001, time=sip[-1].time + 1).open().client(request("/plain")).server(answer(b"no")).close()
    later = Talk(sport=5002, time=plain.packets[-1].time + 1)
    packets = [*sip, *plain.packets, *tls_talk(SESSION, certificate, keylog, talk=later, version=V.TLSv1_3)]
    *items, summary = read_exchanges(written(tmp_path, pcap(packets)), ReadOptions(keylog=keylog))
    shown = [item.request.target if isinstance(item, Exchange) else type(item) for item in items]
    assert shown == [Observation, Observation, "/plain", "/one", "/two"]
    assert [item.facts[0]["status"] for item in items if isinstance(item, Observation)] == [None, 403]
    assert all(item.client_mac == "02:00:00:00:00:01" for item in items if isinstance(item, Exchange))
    assert isinstance(summary, CaptureSummary)
    assert (summary.partial, summary.counts["TLS connections"], summary.counts["TLS connections decrypted"]) == (
        False, 2, 2,
    )  # fmt: skip
    assert (summary.counts["TCP connections"], summary.problems) == (3, ())


@pytest.mark.parametrize("version", [V.TLSv1_2, V.TLSv1_3], ids=lambda version: version.name)
def test_segments_out_of_order(tmp_path: Path, certificate: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    keylog = tmp_path / "keys"
    packets = tls_talk([(True, request("/a")), (False, answer(b"x" * 3000))], certificate, keylog, version=version)
    full = [i for i, packet in enumerate(packets) if len(payload_of(packet)) == 1460]
    for place in full[-2:]:  # the first two segments of the answer, and the second with the third
        one, two = packets[place : place + 2]
        swapped = [replace(two, time=one.time), replace(one, time=two.time)]
        path = written(tmp_path, pcap(packets[:place] + swapped + packets[place + 2 :]))
        assert told(path, ReadOptions(keylog=keylog)) == [("/a", b"", b"x" * 3000)]


@pytest.fixture
def capture(tmp_path: Path, certificate: tuple[Path, Path]) -> Path:
    return written(tmp_path, pcap(tls_talk(SESSION, certificate, tmp_path / "keys")))


VERBS = [["exchanges", "IN"], ["replay", "IN", "--rules", "RULES"], ["convert", "IN", "OUT.har"]]


def run(verb: list[str], capture: Path, *words: str) -> int:
    rules = capture.parent / "rules.toml"
    rules.write_text(REPORT_ZERO)
    names = {"IN": str(capture), "RULES": str(rules), "OUT.har": str(capture.parent / "out.har")}
    return main([*(names.get(word, word) for word in verb), *words])


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_every_verb_takes_both_kinds_of_secrets(capture: Path, certificate: tuple[Path, Path], verb: list[str]) -> None:
    require_tool("tshark")
    assert run(verb, capture, "--keylog", str(capture.parent / "keys"), "--json") == 0
    packets = tls_talk(SESSION, certificate, capture.parent / "unused", ciphers="AES128-SHA" + WEAK)
    rsa = written(capture.parent, pcap(packets), "rsa.pcap")
    assert run(verb, rsa, "--tls-key", str(certificate[0]), "--json") == 0


@pytest.mark.parametrize(
    ("bound", "value", "problem", "shown"),
    [
        ("MAX_STREAMS", 1, "only the first 1 of 2 TLS connections were decrypted", ["/a/one", "/a/two"]),
        ("MAX_BYTES", 9000, "more than 9000 bytes from tshark: the rest was not decrypted", ["/b/one"]),
    ],
)
def test_what_is_beyond_the_bounds_is_said(
    tmp_path: Path, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch,
    bound: str, value: int, problem: str, shown: list[str],
) -> None:  # fmt: skip
    require_tool("tshark")
    keylog = tmp_path / "keys"
    first = tls_talk(session("/a"), certificate, keylog)
    packets = [*first, *tls_talk(session("/b"), certificate, keylog, talk=Talk(sport=5001, time=first[-1].time + 1))]
    monkeypatch.setattr(tls_decryption, bound, value)
    *items, summary = read_exchanges(written(tmp_path, pcap(packets)), ReadOptions(keylog=keylog))
    assert isinstance(summary, CaptureSummary)
    assert (summary.problems, summary.partial) == ((problem,), True)
    assert [item.request.target for item in items if isinstance(item, Exchange)] == shown


def test_secrets_of_something_else(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_tool("tshark")
    wrong = capture.parent / "wrong"
    wrong.write_text(f"CLIENT_RANDOM {'00' * 32} {'00' * 48}\n")
    assert run(VERBS[0], capture, "--keylog", str(wrong)) == 1
    assert "! with these secrets none of 1 TLS connections can be decrypted" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
@pytest.mark.parametrize(
    ("option_name", "content", "complaint"),
    [
        ("--keylog", None, "No such file"),
        ("--keylog", "folder", "Is a directory"),
        ("--keylog", b"", "at offset 0: expected a TLS key log with at least one secret"),
        ("--keylog", b"# a comment\nCLIENT_RANDOM zz 11\n", "at offset 12: expected a line of a TLS key log"),
        ("--keylog", b"\x00\x01\xff" * 9 + b"\n", "expected a line of a TLS key log"),
        ("--tls-key", None, "No such file"),
        ("--tls-key", b"nonsense", "expected an RSA private key in PEM form"),
    ],
)
def test_secrets_that_cannot_be_used_are_one_line(
    capture: Path, verb: list[str], option_name: str, content: bytes | str | None, complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    secrets = capture.parent / "secrets"
    if isinstance(content, bytes):
        secrets.write_bytes(content)
    elif content:
        secrets.mkdir()
    assert run(verb, capture, option_name, str(secrets)) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{option_name}: {secrets}: " in err
    assert complaint in err
    assert not (capture.parent / "out.har").exists()


def test_keys_of_other_kinds(tmp_path: Path) -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    locked = rsa.generate_private_key(65537, 1024)
    form = (Encoding.PEM, PrivateFormat.PKCS8)
    (tmp_path / "ec").write_bytes(elliptic.private_bytes(*form, NoEncryption()))
    (tmp_path / "locked").write_bytes(locked.private_bytes(*form, BestAvailableEncryption(b"secret")))
    (tmp_path / "pkcs8").write_bytes(locked.private_bytes(*form, NoEncryption()))
    with pytest.raises(CaptureError, match="found a key of another kind"):
        check_rsa_key(tmp_path / "ec")
    with pytest.raises(CaptureError, match="without a passphrase, found a key with one"):
        check_rsa_key(tmp_path / "locked")
    check_rsa_key(tmp_path / "pkcs8")


def test_key_logs_as_they_are_written(tmp_path: Path, corpus: Path) -> None:
    for name in ("tls-dhe1.keys", "tls-nss-example.keys"):
        check_keylog(corpus / "pcap" / name)
    (tmp_path / "growing").write_text(f"CLIENT_RANDOM {'ab' * 32} {'cd' * 48}\nCLIENT_RAN")
    check_keylog(tmp_path / "growing")


def tool(tmp_path: Path, script: str) -> str:
    path = tmp_path / "tshark"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "problem", "shown"),
    [
        ("echo oh no >&2; exit 3", "tshark failed (exit code 3): oh no", []),
        ("exec sleep 60", "tshark took longer than 0.2 s", []),
        ("echo nonsense", "tshark's output cannot be read", []),
        ('REAL "$@"; echo at the end >&2; exit 4', "tshark failed (exit code 4): at the end", ["/one", "/two"]),
        ('REAL "$@" | head -c 3000; exit 1', "tshark failed (exit code 1)", ["/one"]),
    ],
)
def test_a_failing_tshark_is_said_and_what_came_is_kept(
    capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    script: str, problem: str, shown: list[str],
) -> None:  # fmt: skip
    made = tool(tmp_path, script.replace("REAL", require_tool("tshark")))
    monkeypatch.setattr(shutil, "which", lambda _name: made)
    if "sleep" in script:
        monkeypatch.setattr(tls_decryption, "TIMEOUT", 0.2)
    assert run(VERBS[0], capture, "--keylog", str(tmp_path / "keys"), "--json") == 1
    *exchanges, summary = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert summary["partial"]
    assert any(problem in each for each in summary["problems"])
    assert [each["request"]["target"] for each in exchanges] == shown
    assert all(each["facts"] == [DECRYPTED] for each in exchanges)
