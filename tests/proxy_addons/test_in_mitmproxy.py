"""The addon inside real proxy processes, over real sockets."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.store import Store
from dissectors.update_check import UpdateAnswer, UpdateCheck
from dissectors.vocabulary import Vocabulary
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, REPORT_ZERO, answer_body, check_body
from tests.proxies import KINDS, Proxy, running
from tests.servers import Received, Server, chunked, message, serving

VOCABULARY = Vocabulary.default()
FIRMWARE = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(1 << 15))  # 1 MiB
FIRMWARE_TARGET = f"/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/{INTERIM}/CPE/CPE.nbt"
XML = "Content-Type: text/xml; charset=utf-8"


def update_server(request: Received) -> Iterator[bytes]:
    """Answers checks with blank addresses and everything else with firmware."""
    if request.method != "POST":
        yield message(FIRMWARE if request.method == "GET" else b"")
    elif "chunked" in request.target:
        body = answer_body()
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(body[:50], body[50:])
    elif "gzip" in request.target:
        yield message(gzip.compress(answer_body()), XML, "Content-Encoding: gzip")
    elif "until-close" in request.target:
        yield b"HTTP/1.0 200 OK\r\n\r\n" + answer_body()
        yield b""
    else:
        yield message(answer_body(), XML)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(update_server) as running_server:
        yield running_server


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(REPORT_ZERO)
    return path


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def connect(proxy: Proxy) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20))


def ask(connection: http.client.HTTPConnection, body: bytes, target: str = CHECK_TARGET, **headers: str) -> bytes:
    """One update check; returns the answer's body as it came."""
    connection.request("POST", target, body, {"Content-Type": "text/xml", **headers})
    response = connection.getresponse()
    assert response.status == 200
    return response.read()


def recorded(folder: Path, count: int = 0) -> list[Exchange]:
    """What the recording holds, once it holds at least `count` exchanges."""
    deadline = time.monotonic() + 20
    with closing(Store.open(folder)) as store:
        while len(exchanges := list(store.exchanges())) < count:
            assert time.monotonic() < deadline, f"{len(exchanges)} of {count} exchanges"
            time.sleep(0.01)
    return exchanges


def body_of(folder: Path, sha256: str) -> bytes:
    return (folder / "bodies" / sha256).read_bytes()


def version_in(body: bytes) -> str:
    (module,) = UpdateCheck.decode(body, VOCABULARY).modules
    assert module.version is not None
    return module.version.value


def test_checks_are_reported_rewritten_and_recorded(kind: str, server: Server, rules: Path, tmp_path: Path) -> None:
    server.received.clear()
    record = tmp_path / "rec"
    with running(kind, server.url, tmp_path / "state", rules=rules, record=record) as proxy, connect(proxy) as phone:
        assert ask(phone, check_body()) == answer_body()
        assert ask(phone, gzip.compress(check_body()), **{"Content-Encoding": "gzip"}) == answer_body()
        pieces = iter((check_body()[:100], check_body()[100:]))
        phone.request("POST", CHECK_TARGET, pieces, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
        assert phone.getresponse().read() == answer_body()
        assert ask(phone, check_body(INTERIM)) == answer_body()
        assert ask(phone, b"a log upload") == answer_body()
        phone.request("GET", FIRMWARE_TARGET)
        assert phone.getresponse().read() == FIRMWARE
        # The record of a check is acknowledged before the phone has its answer; that of a stream right after.
        assert len(recorded(record)) >= 5
        exchanges = recorded(record, 6)
    plain, packed, in_chunks, interim, upload, firmware = server.received
    assert version_in(plain.body) == "0.0.0.0"
    assert b"Content-Length: %d\r\n" % len(plain.body) in plain.head
    assert version_in(gzip.decompress(packed.body)) == "0.0.0.0"
    assert version_in(in_chunks.body) == "0.0.0.0"
    assert b"chunked" in in_chunks.head
    assert interim.body == check_body(INTERIM)
    assert upload.body == b"a log upload"
    assert f"Host: 127.0.0.1:{proxy.port}".encode() in firmware.head
    assert len({request.connection for request in server.received}) == 1

    assert [exchange.complete for exchange in exchanges] == [True] * 6
    first = exchanges[0]
    assert body_of(record, first.request.body.sha256) == check_body()
    assert first.rewritten_request is not None
    assert body_of(record, first.rewritten_request.body.sha256) == plain.body
    assert [fact["fact"] for fact in first.facts] == ["update-check", "decision", "update-answer"]
    assert exchanges[2].rewritten_request is not None
    assert exchanges[3].rewritten_request is None
    assert "not decoded as an update check" in exchanges[4].problems[0]
    assert exchanges[5].response is not None
    assert exchanges[5].response.body.sha256 == hashlib.sha256(FIRMWARE).hexdigest()
    assert exchanges[5].facts[0]["fact"] == "firmware-fetch"
    assert body_of(record, exchanges[5].response.body.sha256) == FIRMWARE
    assert len({exchange.connection for exchange in exchanges}) == 1


@pytest.mark.parametrize("framing", ["", "?chunked", "?gzip", "?until-close"])
def test_an_offer_keeps_framing_and_coding(framing: str, server: Server, rules: Path, tmp_path: Path) -> None:
    rules.write_text(OFFER_NEXT)
    record = tmp_path / "rec"
    with running("upshim", server.url, tmp_path, rules=rules, record=record) as proxy, connect(proxy) as phone:
        answer = ask(phone, check_body(), CHECK_TARGET + framing)
        port = proxy.port
        (exchange,) = recorded(record)
    if framing == "?gzip":
        answer = gzip.decompress(answer)
    (offer,) = UpdateAnswer.decode(answer, VOCABULARY).offers
    assert str(offer.offered_version) == INTERIM
    assert offer.base_url is not None
    assert offer.base_url.value.startswith(f"http://127.0.0.1:{port}/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/")
    assert exchange.response is not None
    assert body_of(record, exchange.response.body.sha256) == answer_body()
    assert exchange.rewritten_response is not None
    assert body_of(record, exchange.rewritten_response.body.sha256) == answer


def test_headers_are_edited_and_the_others_stay(kind: str, server: Server, rules: Path, tmp_path: Path) -> None:
    edits = 'then.request_headers = { set = { X-New = "1" }, remove = ["X-Gone"] }\n'
    rules.write_text(REPORT_ZERO + edits + 'then.response_headers.set = { X-Upshim = "yes" }\n')
    server.received.clear()
    head = (
        f"POST {CHECK_TARGET} HTTP/1.1\r\nhOST: ucupdates-r2.contoso.com\r\nX-Gone: x\r\nX-Twice: a\r\nx-tWICE: b\r\n"
        f"Content-Length: {len(check_body())}\r\nConnection: close\r\n\r\n"
    )
    with (
        running(kind, server.url, tmp_path, rules=rules) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), 20) as phone,
    ):
        phone.sendall(head.encode() + check_body())
        answer = b"".join(iter(lambda: phone.recv(65536), b""))
    assert b"X-Upshim: yes\r\n" in answer
    (request,) = server.received
    lines = request.head.split(b"\r\n")[1:]
    length = b"Content-Length: %d" % len(request.body)
    assert lines == [b"hOST: ucupdates-r2.contoso.com", b"X-Twice: a", b"x-tWICE: b", length, b"Connection: close",
                     b"X-New: 1", b"", b""]  # fmt: skip


