from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tracemalloc
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import http_wire, pcap_writer
from captures.exchange import Body, Exchange, Headers, Request, Response
from captures.pcap_writer import PcapWriter
from captures.sources import read_exchanges
from tests.captures.exchange_strategies import exchanges
from tests.captures.pcap_oracle import read_dialogues, read_messages
from tests.conftest import require_tool

PHONE, SERVER = "10.1.2.3:1037", "10.9.8.7:80"
PHONE6, SERVER6 = "[2001:db8::3]:1037", "[2001:db8::7]:8080"
MORNING = datetime(2010, 3, 4, 5, 6, 7, 89000, UTC)
POST = Request(
    "POST",
    "/RequestHandlerExt/ucdevice.upx",
    headers=(("Host", "ucupdates-r2.example.com"), ("Content-Length", "11")),
    body=Body.of(b"hello world"),
)


def got(body: bytes, *extra: tuple[str, str], status: int = 200) -> Response:
    return Response(status, "OK", headers=(("Content-Length", str(len(body))), *extra), body=Body.of(body))


def exchange(
    request: Request = POST,
    response: Response | None = None,
    *,
    number: int = 0,
    client: str = PHONE,
    server: str = SERVER,
    complete: bool = True,
) -> Exchange:
    start = MORNING + timedelta(seconds=number)
    end = start + timedelta(milliseconds=250)
    return Exchange("test", number, client, server, start, end, request, response, complete)


def written(tmp_path: Path, *exchanges: Exchange, leg: http_wire.Leg = "phone") -> Path:
    path = tmp_path / "out.pcapng"
    with PcapWriter.create(path, leg=leg) as writer:
        for each in exchanges:
            writer.write(each)
    return path


def tshark(path: Path, *options: str) -> list[str]:
    checks = ("tcp.check_checksum", "ip.check_checksum", "tcp.desegment_tcp_streams", "http.desegment_body")
    preferences = [word for name in checks for word in ("-o", f"{name}:TRUE")]
    command = [require_tool("tshark"), "-n", "-r", str(path), *preferences, *options]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()


def complaints(path: Path) -> list[str]:
    """Expert findings of severity note and above, but for the note that a connection closes."""
    shown = "_ws.expert.severity >= 0x400000 and not tcp.connection.fin"
    return tshark(path, "-Y", shown, "-T", "fields", "-e", "_ws.expert.message")


