from __future__ import annotations

import base64
import gzip
import hashlib
import json
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import brotli  # type: ignore[import-untyped]
import pytest
import zstandard
from scapy.layers.dns import DNS, DNSQR

from captures.errors import StoreError
from captures.exchange import Body, Exchange, Request, Response
from captures.facts import login_facts
from captures.flow_file import FlowFileWriter
from captures.har_writer import HarWriter
from captures.pcap_writer import PcapWriter
from captures.read_options import ReadOptions
from captures.redaction import for_export
from captures.sources import read_exchanges
from captures.store_writer import StoreWriter
from captures.targets import create_writer, kind_of
from dissectors import ntlm
from tests.captures.har_schema import check_archive
from tests.captures.test_pcap_writer import exchange, got
from tests.captures.wire import Packet, Talk, answer, ethernet, ipv4, pcap, request, udp, written
from tests.conftest import require_tool
from tools.cli import main

FORMATS = ["pcap", "mitm", "har", "store"]
FIRMWARE = bytes(range(256)) * 9000  # more than a reader holds in memory


def convert(*words: object) -> int:
    return main(["convert", *map(str, words)])


def seen(path: Path) -> list[tuple[object, ...]]:
    """What of its exchanges no format may lose."""
    found = [each for each in read_exchanges(path, ReadOptions(hold=1 << 30)) if isinstance(each, Exchange)]
    return sorted(
        (each.started, each.client, each.server, each.request, str(each.response), each.complete) for each in found
    )


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "in.pcap"
    with PcapWriter.create(path) as writer:
        writer.write(exchange(response=got(b"<no-update/>"), number=0))
        writer.write(exchange(response=got(FIRMWARE), number=1))
        writer.write(exchange(response=got(b"x"), number=2, client="[2001:db8::3]:1037", server="[2001:db8::7]:8080"))
    return path


@pytest.mark.parametrize("middle", FORMATS)
@pytest.mark.parametrize("last", FORMATS)
def test_every_format_to_every_other(
    tmp_path: Path, capture: Path, capsys: pytest.CaptureFixture[str], middle: str, last: str
) -> None:
    assert convert(capture, tmp_path / "middle", "--to", middle) == 0
    assert convert(tmp_path / "middle", tmp_path / "last", "--to", last) == 0
    assert "not kept" not in capsys.readouterr().out
    assert seen(tmp_path / "last") == seen(capture)
    if last == "har":
        check_archive(json.loads((tmp_path / "last").read_text()))


def test_the_name_tells_the_format(tmp_path: Path, capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.PCAPNG", "b.mitm", "c.har", "d"):
        assert convert(capture, tmp_path / name, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["format"] for line in lines] == FORMATS
    assert all((line["exchanges"], line["not_kept"], line["problems"]) == (3, {}, []) for line in lines)
    assert (tmp_path / "d" / "store.sqlite").is_file()
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in ("a.PCAPNG", "b.mitm", "c.har", "d"))


def test_what_is_not_kept_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = Response(200, "OK", headers=(("Content-Length", "9"),), body=Body(9, "00" * 32, 9))
    with StoreWriter.create(tmp_path / "in") as writer:
        writer.write(exchange(response=absent))
    assert convert(tmp_path / "in", tmp_path / "out.har") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1 exchange written to {tmp_path / 'out.har'}; not kept as they were: streamed bodies absent: 1"
    ]


CODED = gzip.compress(b"update " * 100)


@pytest.fixture
def coded(tmp_path: Path) -> Path:
    """A capture of bodies in codings that can be undone, and others that only say so."""
    talk = Talk().open()
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(CODED), CODED)
    for coding, body in (
        ("gzip", CODED),
        ("gzip", CODED[:-8] + bytes(8)),
        ("gzip", b"no gzip at all"),
        ("gzip", b"\x1f\x8b"),
        ("br", brotli.compress(b"update " * 100)),
        ("br", CODED),
        ("zstd", zstandard.compress(b"update " * 100)),
        ("gzip, gzip", gzip.compress(CODED)),
        ("UTF-8", b"text"),
    ):
        talk.client(request()).server(answer(body, extra=f"Content-Encoding: {coding}\r\n"))
    for body in (chunks, chunks.replace(CODED, bytes(len(CODED)))):
        talk.client(request()).server(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + body)
    return written(tmp_path, pcap(talk.close().packets))


