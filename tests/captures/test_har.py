from __future__ import annotations

import base64
import gzip
import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import har_json, har_writer, http_wire
from captures.errors import CaptureError
from captures.exchange import Body, Exchange, Request, Response
from captures.har import read
from captures.har_json import sniff
from captures.har_text import as_bytes, as_text
from captures.har_writer import HarWriter, url_of
from captures.items import CaptureSummary
from captures.sources import read_exchanges
from captures.targets import create_writer
from tests.captures.exchange_strategies import exchanges
from tests.captures.har_schema import check_archive
from tests.captures.test_pcap_writer import POST, exchange, got

NAMES = (
    *("request", "response", "method", "url", "status", "headers", "name", "value", "time", "timings", "wait"),
    *("content", "postData", "params", "size", "text", "mimeType", "encoding"),
    *("_upshim", "problems", "complete", "_rewritten", "_interim", "_encoded", "_sha256", "_size"),
)
START = "2010-03-04T05:06:07.089Z"


def entry(**changed: Any) -> dict[str, Any]:
    return {
        "startedDateTime": START,
        "time": 250,
        "request": {"method": "GET", "url": "http://a.example/x?y", "httpVersion": "HTTP/1.1", "headers": []},
        "response": {"status": 200, "statusText": "OK", "httpVersion": "HTTP/1.1", "headers": [], "content": {}},
        **changed,
    }


def request(**fields: Any) -> dict[str, Any]:
    return {"request": {"method": "GET", "url": "http://a.example/x?y", "headers": [], **fields}}


def response(**fields: Any) -> dict[str, Any]:
    return {"response": {"status": 200, "headers": [], **fields}}


def opened(tmp_path: Path, *entries: Any) -> tuple[list[Exchange], CaptureSummary]:
    path = tmp_path / "a.har"
    path.write_text(json.dumps({"log": {"entries": entries}}))
    return reopened(path)


def reopened(path: Path) -> tuple[list[Exchange], CaptureSummary]:
    *found, summary = read(path)
    assert isinstance(summary, CaptureSummary)
    return [each for each in found if isinstance(each, Exchange)], summary


def only(tmp_path: Path, **changed: Any) -> Exchange:
    ((found,), _) = opened(tmp_path, entry(**changed))
    return found