class TestOneConnection:
    def test_keep_alive_exchanges_share_a_connection(self, tmp_path: Path) -> None:
        path = written(tmp_path, *(exchange(response=got(b"%d" % n), number=n) for n in range(3)))
        ((_, dialogue),) = read_dialogues(path)
        assert dialogue.flags[:3] == ["S", "SA", "A"]
        assert dialogue.flags[-3:] == ["FA", "FA", "A"]
        assert [answer for _, _, _, answer in read_messages(dialogue)] == [b"0", b"1", b"2"]

    def test_addresses_and_ports(self, tmp_path: Path) -> None:
        path = written(
            tmp_path, exchange(response=got(b"")), exchange(response=got(b""), client=PHONE6, server=SERVER6)
        )
        keys = [key for key, _ in read_dialogues(path)]
        assert keys == [("10.1.2.3", 1037, "10.9.8.7", 80), ("2001:db8::3", 1037, "2001:db8::7", 8080)]

    def test_one_end_with_ipv4_and_one_with_ipv6(self, tmp_path: Path) -> None:
        ((key, _),) = read_dialogues(written(tmp_path, exchange(response=got(b"x"), server=SERVER6)))
        assert key == ("::ffff:10.1.2.3", 1037, "2001:db8::7", 8080)

    def test_another_connection_of_the_same_ports(self, tmp_path: Path) -> None:
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            for name in ("a", "a", "b"):
                writer.write(replace(exchange(response=got(b"x")), connection=name))
            writer.close_connection(PHONE, SERVER)
            writer.write(replace(exchange(response=got(b"x")), connection="b"))
        assert [len(read_messages(dialogue)) for _, dialogue in read_dialogues(path)] == [2, 1, 1]

    def test_close_connection_of_none(self) -> None:
        PcapWriter(io.BytesIO()).close_connection(PHONE, SERVER)

    def test_too_many_open_connections(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pcap_writer, "MAX_OPEN", 2)
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            for port in (1, 2, 1, 3, 1):
                writer.write(exchange(response=got(b""), client=f"10.1.2.3:{port}"))
        assert [(key[1], len(read_messages(each))) for key, each in read_dialogues(path)] == [(1, 3), (2, 1), (3, 1)]

    def test_unknown_addresses_are_told(self, tmp_path: Path) -> None:
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            for server in ("0.0.0.0:80", "updates.example.com:80", ""):
                notes = writer.write(exchange(response=got(b"x"), client="0.0.0.0:0", server=server))
                assert notes == (pcap_writer.ADDRESS_UNKNOWN,)
        keys = [key for key, _ in read_dialogues(path)]
        assert {(key[0], *key[2:]) for key in keys} == {("192.0.2.1", "198.51.100.1", 80)}
        assert len(set(keys)) == 3

    def test_a_decrypted_port_is_one_that_readers_take_for_http(self, tmp_path: Path) -> None:
        path = written(tmp_path, exchange(response=got(b"x"), server="10.9.8.7:443"))
        assert read_dialogues(path)[0][0][3] == 80
        assert tshark(path, "-Y", "http.request", "-T", "fields", "-e", "frame.comment") == [
            "synthetic; decrypted=yes; modified=no"
        ]

    @pytest.mark.parametrize("size", [0, 1, 1459, 1460, 1461, 2920, 100_001])
    @pytest.mark.parametrize(("client", "server", "mss"), [(PHONE, SERVER, 1460), (PHONE6, SERVER6, 1440)])
    def test_segments(self, tmp_path: Path, size: int, client: str, server: str, mss: int) -> None:
        body = bytes(n % 251 for n in range(size))
        ((_, dialogue),) = read_dialogues(written(tmp_path, exchange(response=got(body), client=client, server=server)))
        assert read_messages(dialogue)[0][3] == body
        assert dialogue.largest <= mss
        assert size < 2 * mss or dialogue.largest == mss

    def test_sequence_numbers_wrap(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(zlib, "crc32", lambda _: 2**32 - 5)
        body = bytes(9000)
        path = written(tmp_path, exchange(response=got(body)), exchange(response=got(body), number=1))
        ((_, dialogue),) = read_dialogues(path)
        assert [answer for _, _, _, answer in read_messages(dialogue)] == [body, body]
        assert not dialogue.holes


class TestMessages:
    def test_headers_stay_as_recorded(self, tmp_path: Path) -> None:
        headers = (("hOsT", "a"), ("X", "1"), ("x", "2"), ("Empty", ""), ("Odd", "\xe9\xff"))
        ((_, dialogue),) = read_dialogues(written(tmp_path, exchange(Request("GET", "/%41?a b", headers=headers))))
        assert dialogue.up == b"GET /%41?a b HTTP/1.1\r\nhOsT: a\r\nX: 1\r\nx: 2\r\nEmpty: \r\nOdd: \xe9\xff\r\n\r\n"

    def test_no_value_can_end_its_line(self, tmp_path: Path) -> None:
        headers = (("Host", "a"), ("Folded", "one\r\n two"), ("Evil", "x\r\n\r\nGET / HTTP/1.1"), ("Wide", "\u2603"))
        ((_, dialogue),) = read_dialogues(written(tmp_path, exchange(Request("GET", "/", headers=headers))))
        assert dialogue.up.count(b"\r\n") == 6
        assert b"Folded: one two\r\n" in dialogue.up

    def test_chunked(self, tmp_path: Path) -> None:
        response = Response(200, "OK", headers=(("Transfer-Encoding", "chunked"),), body=Body.of(b"x" * 40_000))
        ((_, dialogue),) = read_dialogues(written(tmp_path, exchange(response=response), exchange(response=response)))
        assert [answer for _, _, _, answer in read_messages(dialogue)] == [b"x" * 40_000] * 2
        assert dialogue.down.count(b"\r\n0\r\n\r\n") == 2

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "X-GZIP"])
    @pytest.mark.parametrize("framing", [("Content-Length", "4000"), ("Transfer-Encoding", "chunked")])
    def test_coded_anew(self, tmp_path: Path, coding: str, framing: tuple[str, str]) -> None:
        plain = b"update " * 1000
        response = Response(
            200,
            "OK",
            headers=(("Content-Encoding", coding), framing),
            body=Body(len(plain), hashlib.sha256(plain).hexdigest(), 4000, "00" * 32, plain),
        )
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            notes = writer.write(exchange(response=response))
            writer.write(exchange(response=got(b"next")))
        assert http_wire.BODY_RECODED in notes
        ((_, dialogue),) = read_dialogues(path)
        first, second = read_messages(dialogue)
        assert zlib.decompress(first[3], 47) == plain
        assert second[3] == b"next"

    def test_coded_bytes_supplied(self, tmp_path: Path) -> None:
        plain = b"update " * 1000
        coded = gzip.compress(plain, 1)
        headers = (("Content-Encoding", "gzip"), ("Content-Length", str(len(coded))))
        body = Body.of(plain, coded)
        kept = replace(body, data=None, encoded=None)
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            for each in (body, kept):
                answered = exchange(response=Response(200, "OK", headers=headers, body=each))
                assert writer.write(answered, {body.encoded_sha256: [coded]}.get) == ()
        ((_, dialogue),) = read_dialogues(path)
        assert [answer for _, _, _, answer in read_messages(dialogue)] == [coded, coded]

    @pytest.mark.parametrize("coding", ["br", "gzip, gzip", "zstd"])
    def test_coding_that_cannot_be_made_again(self, tmp_path: Path, coding: str) -> None:
        response = Response(
            200,
            "OK",
            headers=(("Content-Encoding", coding), ("Content-Length", "3")),
            body=replace(Body.of(b"plain", b"???"), encoded=None),
        )
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            notes = writer.write(exchange(response=response))
        assert set(notes) == {http_wire.CODING_UNDONE, http_wire.LENGTH_CORRECTED}
        ((_, dialogue),) = read_dialogues(path)
        ((_, _, answer, body),) = read_messages(dialogue)
        assert body == b"plain"
        assert dict(answer.headers) == {b"content-length": b"5"}

    DAMAGED = gzip.compress(b"x" * 5000)[:-9], gzip.compress(b"x")[:-1], b"plain", b"\x1f\x8b"

    @pytest.mark.parametrize("data", DAMAGED, ids=["long", "short", "none", "tiny"])
    @pytest.mark.parametrize("coding", ["gzip", "br", "gzip, gzip", "UTF-8"])
    def test_body_recorded_as_it_came(self, tmp_path: Path, coding: str, data: bytes) -> None:
        path = tmp_path / "out.pcapng"
        codings = ("Content-Encoding", coding)
        with PcapWriter.create(path) as writer:
            assert writer.write(exchange(response=got(data, codings))) == ()
            chunked = Response(200, "OK", headers=(codings, ("Transfer-Encoding", "chunked")), body=Body.of(data))
            assert writer.write(exchange(response=chunked)) == ()
        ((_, dialogue),) = read_dialogues(path)
        assert [answer for _, _, _, answer in read_messages(dialogue)] == [data] * 2
        assert dialogue.down.count(f"Content-Encoding: {coding}\r\n".encode()) == 2

    @pytest.mark.parametrize("transfer", ["gzip, chunked", "gzip", "deflate, gzip, chunked"])
    def test_transfer_codings(self, tmp_path: Path, transfer: str) -> None:
        plain, coded = b"update " * 1000, gzip.compress(b"update " * 1000)
        bodies = [Body.of(plain, coded), Body.of(coded), replace(Body.of(plain, b"???"), encoded=None)]
        for number, body in enumerate(bodies):
            path = tmp_path / f"{number}.pcapng"
            response = Response(200, "OK", headers=(("Transfer-Encoding", transfer),), body=body)
            with PcapWriter.create(path) as writer:
                notes = writer.write(exchange(response=response))
            (down,) = (dialogue.down for _, dialogue in read_dialogues(path))
            head, _, sent = bytes(down).partition(b"\r\n\r\n")
            if transfer.endswith("chunked"):
                left, sent = sent, b""
                while left != b"0\r\n\r\n":
                    size, _, left = left.partition(b"\r\n")
                    sent, left = sent + left[: int(size, 16)], left[int(size, 16) + 2 :]
            if number < 2:  # the coded form is there, or it is one that could not be undone
                assert (sent, notes) == (coded, ())
            elif transfer.startswith("gzip"):
                assert (zlib.decompress(sent, 31), notes) == (plain, (http_wire.BODY_RECODED,))
            else:
                assert (sent, notes) == (plain, (http_wire.CODING_UNDONE,))
                assert head.endswith(b"Transfer-Encoding: chunked")
                continue
            assert head.endswith(f"Transfer-Encoding: {transfer}".encode())

    @pytest.mark.parametrize("status", [204, 304])
    def test_answers_without_body(self, tmp_path: Path, status: int) -> None:
        response = Response(status, "No", headers=(("Content-Length", "0" if status == 204 else "77"),))
        path = written(tmp_path, exchange(response=response), exchange(response=got(b"next")))
        assert read_messages(read_dialogues(path)[0][1])[1][3] == b"next"

    def test_head(self, tmp_path: Path) -> None:
        response = Response(200, "OK", headers=(("Content-Length", "5000"),))
        path = written(
            tmp_path, exchange(Request("HEAD", "/x", headers=(("Host", "a"),)), response), exchange(response=got(b"n"))
        )
        assert [answer for _, _, _, answer in read_messages(read_dialogues(path)[0][1])] == [b"", b"n"]

    def test_ended_by_closing(self, tmp_path: Path) -> None:
        response = Response(200, "OK", body=Body.of(b"to the end"))
        path = written(tmp_path, exchange(response=response), exchange(response=got(b"next")))
        one, two = (read_messages(dialogue) for _, dialogue in read_dialogues(path))
        assert [one[0][3], two[0][3]] == [b"to the end", b"next"]

    @pytest.mark.parametrize(
        "response",
        [got(b"", ("Connection", "close")), Response(200, version="1.0", headers=(("Content-Length", "0"),))],
    )
    def test_last_answer_of_a_connection(self, tmp_path: Path, response: Response) -> None:
        assert len(read_dialogues(written(tmp_path, exchange(response=response), exchange(response=response)))) == 2

    def test_http_1_0_kept_alive(self, tmp_path: Path) -> None:
        response = Response(
            200, version="1.0", headers=(("Content-Length", "0"), ("Connection", "Keep-Alive")), body=Body()
        )
        assert len(read_dialogues(written(tmp_path, exchange(response=response), exchange(response=response)))) == 1

    def test_interim_answers(self, tmp_path: Path) -> None:
        headers: Headers = (("Host", "a"), ("Expect", "100-continue"), ("Content-Length", "4"))
        request = Request("PUT", "/x", headers=headers, body=Body.of(b"body"))
        interim = ((100, "Continue", ()), (103, "Early Hints", (("Link", "</x>"),)))
        response = Response(200, "OK", headers=(("Content-Length", "2"),), body=Body.of(b"ok"), interim=interim)
        path = written(tmp_path, exchange(request, response), exchange(response=got(b"next")))
        ((_, dialogue),) = read_dialogues(path)
        assert [answer for _, _, _, answer in read_messages(dialogue)] == [b"ok", b"next"]
        codes = tshark(path, "-Y", "http", "-T", "fields", "-e", "http.response.code", "-e", "http.request.method")
        assert [code for line in codes for code in line.split()] == ["100", "PUT", "103", "200", "POST", "200"]

    def test_other_versions_become_1_1(self, tmp_path: Path) -> None:
        request = Request("POST", "/x", "2.0", ((":authority", "a"), ("host", "a")), Body.of(b"asked"))
        response = Response(200, "", "2.0", body=Body.of(b"answered"))
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            for _ in range(2):
                assert http_wire.OTHER_VERSION in writer.write(exchange(request, response))
        ((_, dialogue),) = read_dialogues(path)
        assert [each[1::2] for each in read_messages(dialogue)] == [(b"asked", b"answered")] * 2

    @pytest.mark.parametrize(
        "headers",
        [
            (("Content-Length", "7"),),
            (("Content-Length", "900"),),
            (("Content-Length", "7"), ("content-length", "8")),
            (("Content-Length", "-8"),),
            (("Content-Length", "99999999999999999999999999"),),
            (("Transfer-Encoding", "rot13, chunked"),),
            (("Transfer-Encoding", "rot13"), ("Content-Length", "8")),
            (("Transfer-Encoding", "identity"), ("Content-Length", "8")),
        ],
    )
    def test_framing_headers_that_do_not_fit(self, tmp_path: Path, headers: Headers) -> None:
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            notes = writer.write(exchange(response=Response(200, "OK", headers=headers, body=Body.of(b"12345678"))))
            writer.write(exchange(response=got(b"next")))
        assert notes == (http_wire.LENGTH_CORRECTED,)
        ((_, dialogue),) = read_dialogues(path)
        assert [answer for _, _, _, answer in read_messages(dialogue)] == [b"12345678", b"next"]