@pytest.mark.parametrize("middle", FORMATS)
def test_codings_survive_whether_they_can_be_undone_or_not(
    tmp_path: Path, coded: Path, capsys: pytest.CaptureFixture[str], middle: str
) -> None:
    assert convert(coded, tmp_path / "middle", "--to", middle, "--json") == 0
    assert convert(tmp_path / "middle", tmp_path / "last.pcap", "--json") == 0
    for line in capsys.readouterr().out.splitlines():
        assert json.loads(line)["not_kept"].keys() <= {"client MAC addresses"}
    assert seen(tmp_path / "middle") == seen(tmp_path / "last.pcap") == seen(coded)
    assert len(seen(coded)) == 11
    sizes = [one.response and one.response.body.size for one in read_exchanges(coded) if isinstance(one, Exchange)]
    assert sizes == [700, len(CODED), 14, 2, 700, len(CODED), 700, 700, 4, 700, len(CODED)]
    told = [
        [bool(one.problems) for one in read_exchanges(path) if isinstance(one, Exchange)]
        for path in (coded, tmp_path / "middle", tmp_path / "last.pcap")
    ]
    assert told[0] == told[1] == told[2]


ABSENT, UNKNOWN = Body(9, "", 9), Body(0, "", 0)
CHUNKED = (("Transfer-Encoding", "chunked"),)


def streamed(path: Path) -> Path:
    """A flow file whose first two answers were streamed: their bodies have no hash, the second not even a size."""
    with FlowFileWriter.create(path) as writer:
        writer.write(exchange(response=Response(200, headers=(("Content-Length", "9"),), body=ABSENT)))
        writer.write(exchange(response=Response(200, headers=CHUNKED, body=UNKNOWN), number=1))
        writer.write(exchange(response=got(b"after it"), number=2))
    return path


@pytest.mark.parametrize("middle", FORMATS)
def test_what_follows_a_body_without_a_hash_is_read(tmp_path: Path, middle: str) -> None:
    assert convert(streamed(tmp_path / "in.mitm"), tmp_path / "middle", "--to", middle) == 0
    for last in FORMATS:
        assert convert(tmp_path / "middle", tmp_path / last, "--to", last) == 0
        found = [item for item in read_exchanges(tmp_path / last) if isinstance(item, Exchange)]
        assert [one.response and one.response.status for one in found] == [200] * 3
        assert found[2].response
        assert (found[2].response.body.data, found[2].complete) == (b"after it", True)
        if "pcap" not in {middle, last}:  # which knows bytes, not what becomes of them
            assert [one.response and one.response.body for one in found[:2]] == [ABSENT, UNKNOWN]
        assert not any("not read as HTTP" in problem for one in found for problem in one.problems)


@pytest.mark.parametrize("name", ["in.mitm", "in.har"])
def test_a_hash_is_no_way_to_other_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"of somebody else")
    told = Response(200, headers=(("Content-Length", "16"),), body=Body(16, str(tmp_path / "secret"), 16, "../secret"))
    with create_writer(str(kind_of(Path(name))), tmp_path / name) as writer:
        writer.write(exchange(response=told))
    for last in FORMATS:
        assert convert(tmp_path / name, tmp_path / last, "--to", last) == 0
        (found,) = (item for item in read_exchanges(tmp_path / last) if isinstance(item, Exchange))
        assert found.response
        assert not found.response.body.data


def test_damaged_input(tmp_path: Path, capture: Path) -> None:
    convert(capture, tmp_path / "a.mitm")
    whole = (tmp_path / "a.mitm").read_bytes()
    (tmp_path / "a.mitm").write_bytes(whole[:-1])
    assert convert(tmp_path / "a.mitm", tmp_path / "b.har") == 1
    assert len(seen(tmp_path / "b.har")) == 2