class TestDialects:
    def test_entry(self, tmp_path: Path) -> None:
        timings = {"blocked": 10, "dns": -1, "connect": 5, "ssl": 5, "send": 5, "wait": 100.5, "receive": 1}
        found = only(tmp_path, serverIPAddress="10.9.8.7", connection="7", timings=timings)
        assert found.request == Request("GET", "/x?y", "1.1", (("Host", "a.example"),))
        assert (found.client, found.server, found.connection) == ("0.0.0.0:0", "10.9.8.7:80", "7")
        assert found.started == datetime(2010, 3, 4, 5, 6, 7, 89000, UTC)
        since = [(each or found.started) - found.started for each in (found.request_ended, found.response_started)]
        assert since == [timedelta(milliseconds=20), timedelta(milliseconds=120.5)]
        assert found.ended - found.started == timedelta(milliseconds=250)
        assert (found.complete, found.problems) == (True, ())

    @pytest.mark.parametrize(
        ("version", "expected"),
        [
            ("HTTP/1.0", "1.0"),
            ("http/2.0", "2.0"),
            ("h2", "2.0"),
            ("h3", "3.0"),
            ("", "1.1"),
            ("unknown", "1.1"),
            (2, "1.1"),
        ],
    )
    def test_versions(self, tmp_path: Path, version: object, expected: str) -> None:
        assert only(tmp_path, **request(httpVersion=version)).request.version == expected

    @pytest.mark.parametrize(
        ("url", "target", "host", "server"),
        [
            ("https://a.example", "/", "a.example", "0.0.0.0:443"),
            ("http://a.example:8080/?#frag?ment", "/?", "a.example:8080", "0.0.0.0:8080"),
            ("https://user:secret@[::1]:9/x", "/x", "[::1]:9", "0.0.0.0:9"),
            ("data:text/plain,x", "text/plain,x", "", "0.0.0.0:0"),
        ],
    )
    def test_urls(self, tmp_path: Path, url: str, target: str, host: str, server: str) -> None:
        found = only(tmp_path, **request(url=url))
        assert (found.request.target, found.request.host, found.server) == (target, host, server)

    @pytest.mark.parametrize(
        ("url", "target"),
        [
            ("http://h:443", "h:443"),
            ("h:443", "h:443"),
            ("https://h/", "h:443"),
            ("http://h:", "h:80"),
            ("h", "h:443"),
            ("https://user@[::1]:8443/x", "[::1]:8443"),
            ("[::1]", "[::1]:443"),
        ],
    )
    def test_tunnels(self, tmp_path: Path, url: str, target: str) -> None:
        found = only(tmp_path, **request(method="CONNECT", url=url))
        assert (found.request.target, found.request.host) == (target, target)
        assert found.server == f"0.0.0.0:{target.rpartition(':')[2]}"

    def test_tunnel_to_nowhere(self, tmp_path: Path) -> None:
        assert only(tmp_path, **request(method="CONNECT", url="")).request.target == "/"
        with pytest.raises(CaptureError, match="expected a URL"):
            only(tmp_path, **request(method="CONNECT", url="h:x"))

    def test_numbers_that_are_written_as_fractions(self, tmp_path: Path) -> None:
        coded = {"headers": [{"name": "Content-Encoding", "value": "gzip"}], "content": {"text": "x" * 9}}
        for status, size in ((200.0, 5.0), ("200", 5)):
            found = only(tmp_path, **response(status=status, bodySize=size, **coded)).response
            assert found
            assert (found.status, type(found.status), found.body.encoded_size) == (200, int, 5)

    def test_headers(self, tmp_path: Path) -> None:
        pairs = [{"name": ":authority", "value": "b"}, {"name": ":path", "value": "/"}, {"name": "X", "value": "1\n2"}]
        assert only(tmp_path, **request(headers=pairs)).request.headers == (("Host", "b"), ("X", "1"), ("X", "2"))
        assert only(tmp_path, **request(headers=[["host", "b"]])).request.headers == (("host", "b"),)
        wide = [{"name": "Host", "value": "\u2603"}]
        assert only(tmp_path, **request(headers=wide)).request.host == "\xe2\x98\x83"

    def test_bodies(self, tmp_path: Path) -> None:
        packed = {"text": base64.b64encode(b"\0\xff").decode(), "encoding": "base64", "size": 2}
        assert only(tmp_path, **response(content=packed)).response == Response(200, "", body=Body.of(b"\0\xff"))
        text = {"text": "\xe9", "mimeType": "text/plain; charset=ISO-8859-1"}
        found = only(tmp_path, **response(content=text)).response
        assert found
        assert found.body.data == b"\xe9"

    def test_body_of_another_size_on_the_wire(self, tmp_path: Path) -> None:
        coded = {
            "headers": [{"name": "Content-Encoding", "value": "gzip"}],
            "content": {"text": "x" * 99},
            "bodySize": 9,
        }
        found = only(tmp_path, **response(**coded)).response
        assert found
        assert (found.body.size, found.body.encoded_size) == (99, 9)

    @pytest.mark.parametrize("told", [{}, {"bodySize": -1}, {"bodySize": 99}])
    def test_text_was_decoded_whatever_sizes_say(self, tmp_path: Path, told: dict[str, int]) -> None:
        headers = [{"name": "Content-Encoding", "value": "br"}]
        found = only(tmp_path, **response(headers=headers, content={"text": "x" * 99}, **told)).response
        assert found
        assert (found.body.size, found.body.encoded_size, found.body.as_it_came) == (99, 0, False)

    def test_body_that_its_writer_left_coded(self, tmp_path: Path) -> None:
        for raw, known in ((gzip.compress(b"x" * 99), b"x" * 99), (b"\x1f\x8b", None)):
            coded = {
                "headers": [
                    {"name": "Content-Encoding", "value": "gzip"},
                    {"name": "Content-Length", "value": str(len(raw))},
                ],
                "content": {"text": base64.b64encode(raw).decode(), "encoding": "base64"},
            }
            found = only(tmp_path, **response(**coded))
            assert found.response
            assert found.response.body == (Body.of(known, raw) if known else Body.of(raw))
            assert bool(found.problems) == (known is None)

    def test_wrong_base64_is_told(self, tmp_path: Path) -> None:
        found = only(tmp_path, **response(content={"text": "a", "encoding": "base64"}))
        assert found.problems[0].startswith("answer: body is not the base64 it is said to be")

    def test_body_left_out(self, tmp_path: Path) -> None:
        found = only(tmp_path, **response(content={"size": 60_000_000}))
        assert found.response
        assert found.response.body == Body(60_000_000, "", 60_000_000)
        assert found.problems == ("answer: body of 60000000 bytes is not in the archive",)

    def test_posted(self, tmp_path: Path) -> None:
        form = {
            "mimeType": "application/x-www-form-urlencoded",
            "params": [{"name": "a b", "value": "c&d"}, {"name": "e"}],
        }
        assert only(tmp_path, **request(postData=form)).request.body.data == b"a+b=c%26d&e="
        files = {"mimeType": "multipart/form-data", "params": [{"name": "file", "fileName": "x"}]}
        assert only(tmp_path, **request(postData=files)).problems == ("request: body is not in the archive",)
        charles = {"mimeType": "x/y", "text": "AP8=", "encoding": "base64"}
        assert only(tmp_path, **request(postData=charles)).request.body.data == b"\0\xff"

    @pytest.mark.parametrize("status", [0, -1, None, "", 99, 1000, 200.5, 1e308, float("inf"), True, "9" * 5000])
    def test_no_answer(self, tmp_path: Path, status: object) -> None:
        found = only(tmp_path, **response(status=status))
        assert (found.response, found.complete, found.problems) == (None, False, ("no answer in the archive",))

    @pytest.mark.parametrize("time", ["", "yesterday", None, "9999-12-31T23:59:59Z"])
    def test_no_time(self, tmp_path: Path, time: object) -> None:
        found = only(tmp_path, startedDateTime=time)
        assert found.problems == ("the time is not in the archive",)
        assert found.started.timestamp() == 0

    @pytest.mark.parametrize("time", [-1, None, "5", 1e308, True])
    def test_impossible_durations(self, tmp_path: Path, time: object) -> None:
        found = only(tmp_path, time=time, timings={"wait": time})
        assert found.ended - found.started <= timedelta(days=365)

    def test_compression_and_byte_order_mark(self, tmp_path: Path) -> None:
        text = json.dumps({"log": {"entries": [entry()]}})
        plain = b"\xef\xbb\xbf" + text.encode()
        path = tmp_path / "a"
        for content in (
            plain,
            zlib.compress(plain),
            gzip.compress(plain),
            text.encode("utf-16"),
            text.encode("utf-16-be"),
        ):
            path.write_bytes(content)
            assert len(reopened(path)[0]) == 1
            if content[:1] != b"\x1f":
                assert sniff(content[:100], path)

    @pytest.mark.parametrize(
        ("content", "encoding"), [(b'{"log": "\xe9"}', "UTF-8"), (b"\xff\xfe{\0\0\xd8}\0", "UTF-16")]
    )
    def test_text_that_is_none_is_named(self, tmp_path: Path, content: bytes, encoding: str) -> None:
        path = tmp_path / "a"
        path.write_bytes(content)
        with pytest.raises(CaptureError, match=f"expected {encoding}, found byte"):
            list(read(path))