class TestIncomplete:
    def test_answer_cut_off(self, tmp_path: Path) -> None:
        response = Response(200, "OK", headers=(("Content-Length", "100"),), body=Body.of(b"only this"))
        path = written(tmp_path, exchange(response=response, complete=False), exchange(response=got(b"next")))
        cut, following = (dialogue for _, dialogue in read_dialogues(path))
        assert cut.down.endswith(b"Content-Length: 100\r\n\r\nonly this")
        assert cut.flags[-1] == "RA"
        assert read_messages(following)[0][3] == b"next"

    def test_chunked_answer_cut_off(self, tmp_path: Path) -> None:
        response = Response(200, "OK", headers=(("Transfer-Encoding", "chunked"),), body=Body.of(b"only this"))
        ((_, dialogue),) = read_dialogues(written(tmp_path, exchange(response=response, complete=False)))
        assert dialogue.down.endswith(b"9\r\nonly this\r\n")
        assert dialogue.flags[-1] == "RA"

    def test_no_answer(self, tmp_path: Path) -> None:
        path = written(tmp_path, exchange(complete=False), exchange(response=got(b"next")))
        unanswered, following = (dialogue for _, dialogue in read_dialogues(path))
        assert unanswered.up.endswith(b"hello world")
        assert unanswered.flags[-1] == "RA"
        assert read_messages(following)[0][3] == b"next"

    @pytest.mark.parametrize("framing", [("Content-Length", "400"), ("Transfer-Encoding", "chunked")])
    @pytest.mark.parametrize("expect", [(), (("Expect", "100-continue"),)])
    def test_answered_request_cut_off(self, tmp_path: Path, framing: tuple[str, str], expect: Headers) -> None:
        request = Request("PUT", "/log", headers=(("Host", "a"), *expect, framing), body=Body.of(b"only this"))
        refused = replace(got(b"full", status=507), interim=((100, "Continue", ()),) if expect else ())
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            assert pcap_writer.CUT_OFF in writer.write(exchange(request, refused, complete=False))
            writer.write(exchange(response=got(b"next"), number=1))
        cut, following = (each for each in read_exchanges(path) if isinstance(each, Exchange))
        assert (cut.request, cut.response) == (request, refused)
        assert not cut.complete
        assert any("cut off" in problem and problem.endswith("(request)") for problem in cut.problems)
        assert (following.response and following.response.body.data, following.complete) == (b"next", True)

    def test_fault_that_is_not_a_cut(self, tmp_path: Path) -> None:
        with PcapWriter.create(tmp_path / "out.pcapng") as writer:
            assert writer.write(exchange(response=got(b"x"), complete=False)) == (pcap_writer.FAULT_LOST,)
            lonely = exchange(Request("", ""), got(b"x"), complete=False)
            assert writer.write(lonely) == ()

    def test_answer_to_a_chunked_request_cut_off(self, tmp_path: Path) -> None:
        request = Request("PUT", "/log", headers=(("Transfer-Encoding", "chunked"),), body=Body.of(b"all of it"))
        response = Response(200, headers=(("Content-Length", "100"),), body=Body.of(b"only this"))
        path = written(tmp_path, exchange(request, response, complete=False))
        (found,) = (each for each in read_exchanges(path) if isinstance(each, Exchange))
        assert (found.request, found.response, found.complete) == (request, response, False)
        assert not any(problem.endswith("(request)") for problem in found.problems)

    def test_absent_body_is_a_gap(self, tmp_path: Path) -> None:
        body = Body(60_000_000, "00" * 32, 60_000_000)
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            notes = writer.write(
                exchange(response=Response(200, "OK", headers=(("Content-Length", "60000000"),), body=body))
            )
            writer.write(exchange(response=got(b"next"), number=1))
        assert notes == (http_wire.BODY_ABSENT,)
        ((_, dialogue),) = read_dialogues(path)
        assert dialogue.holes == [60_000_000]
        assert path.stat().st_size < 3000

    def test_gap_too_large_to_tell(self, tmp_path: Path) -> None:
        body = Body(2**33, "00" * 32, 2**33)
        response = Response(200, "OK", headers=(("Content-Length", str(2**33)),), body=body)
        ((_, dialogue),) = read_dialogues(written(tmp_path, exchange(response=response)))
        assert dialogue.flags[-1] == "RA"

    def test_source_that_ends_early(self, tmp_path: Path) -> None:
        body = Body(10, "00" * 32, 10)
        response = Response(200, "OK", headers=(("Content-Length", "10"),), body=body)
        path = tmp_path / "out.pcapng"
        with PcapWriter.create(path) as writer:
            notes = writer.write(exchange(response=response), lambda _: iter([b"123"]))
        assert notes == (pcap_writer.CUT_OFF,)
        assert read_dialogues(path)[0][1].down.endswith(b"\r\n\r\n123")

    def test_request_that_was_not_captured(self, tmp_path: Path) -> None:
        lonely = exchange(Request("", ""), got(b"late"), complete=False)
        path = written(tmp_path, exchange(response=got(b"x")), lonely, exchange(response=got(b"y")))
        before, alone, after = (dialogue for _, dialogue in read_dialogues(path))
        assert not alone.up
        assert alone.down.endswith(b"\r\n\r\nlate")
        assert [read_messages(each)[0][3] for each in (before, after)] == [b"x", b"y"]

    def test_what_was_malformed_stays_so(self, tmp_path: Path) -> None:
        for headers in ((), (("Content-Length", "-1"),)):
            cut = exchange(Request("GET", "/", "", headers), complete=False)
            ((_, dialogue),) = read_dialogues(written(tmp_path, cut))
            lines = [f"{name}: {value}" for name, value in headers]
            assert dialogue.up.decode().split("\r\n") == ["GET / HTTP/1.1", *lines, "", ""]