def test_recording_that_cannot_be_written(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "store.sqlite") as database:
        database.execute("DROP TABLE exchanges")
    database.close()
    writer.write(exchange(response=got(b"x")))
    with pytest.raises(StoreError, match="cannot record here: no such table"):
        writer.close()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("in.pcap", "out.xyz"), "expected a name that tells the format"),
        (("in.pcap", "in.pcap"), "expected an output other than the input"),
        (("in.pcap", "missing/out.har"), "expected a place in an existing folder"),
        (("in.pcap", "full"), "expected a new folder, found a recording"),
        (("in.pcap", "folder", "--to", "har"), "Is a directory"),
        (("in.pcap", "out.har", "--leg", "phone"), "only a packet capture"),
        (("missing", "out.har"), "No such file"),
        (("garbage", "out.har"), "at offset 0: expected packet capture"),
    ],
)
def test_unusable(
    tmp_path: Path,
    capture: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("garbage").write_bytes(b"garbage")
    Path("folder").mkdir()
    StoreWriter.create(Path("full")).close()
    before = sorted(Path().iterdir())
    assert convert(*words) == 2
    shown = capsys.readouterr().err
    assert complaint in shown
    assert shown.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_corpus_seen_by_tshark(corpus: Path, tmp_path: Path) -> None:
    """Where a capture is whole and in order, what is made of it shows the same requests, statuses and bodies."""
    tshark = require_tool("tshark")
    names = ["wu-authrootstl-cab.pcap", "http-ntlm-webdav.pcap", "http-ip4and6.pcapng", "http-pipelined.pcap"]
    for name in (*names, "http-ipv6-four-streams.pcap", "http-100-continue.pcap"):
        target = tmp_path / "out.pcap"
        assert convert(corpus / "pcap" / name, target) == 0
        shown: list[tuple[list[str], list[str]]] = []
        for path in (corpus / "pcap" / name, target):
            objects = tmp_path / f"{name}-{len(shown)}"
            fields = ("http.request.method", "http.request.uri", "http.response.code")
            words = ["-Y", "http", "-T", "fields", *(word for field in fields for word in ("-e", field))]
            command = [tshark, "-n", "-r", str(path), *words, "--export-objects", f"http,{objects}"]
            told = subprocess.run(command, check=True, capture_output=True, text=True)
            digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in objects.iterdir())
            shown.append((sorted(told.stdout.splitlines()), digests))
        assert shown[0] == shown[1], name


def login() -> tuple[str, bytes]:
    """The third message of an NTLM login as a header has it, and the proofs in it."""
    proofs = b"\xa1" * 24, b"\xb2" * 40, b"\xc3" * 16
    message = ntlm.Authenticate(
        ntlm.Flags.NEGOTIATE_UNICODE, "CONTOSO", "amy", "PHONE", proofs[0], proofs[1], proofs[2], mic=b"\xd4" * 16
    )
    return base64.b64encode(message.to_bytes()).decode(), b"".join(proofs)


SECRETS = ("Basic YW15OnNlY3JldA==", "session=1234567890")


@pytest.mark.parametrize("kind", FORMATS)
def test_credentials_are_taken_out_unless_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    token, proofs = login()
    asked = (("Host", "x"), ("Authorization", f"NTLM {token}"), ("Proxy-Authorization", SECRETS[0]))
    told = (("WWW-Authenticate", "NTLM"), ("Set-Cookie", SECRETS[1]), ("Content-Length", "1"))
    answer = Response(200, "OK", headers=told, body=Body.of(b"x"))
    with StoreWriter.create(tmp_path / "in") as writer:
        writer.write(exchange(request=Request("GET", "/login", headers=asked), response=answer))
    assert convert(tmp_path / "in", tmp_path / "out", "--to", kind) == 0
    assert "credentials redacted: 3" in capsys.readouterr().out
    files = [path for path in (tmp_path / "out", *tmp_path.glob("out/**/*")) if path.is_file()]
    everything = b"".join(path.read_bytes() for path in files)
    assert all(each.encode() not in everything for each in (token, *SECRETS, SECRETS[1].partition("=")[2]))
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)
    (found,) = (one for one in read_exchanges(tmp_path / "out") if isinstance(one, Exchange))
    assert [name for name, _ in found.request.headers] == [name for name, _ in asked]
    (shown,) = login_facts(found.request, found.response)
    assert (shown["message"], shown["domain"], shown["user"]) == ("authenticate", "CONTOSO", "amy")
    kept = base64.b64decode(found.request.headers[1][1].split()[1])
    assert len(kept) == len(base64.b64decode(token))
    assert not set(proofs) & set(kept)
    assert convert(tmp_path / "in", tmp_path / "open", "--to", kind, "--secrets") == 0
    assert "redacted" not in capsys.readouterr().out
    (found,) = (one for one in read_exchanges(tmp_path / "open") if isinstance(one, Exchange))
    assert found.request.headers == asked