class TestCorrupt:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"{}",
            b'{"log": 5}',
            b'{"log": {}}',
            b'{"log": {"entries": {}}}',
            b'{"log": {"entries": [5]}}',
            b'{"log": {"entries": [{"request": {"method": "GET"}}]}}',
            b'{"log": {"entries": [{"request": {"method": "GET", "url": "http://[/"}}]}}',
            b'{"log": {"entries": [{"request": {"method": "GET", "url": "http://a:99999/"}}]}}',
            b'{"log": {"entries": [{"request": {"method": "GET", "url": "/", "headers": [5]}}]}}',
            b"[" * 100_000,
            b"\xff\xfe{\0",
            b"x\xda\xed",
            b'{"a": ' + b"9" * 5000 + b"}",
        ],
    )
    def test_one_line(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a"
        path.write_bytes(content)
        with pytest.raises(CaptureError) as raised:
            list(read(path))
        assert str(raised.value).startswith(f"{path}: ")
        assert "\n" not in str(raised.value)

    def test_bomb(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(har_json, "MAX_HAR", 1000)
        path = tmp_path / "a"
        for content in (b" " * 1001, zlib.compress(b" " * 1_000_000)):
            path.write_bytes(content)
            with pytest.raises(CaptureError, match="at most 1000 bytes"):
                list(read(path))

    def test_a_refused_entry_among_others(self, tmp_path: Path) -> None:
        found, summary = opened(tmp_path, entry(), {}, entry())
        assert [each.index for each in found] == [0, 1]
        assert summary.problems == ("entry 1: expected an object with a `request`",)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
            max_leaves=12,
        )
    )
    def test_any_json(self, tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
        path = tmp_path_factory.mktemp("har")
        entries = [value, entry(request=value), entry(response=value), entry(**request(headers=value, postData=value))]
        entries += [entry(**response(content=value, headers=value, _interim=value), _upshim=value, timings=value)]
        opened(path, entry(), *entries, entry(_rewritten=value))


class TestWriting:
    def test_no_exchange_at_all(self, tmp_path: Path) -> None:
        HarWriter.create(tmp_path / "a").close()
        check_archive(json.loads((tmp_path / "a").read_text()))
        assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600

    def test_absent_body_keeps_its_hash(self, tmp_path: Path) -> None:
        body = replace(Body.of(b"firmware", b"coded"), data=None, encoded=None)
        kept = exchange(response=replace(got(b"firmware"), body=body))
        with HarWriter.create(tmp_path / "a") as writer:
            assert writer.write(kept) == (http_wire.BODY_ABSENT,)
            assert writer.write(kept, {body.sha256: [b"firm", b"ware"]}.get) == ()
        one, two = reopened(tmp_path / "a")[0]
        assert one.response
        assert two.response
        assert one.response.body == body
        assert two.response.body.data == b"firmware"

    def test_body_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(har_writer, "MAX_BODY", 11)
        with HarWriter.create(tmp_path / "a") as writer:
            assert writer.write(exchange(response=got(b"123456789012"))) == (har_writer.BODY_TOO_LARGE,)

    def test_cookies_and_query(self, tmp_path: Path) -> None:
        asked = Request("GET", "/x?a=1&b=", headers=(("Host", "a"), ("Cookie", "c=d; e=f"), ("Cookie", "\x01[]=;")))
        with HarWriter.create(tmp_path / "a") as writer:
            writer.write(exchange(asked, got(b"", ("Set-Cookie", "g=h; Path=/"))))
        (shown,) = json.loads((tmp_path / "a").read_text())["log"]["entries"]
        assert shown["request"]["queryString"] == [{"name": "a", "value": "1"}, {"name": "b", "value": ""}]
        assert shown["request"]["cookies"] == [{"name": "c", "value": "d"}, {"name": "e", "value": "f"}]
        assert shown["response"]["cookies"] == [{"name": "g", "value": "h"}]

    @pytest.mark.parametrize(
        ("asked", "server", "url"),
        [
            (POST, "10.0.0.1:80", "http://ucupdates-r2.example.com/RequestHandlerExt/ucdevice.upx"),
            (POST, "10.0.0.1:443", "https://ucupdates-r2.example.com/RequestHandlerExt/ucdevice.upx"),
            (Request("GET", "/x"), "10.0.0.1:8080", "http://10.0.0.1:8080/x"),
            (Request("GET", "/x"), "[::1]:80", "http://[::1]/x"),
            (Request("GET", "/x"), "", "http://0.0.0.0/x"),
            (Request("GET", "x y\xe9", headers=(("Host", "/bad host"),)), "10.0.0.1:80", "http://10.0.0.1/x%20y%E9"),
            (Request("OPTIONS", "*"), "10.0.0.1:80", "http://10.0.0.1/*"),
            (Request("CONNECT", "a.example:443"), "10.0.0.1:80", "https://a.example:443/"),
            (Request("GET", "http://a/x<"), "10.0.0.1:80", "http://a/x%3C"),
        ],
    )
    def test_urls(self, asked: Request, server: str, url: str) -> None:
        assert url_of(asked, server) == url


@pytest.mark.parametrize("kind", ["har", "mitm", "store", "pcap"])
def test_halves_of_characters_are_written_by_nobody(tmp_path: Path, kind: str) -> None:
    with HarWriter.create(tmp_path / "a") as writer:
        writer.write(exchange(response=got(b"x")))
    archive = json.loads((tmp_path / "a").read_text())
    (entry,) = archive["log"]["entries"]
    half = "\ud800"
    entry["connection"] = half
    entry["_upshim"] |= {"client": half, "server": half, "client_mac": half, "problems": [half]}
    entry["request"] |= {"method": half, "_target": half, "headers": [{"name": half, "value": half}]}
    entry["response"]["statusText"] = half
    (tmp_path / "a").write_text(json.dumps(archive))
    (found,), _ = reopened(tmp_path / "a")
    with create_writer(kind, tmp_path / "b") as other:
        other.write(found)
    assert any(isinstance(one, Exchange) for one in read_exchanges(tmp_path / "b"))


@given(
    st.binary(max_size=20),
    st.sampled_from(["", "text/xml", "a; charset=utf-16", 'a;charset="latin1"', "a; charset=rot13"]),
)
def test_text_gives_its_bytes_again(data: bytes, mime: str) -> None:
    text = as_text(data, mime)
    assert text is None or as_bytes(text, mime) == data


def test_a_byte_order_mark_alone_is_a_body() -> None:
    assert as_text(b"\xff\xfe", "text/plain; charset=utf-16") is None
    assert as_text(b"", "text/plain; charset=utf-8") == ""


@given(st.lists(exchanges(), max_size=3))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, kept: list[Exchange]) -> None:
    path = tmp_path_factory.mktemp("har") / "a"
    with HarWriter.create(path) as writer:
        for each in kept:
            assert writer.write(each) == ()
    check_archive(json.loads(path.read_text()))
    found, _ = reopened(path)
    assert found == [replace(each, capture=str(path), index=index) for index, each in enumerate(kept)]
    for one, two in zip(found, kept, strict=True):
        for side in ("request", "response", "rewritten_request", "rewritten_response"):
            mine, yours = getattr(one, side), getattr(two, side)
            assert (mine and (mine.body.data, mine.body.encoded)) == (yours and (yours.body.data, yours.body.encoded))


def test_corpus(corpus: Path, tmp_path: Path) -> None:
    for name, told in json.loads((corpus / "truth" / "har.json").read_text()).items():
        path = corpus / "har" / name
        assert sniff(path.read_bytes()[:100], path)
        if not told.get("entries"):
            with pytest.raises(CaptureError):
                list(read(path))
            continue
        found, summary = reopened(path)
        assert summary.problems == ()
        with HarWriter.create(tmp_path / "a") as writer:
            for each, expected in zip(found, told["entries"], strict=True):
                assert each.request.method == expected["method"]
                assert each.request.target in expected["url"]
                assert (each.response.status if each.response else 0) == expected["status"]
                writer.write(each)
        check_archive(json.loads((tmp_path / "a").read_text()))
        again, _ = reopened(tmp_path / "a")
        assert again == [replace(each, capture=str(tmp_path / "a")) for each in found]