def test_an_expectation_that_was_answered_is_not_sent_on(
    kind: str, server: Server, rules: Path, tmp_path: Path
) -> None:
    server.received.clear()
    head = (
        f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        f"Content-Length: {len(check_body())}\r\nConnection: close\r\n\r\n"
    )
    with (
        running(kind, server.url, tmp_path, rules=rules) as proxy,
        socket.create_connection(("127.0.0.1", proxy.port), 20) as phone,
    ):
        phone.sendall(head.encode())
        assert phone.recv(65536).startswith(b"HTTP/1.1 100 ")
        phone.sendall(check_body())
        answer = b"".join(iter(lambda: phone.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    (request,) = server.received
    assert b"expect" not in request.head.lower()
    assert version_in(request.body) == "0.0.0.0"


def test_dry_run_changes_nothing(kind: str, server: Server, rules: Path, tmp_path: Path) -> None:
    server.received.clear()
    record = tmp_path / "rec"
    with running(kind, server.url, tmp_path, rules=rules, record=record, dry_run=True) as proxy:
        with connect(proxy) as phone:
            ask(phone, check_body())
        (exchange,) = recorded(record)
    assert server.received[0].body == check_body()
    assert exchange.rewritten_request is None
    assert exchange.facts[1]["action"] == "report"
    assert exchange.facts[1]["dry_run"] is True


def test_kill_9_loses_nothing_but_what_is_in_flight(kind: str, rules: Path, tmp_path: Path) -> None:
    holding, release = threading.Event(), threading.Event()

    def reply(request: Received) -> Iterator[bytes]:
        if request.method == "GET":
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"x" * 300_000
            holding.set()
            release.wait(20)
        elif "hang" in request.target:
            holding.set()
            release.wait(20)
        yield message(answer_body())

    record = tmp_path / "rec"
    for in_flight in (f"GET {FIRMWARE_TARGET}", f"POST {CHECK_TARGET}?hang"):
        holding.clear()
        with serving(reply) as server, running(kind, server.url, tmp_path, rules=rules, record=record) as proxy:
            before = len(recorded(record))
            with connect(proxy) as phone:
                for _ in range(20):
                    ask(phone, check_body())
            with socket.create_connection(("127.0.0.1", proxy.port), 20) as other:
                other.sendall(f"{in_flight} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
                if "GET" in in_flight:
                    other.recv(1000)
                assert holding.wait(20)
                proxy.kill()
            release.set()
        release.clear()
        exchanges = recorded(record)
        assert len(exchanges) == before + 20
        for exchange in exchanges:
            assert body_of(record, exchange.request.body.sha256) == check_body()
        with closing(sqlite3.connect(record / "store.sqlite")) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_cut_download_and_a_dead_server_are_recorded_as_such(kind: str, tmp_path: Path) -> None:
    def reply(_: Received) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400
        yield b""

    record = tmp_path / "rec"
    with serving(reply) as server, running(kind, server.url, tmp_path / "state", record=record) as proxy:
        with connect(proxy) as phone:
            phone.request("GET", FIRMWARE_TARGET)
            with pytest.raises(http.client.IncompleteRead):
                phone.getresponse().read()
        (cut,) = recorded(record, 1)
    assert not cut.complete
    assert cut.response is not None
    assert cut.response.body.size == 400
    assert cut.problems
    with running(kind, server.url, tmp_path / "state", record=record) as proxy:
        with connect(proxy) as phone:
            phone.request("POST", CHECK_TARGET, check_body())
            assert phone.getresponse().status == 502
        dead = recorded(record, 2)[-1]
    assert dead.response is None
    assert not dead.complete
    assert body_of(record, dead.request.body.sha256) == check_body()


HOSTILE = {
    "dtd": b"<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + check_body(),
    "bomb": b"<!DOCTYPE x [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;'>]><x>&b;&b;</x>",
    "cut": check_body()[:-30],
    "wrong encoding": check_body().decode().encode("cp037"),
    "no text": os.urandom(5000),
    "deep": b"<a>" * 100_000,
    "attributes": b"<a " + b" ".join(b"a%d='1'" % number for number in range(50_000)) + b"/>",
}


def test_hostile_bodies_pass_unharmed_and_are_counted(kind: str, rules: Path, tmp_path: Path) -> None:
    with serving(lambda request: [message(request.body)]) as server:
        with (
            running(kind, server.url, tmp_path, rules=rules, record=tmp_path / "rec") as proxy,
            connect(proxy) as phone,
        ):
            for body in HOSTILE.values():
                assert ask(phone, body) == body
                pieces = iter((body[:3], body[3:]))
                phone.request(
                    "POST", CHECK_TARGET, pieces, encode_chunked=True, headers={"Transfer-Encoding": "chunked"}
                )
                assert phone.getresponse().read() == body
        exchanges = recorded(tmp_path / "rec")
    assert [request.body for request in server.received] == [body for body in HOSTILE.values() for _ in range(2)]
    assert all("not decoded" in exchange.problems[0] for exchange in exchanges)
    assert proxy.log.count(b"logged once") == 1


def test_the_corpus_of_hostile_xml_passes_unharmed(corpus: Path, rules: Path, tmp_path: Path) -> None:
    bodies = [path.read_bytes() for path in sorted((corpus / "xml").iterdir())]
    with (
        serving(lambda request: [message(request.body)]) as server,
        running("upshim", server.url, tmp_path, rules=rules) as proxy,
        connect(proxy) as phone,
    ):
        for body in bodies:
            assert ask(phone, body) == body
    assert [request.body for request in server.received] == bodies


def test_a_gigabyte_that_is_declared_is_not_buffered(kind: str, rules: Path, tmp_path: Path) -> None:
    got = threading.Event()

    # A raw server: the scripted one would wait for the whole gigabyte.
    listener = socket.create_server(("127.0.0.1", 0))
    received = bytearray()

    def accept() -> None:
        connection, _ = listener.accept()
        with connection:
            while len(received) < 30 << 20 and (data := connection.recv(1 << 16)):
                received.extend(data)
            got.set()

    threading.Thread(target=accept, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with listener, running(kind, url, tmp_path, rules=rules, record=tmp_path / "rec") as proxy:
        before = proxy.peak_memory()
        with socket.create_connection(("127.0.0.1", proxy.port), 20) as phone:
            phone.sendall(f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n".encode())
            for _ in range(31):
                phone.sendall(b"x" * (1 << 20))
            assert got.wait(20)  # the server has it although the phone is far from done
            assert proxy.peak_memory() - before < 25 << 20


def test_only_the_configured_upstream_is_connected_to(kind: str, server: Server, tmp_path: Path) -> None:
    with serving(lambda _: [message(b"not for you")]) as other:
        elsewhere = f"127.0.0.1:{other.port}"
        requests = [
            f"GET http://{elsewhere}/ HTTP/1.1\r\nHost: {elsewhere}\r\n\r\n",
            f"GET / HTTP/1.1\r\nHost: {elsewhere}\r\nConnection: close\r\n\r\n",
            f"CONNECT {elsewhere} HTTP/1.1\r\nHost: {elsewhere}\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
        ]
        with running(kind, server.url, tmp_path) as proxy:
            for request in requests:
                with socket.create_connection(("127.0.0.1", proxy.port), 20) as phone:
                    phone.sendall(request.encode())
                    assert b"not for you" not in phone.recv(65536)
        assert other.connections == 0