def test_tokens_that_are_not_ntlm_go_as_a_whole() -> None:
    for value in ("Negotiate YIIabc==", "NTLM not base64", "Negotiate oQcwBaADCgEA", "Digest username=x"):
        request = Request("GET", "/", headers=(("Authorization", value),))
        cleaned, count = for_export(exchange(request=request))
        scheme, _, rest = value.partition(" ")
        assert (count, cleaned.request.headers[0][1]) == (1, f"{scheme} <redacted, {len(rest)} characters>")
    plain = exchange()
    assert for_export(plain) == (plain, 0)


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_to_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """DHCP and DNS alone: said, exit 1, and what is there already is left as it is."""
    query = bytes(DNS(id=1, qd=DNSQR(qname="ucupdates-r2.contoso.com")))
    packets = [Packet(ethernet(ipv4(udp(query, 5000, 53), protocol=17)))]
    source = written(tmp_path, pcap(packets))
    before = sorted(tmp_path.iterdir())
    assert convert(source, tmp_path / "out", "--to", kind) == 1
    assert capsys.readouterr().out == f"{source}: nothing to convert: it holds no HTTP exchange\n"
    assert convert(source, tmp_path / "out", "--to", kind, "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert (shown["exchanges"], shown["not_kept"]) == (0, {"DHCP, DNS and SIP messages": 1})
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_not_http_is_counted(
    tmp_path: Path, capture: Path, capsys: pytest.CaptureFixture[str], corpus: Path
) -> None:
    assert convert(corpus / "pcap" / "sip-nero.pcap", tmp_path / "out.har") == 1
    capsys.readouterr()
    talk = Talk().open().client(request()).server(answer(b"abc")).close()
    query = bytes(DNS(id=1, qd=DNSQR(qname="ucupdates-r2.contoso.com")))
    packets = [*talk.packets, Packet(ethernet(ipv4(udp(query, 5000, 53), protocol=17)), talk.time)]
    assert convert(written(tmp_path, pcap(packets)), tmp_path / "out.har") == 0
    assert "not kept as they were: DHCP, DNS and SIP messages: 1" in capsys.readouterr().out


def test_a_recording_appears_whole_or_not_at_all(
    tmp_path: Path, capture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    assert convert(capture, tmp_path / "used") == 2
    assert "used: expected a new or empty folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert convert(capture, tmp_path / "empty") == 0
    before = sorted(tmp_path.iterdir())

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StoreWriter, "write", fail)
    assert convert(capture, tmp_path / "out") == 2
    assert "No space left" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def odd() -> list[Exchange]:
    """What captures have and browsers do not."""
    lonely = exchange(request=Request("", "", ""), response=got(b"late"))
    chunked = (("Host", "a"), ("Transfer-Encoding", "chunked"), ("Content-Length", "50"))
    both = exchange(request=Request("POST", "/", headers=chunked), response=got(b"x"), number=1)
    gzipped = (("Content-Encoding", "gzip"), ("Content-Length", "20"))
    nothing = Response(200, "OK", headers=gzipped, body=Body.of(b"", gzip.compress(b"", mtime=0)))
    empty = exchange(request=Request("GET", "/", headers=(("Host", "a"),)), response=nothing, number=2)
    cut = replace(exchange(response=got(b"abc"), number=3), complete=False, problems=("gap: 14 bytes missing",))
    return [lonely, both, empty, cut]


@pytest.mark.parametrize("kind", ["har", "mitm", "store"])
def test_odd_exchanges_stay_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    with create_writer(kind, tmp_path / "in") as writer:
        for one in odd():
            assert writer.write(one) == ()
    found = [one for one in read_exchanges(tmp_path / "in") if isinstance(one, Exchange)]
    expected = [(one.request, one.response, one.complete, one.problems) for one in odd()]
    assert [(one.request, one.response, one.complete, one.problems) for one in found] == expected


def test_what_packets_cannot_keep_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = replace(exchange(response=got(b"x"), server="192.0.2.1:443"), client_mac="00:04:f2:00:00:01")
    with HarWriter.create(tmp_path / "in") as writer:
        writer.write(told)
    assert convert(tmp_path / "in", tmp_path / "out.pcap") == 0
    shown = capsys.readouterr().out
    assert "client MAC addresses: 1" in shown
    assert "port 443 written as 80, since TLS is taken off: 1" in shown
    assert convert(tmp_path / "in", tmp_path / "out") == 0
    assert "not kept as they were: client MAC addresses: 1" in capsys.readouterr().out


NAMES = ["http-ntlm-webdav.pcap", "http-post-chris.pcapng", "http-pipelined.pcap", "http-100-continue-arkime.pcap"]


@pytest.mark.parametrize("name", NAMES)
def test_corpus_there_and_back(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    before = [one for one in read_exchanges(corpus / "pcap" / name) if isinstance(one, Exchange)]
    for kind in FORMATS:
        assert convert(corpus / "pcap" / name, tmp_path / kind, "--to", kind, "--secrets", "--json") in {0, 1}
        lost = {"client_mac": ""} if "client MAC addresses" in json.loads(capsys.readouterr().out)["not_kept"] else {}
        after = [one for one in read_exchanges(tmp_path / kind) if isinstance(one, Exchange)]
        assert len(after) == len(before)
        for one, two in zip(before, after, strict=True):
            same: dict[str, Any] = {"capture": "", "index": 0, "connection": "", **lost}
            if kind == "pcap":  # which keeps the times of messages as far as these are of several packets
                same |= {"request_ended": None, "response_started": None}
            assert replace(two, **same) == replace(one, **same), (kind, one.index)