class TestLegs:
    EXCHANGE = Exchange(
        "test", 0, PHONE, SERVER, MORNING, MORNING, POST, got(b"no update"), True, (), (),
        Request("POST", "/rewritten", headers=(("Host", "b"), ("Content-Length", "0"))), got(b"update"),
    )  # fmt: skip

    def test_phone(self, tmp_path: Path) -> None:
        path = written(tmp_path, self.EXCHANGE)
        ((asked, _, _, answer),) = read_messages(read_dialogues(path)[0][1])
        assert (asked.target, answer) == (b"/RequestHandlerExt/ucdevice.upx", b"update")
        assert tshark(path, "-Y", "http", "-T", "fields", "-e", "frame.comment") == [
            "synthetic; decrypted=no; modified=no",
            "synthetic; decrypted=no; modified=yes",
        ]

    def test_server(self, tmp_path: Path) -> None:
        path = written(tmp_path, self.EXCHANGE, leg="server")
        ((asked, _, _, answer),) = read_messages(read_dialogues(path)[0][1])
        assert (asked.target, answer) == (b"/rewritten", b"no update")


class TestTshark:
    def test_same_requests_answers_and_hashes_without_complaint(self, tmp_path: Path) -> None:
        bodies = [bytes(range(256)) * 1000, b"x", b"<xml/>" * 500]
        exchanges = [
            exchange(response=got(body), number=2 * n + m, client=client, server=server)
            for n, body in enumerate(bodies)
            for m, (client, server) in enumerate([(PHONE, SERVER), (PHONE6, SERVER6)])
        ]
        headers = (("Content-Encoding", "gzip"), ("Transfer-Encoding", "chunked"))
        coded = Response(200, "OK", headers=headers, body=Body.of(b"z" * 9999, gzip.compress(b"z" * 9999)))
        path = written(tmp_path, *exchanges, exchange(response=coded, number=9))
        assert tshark(path, "-Y", "tcp.checksum.status == 1", "-T", "fields", "-e", "frame.number")
        assert not tshark(path, "-Y", "tcp.checksum.status != 1 or ip.checksum.status != 1")
        assert complaints(path) == []
        lines = tshark(path, "-Y", "http", "-T", "fields", "-e", "http.request.uri", "-e", "http.response.code")
        assert [line.strip() for line in lines] == ["/RequestHandlerExt/ucdevice.upx", "200"] * 7
        tshark(path, "--export-objects", f"http,{tmp_path / 'objects'}")
        found = {hashlib.sha256(file.read_bytes()).hexdigest() for file in (tmp_path / "objects").iterdir()}
        assert {Body.of(body).sha256 for body in [*bodies, b"z" * 9999, b"hello world"]} == found

    def test_times(self, tmp_path: Path) -> None:
        path = written(tmp_path, exchange(response=got(b"x")))
        times = tshark(path, "-Y", "http", "-T", "fields", "-e", "frame.time_epoch")
        assert times == ["1267679167.089000000", "1267679167.339000000"]

    def test_times_between(self, tmp_path: Path) -> None:
        asked = replace(
            exchange(response=got(bytes(2000))),
            request_ended=MORNING + timedelta(milliseconds=10),
            response_started=MORNING + timedelta(milliseconds=20),
        )
        shown = ("-Y", "tcp.len > 0", "-T", "fields", "-e", "tcp.len", "-e", "frame.time_relative")
        assert [line.split() for line in tshark(written(tmp_path, asked), *shown)][-2:] == [
            ["1460", "0.020000000"],
            [str(len(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n") + 2000 - 1460), "0.250000000"],
        ]


class TestFile:
    def test_mode_is_private_even_over_an_open_one(self, tmp_path: Path) -> None:
        path = tmp_path / "out.pcapng"
        path.touch(0o644)
        PcapWriter.create(path).close()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_readable_while_it_grows(self, tmp_path: Path) -> None:
        path = tmp_path / "out.pcapng"
        writer = PcapWriter.create(path)
        writer.write(exchange(response=got(b"x")))
        assert len(read_messages(read_dialogues(path)[0][1])) == 1
        writer.close()

    def test_large_body_is_not_held(self) -> None:
        class Sink(io.RawIOBase):
            def write(self, data: object) -> int:
                return len(data)  # type: ignore[arg-type]

        def pieces() -> Iterator[bytes]:
            yield from (bytes(65536) for _ in range(160))

        body = Body(160 * 65536, "00" * 32, 160 * 65536)
        response = Response(200, "OK", headers=(("Content-Length", str(body.size)),), body=body)
        writer = PcapWriter(Sink())  # type: ignore[arg-type]
        tracemalloc.start()
        writer.write(exchange(response=response), lambda _: pieces())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 1_000_000


@given(exchanges())
def test_our_reader_sees_the_same(tmp_path_factory: pytest.TempPathFactory, kept: Exchange) -> None:
    kept = replace(kept, problems=(), client="10.1.2.3:1037", server="10.9.8.7:8080")
    path = written(tmp_path_factory.mktemp("pcap"), kept)
    found = [each for each in read_exchanges(path) if isinstance(each, Exchange)]
    request, response = http_wire.messages_of(kept, "phone")
    assert [(each.request, each.response) for each in found] == [(request, response)]
    assert (found[0].client, found[0].server, found[0].started) == (kept.client, kept.server, kept.started)
    assert found[0].complete == kept.complete


@given(
    messages=st.lists(
        st.tuples(
            st.binary(max_size=4000), st.binary(max_size=9000), st.sampled_from(["length", "chunked", "gzip", "both"])
        ),
        min_size=1,
        max_size=5,
    ),
    ipv6=st.booleans(),
)
def test_what_goes_in_comes_out(
    messages: list[tuple[bytes, bytes, str]], ipv6: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    exchanges = []
    for number, (asked, answered, how) in enumerate(messages):
        headers: list[tuple[str, str]] = []
        if how in {"chunked", "both"}:
            headers.append(("Transfer-Encoding", "chunked"))
        if how in {"length", "gzip"}:
            headers.append(("Content-Length", str(len(answered))))
        if how in {"gzip", "both"}:
            headers.append(("Content-Encoding", "gzip"))
        request = Request(
            "POST", f"/{number}", headers=(("Host", "a"), ("Content-Length", str(len(asked)))), body=Body.of(asked)
        )
        body = Body.of(answered)
        if how in {"gzip", "both"}:
            body = replace(body, encoded_size=0)  # as an archive has it
        response = Response(200, "OK", headers=tuple(headers), body=body)
        client, server = (PHONE6, SERVER6) if ipv6 else (PHONE, SERVER)
        exchanges.append(exchange(request, response, number=number, client=client, server=server))
    ((_, dialogue),) = read_dialogues(written(tmp_path_factory.mktemp("pcap"), *exchanges))
    for (asked, answered, how), (_, got_asked, _, got_answer) in zip(messages, read_messages(dialogue), strict=True):
        assert got_asked == asked
        plain = zlib.decompress(got_answer, 31) if how in {"gzip", "both"} and got_answer else got_answer
        assert plain == answered
