from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from mitmproxy import dns, http, io, tcp, version
from mitmproxy.test import tflow

from captures import flow_exchange, http_wire
from captures.errors import CaptureError
from captures.exchange import Body, Exchange, Request, Response
from captures.flow_file import FlowFileWriter, read
from captures.items import CaptureSummary
from captures.tnetstrings import sniff
from proxy_addons.flows import request_of
from tests.captures.exchange_strategies import exchanges
from tests.captures.test_pcap_writer import POST, exchange, got


def written(path: Path, *flows: Any) -> Path:
    with path.open("wb") as file:
        writer = io.FlowWriter(file)
        for flow in flows:
            writer.add(flow)
    return path


def opened(path: Path) -> tuple[list[Exchange], CaptureSummary]:
    *found, summary = read(path)
    assert isinstance(summary, CaptureSummary)
    return [each for each in found if isinstance(each, Exchange)], summary


def reopened(path: Path, *kept: Exchange) -> list[Exchange]:
    with FlowFileWriter.create(path) as writer:
        for each in kept:
            assert writer.write(each) == ()
    return opened(path)[0]


class TestReading:
    def test_flow(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        ((found,), summary) = opened(written(tmp_path / "a", flow))
        assert found.request == Request(
            "GET", "/path", "1.1", (("header", "qvalue"), ("content-length", "7")), Body.of(b"content")
        )
        assert found.response
        assert (found.response.status, found.response.body.data) == (200, b"message")
        assert (found.client, found.server) == ("127.0.0.1:22", "192.168.0.1:22")
        assert found.started.timestamp() == flow.request.timestamp_start
        assert flow.response
        assert found.ended.timestamp() == flow.response.timestamp_end
        assert (found.complete, found.problems, found.connection) == (True, (), flow.client_conn.id)
        assert (summary.counts, summary.problems, summary.damaged) == ({"exchanges": 1}, (), False)

    def test_compressed_file(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a", tflow.tflow(resp=True))
        path.write_bytes(gzip.compress(path.read_bytes()))
        assert len(opened(path)[0]) == 1
        path.write_bytes(path.read_bytes()[:-12])
        with pytest.raises(CaptureError, match="ended before"):
            list(read(path))

    @pytest.mark.parametrize("packed", [False, True])
    def test_flow_that_was_written_again(self, tmp_path: Path, packed: bool) -> None:
        early, other, whole = (tflow.tflow(resp=True) for _ in range(3))
        assert whole.response
        assert whole.response.timestamp_end
        whole.request.timestamp_end = whole.response.timestamp_end + 1
        early.id = whole.id
        early.request.timestamp_end, early.request.raw_content = None, None
        path = written(tmp_path / "a", early, other, early, whole)
        if packed:
            path.write_bytes(gzip.compress(path.read_bytes()))
        found, summary = opened(path)
        assert [one.request.body.data for one in found] == [b"content"] * 2
        assert [one.index for one in found] == [0, 1]
        assert found[1].ended == found[1].request_ended
        assert [one.connection for one in found] == [other.client_conn.id, whole.client_conn.id]
        assert (summary.counts, summary.partial) == ({"exchanges": 2, "flows written again": 2}, False)

    def test_copy_that_cannot_be_read_is_none(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        path = written(tmp_path / "a", flow, flow)
        path.write_bytes(path.read_bytes()[:-1])
        found, summary = opened(path)
        assert len(found) == 1
        assert summary.damaged

    def test_other_flows_are_named(self, tmp_path: Path) -> None:
        flows = (tflow.ttcpflow(), tflow.tudpflow(), tflow.tdnsflow(), tflow.ttcpflow(), tflow.twebsocketflow())
        assert isinstance(flows[0], tcp.TCPFlow)
        assert isinstance(flows[2], dns.DNSFlow)
        ((found,), summary) = opened(written(tmp_path / "a", *flows))
        assert found.problems == ("WebSocket: 3 messages not shown",)
        assert summary.problems == tuple(
            f"{number} {kind} flows, which are not HTTP" for number, kind in ((2, "tcp"), (1, "udp"), (1, "dns"))
        )

    def test_no_answer(self, tmp_path: Path) -> None:
        ((found,), _) = opened(written(tmp_path / "a", tflow.tflow(err=True)))
        assert (found.response, found.complete, found.problems) == (None, False, ("mitmproxy: error",))
        assert found.ended.timestamp() == 946681207

    def test_http2_gets_its_host(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        flow.request.http_version = "HTTP/2.0"
        flow.request.authority = "updates.example.com"
        ((found,), _) = opened(written(tmp_path / "a", flow))
        assert (found.request.version, found.request.host, found.request.target) == (
            "2.0",
            "updates.example.com",
            "/path",
        )

    @pytest.mark.parametrize("path", [b"/\xc3\xbc", b"/caf\xe9?q=\xe2\x82\xac", b"*", b"/%c3%BC#x"])
    @pytest.mark.parametrize("authority", [b"", b"xn--tda.example:80", b"\xc3\xbc.example"])
    def test_a_request_begins_as_on_the_wire(self, tmp_path: Path, path: bytes, authority: bytes) -> None:
        flow = tflow.tflow(resp=True)
        flow.request.data.method, flow.request.data.path, flow.request.data.authority = b"g\xe9t", path, authority
        for each in (flow, flow_exchange.flow_of(flow_exchange.exchange_of(flow, "", 0))[0]):
            ((found,), _) = opened(written(tmp_path / "a", each))
            assert found.request.method.encode("latin-1") == b"g\xe9t"
            assert found.request.target.encode("latin-1") == (b"http://" + authority if authority else b"") + path
            assert authority or each.request.data.path == path
            json.dumps(found.to_json(), ensure_ascii=False).encode()
        assert request_of(flow.request, found.request.headers, found.request.body) == found.request

    @pytest.mark.parametrize("target", ["http:///x", "://", "http://", "a://b", "\xff://b/c"])
    def test_what_looks_like_a_url(self, tmp_path: Path, target: str) -> None:
        (found,) = reopened(tmp_path / "a", exchange(replace(POST, target=target), got(b"")))
        assert found.request.target == target

    def test_tunnel_to_a_name_that_is_no_ascii(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        flow.request.data.method, flow.request.data.authority = b"CONNECT", b"xn--tda.example:443"
        assert opened(written(tmp_path / "a", flow))[0][0].request.target == "xn--tda.example:443"
        flow.request.data.host, flow.request.data.authority = "\xfc.example", b""
        assert opened(written(tmp_path / "a", flow))[0][0].request.target == "\xc3\xbc.example:22"

    @pytest.mark.parametrize("version", ["0.9", ""])
    def test_other_versions_without_an_authority(self, tmp_path: Path, version: str) -> None:
        request = replace(POST, version=version)
        assert reopened(tmp_path / "a", exchange(request, got(b"")))[0].request == request

    def test_names_are_no_addresses(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        flow.server_conn.peername = None
        ((found,), _) = opened(written(tmp_path / "a", flow))
        assert found.server == "0.0.0.0:22"

    def test_addresses_of_a_listener_for_both_families(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        flow.client_conn.peername = ("::ffff:10.0.0.1", 5)
        flow.server_conn.peername = ("fe80::1%eth0", 6)
        ((found,), _) = opened(written(tmp_path / "a", flow))
        assert (found.client, found.server) == ("10.0.0.1:5", "[fe80::1]:6")

    def test_body_not_stored(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        assert flow.response
        flow.response.headers["content-length"] = "60000000"
        flow.response.raw_content = None
        ((found,), _) = opened(written(tmp_path / "a", flow))
        assert found.response
        assert found.response.body == Body(60_000_000, "", 60_000_000)
        assert found.problems == ("answer: body was streamed and is not in the file",)

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
    def test_codings(self, tmp_path: Path, coding: str) -> None:
        flow = tflow.tflow(resp=True)
        assert flow.response
        flow.response.headers["content-encoding"] = coding
        flow.response.content = b"update " * 1000
        ((found,), _) = opened(written(tmp_path / "a", flow))
        assert found.response
        assert found.response.body == Body.of(b"update " * 1000, flow.response.raw_content)
        assert found.problems == ()

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "rot13"])
    def test_body_that_cannot_be_decoded(self, tmp_path: Path, coding: str) -> None:
        flow = tflow.tflow(resp=True)
        assert flow.response
        flow.response.headers["content-encoding"] = coding
        ((found,), _) = opened(written(tmp_path / "a", flow))
        assert found.response
        assert found.response.body == Body.of(b"message")
        assert found.problems[0].startswith(f"answer: body not decoded ({coding}): at offset ")

    def test_modified_flow_keeps_what_came(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        flow.backup()
        flow.request.path = "/changed"
        ((found,), _) = opened(written(tmp_path / "a", flow))
        assert (found.request.target, found.rewritten_request and found.rewritten_request.target) == (
            "/path",
            "/changed",
        )
        assert found.rewritten_response is None


class TestHostile:
    def test_truncated_tail(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a", tflow.tflow(resp=True), tflow.tflow(resp=True))
        path.write_bytes(path.read_bytes()[:-1])
        found, summary = opened(path)
        assert len(found) == 1
        assert summary.damaged
        assert "then the end of the file" in summary.problems[0]

    @pytest.mark.parametrize("content", [b"", b"\n", b"12:", b"5:hello,", b"999999999999:", b"0:}", b"7:1:a,0:~}"])
    def test_nothing_to_read_is_one_line(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a"
        path.write_bytes(content)
        if not content:
            assert opened(path)[0] == []
            return
        with pytest.raises(CaptureError) as raised:
            list(read(path))
        assert str(raised.value).startswith(f"{path}: ")
        assert "\n" not in str(raised.value)

    def test_newer_version_is_refused_with_its_reason(self, tmp_path: Path) -> None:
        path = written(tmp_path / "a", tflow.tflow(resp=True))
        newer = path.read_bytes().replace(
            b"7:version;%d:%d#" % (len(str(version.FLOW_FORMAT_VERSION)), version.FLOW_FORMAT_VERSION),
            b"7:version;2:99#",
        )
        path.write_bytes(newer)
        with pytest.raises(CaptureError, match="flow format version 99, please update mitmproxy"):
            list(read(path))

    def test_a_refused_flow_among_others(self, tmp_path: Path) -> None:
        good, other = (written(tmp_path / name, tflow.tflow(resp=True)).read_bytes() for name in "ab")
        path = tmp_path / "c"
        path.write_bytes(good + b"7:1:a,0:~}" + other)
        found, summary = opened(path)
        assert [each.index for each in found] == [0, 1]
        assert summary.problems[0].startswith(f"flow at offset {len(good)}: ")
        assert (summary.damaged, summary.partial) == (False, True)

    @pytest.mark.parametrize("kept", ["[", "[]", "0", '{"interim": 5}', '{"problems": null}', "[" * 100_000])
    def test_metadata_of_any_kind(self, tmp_path: Path, kept: str) -> None:
        flow = tflow.tflow(resp=True)
        flow.metadata["upshim"] = kept
        path = written(tmp_path / "a", flow)
        if kept.startswith("{"):
            with pytest.raises(CaptureError, match="no flow that mitmproxy can read"):
                list(read(path))
        else:
            assert len(opened(path)[0]) == 1

    def test_impossible_time(self, tmp_path: Path) -> None:
        flow = tflow.tflow(resp=True)
        flow.request.timestamp_start = float("inf")
        with pytest.raises(CaptureError, match="OverflowError"):
            list(read(written(tmp_path / "a", flow)))


class TestWriting:
    def test_mitmproxy_shows_it(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        reopened(path, exchange(response=got(b"x")))
        with path.open("rb") as file:
            (flow,) = io.FlowReader(file).stream()
        assert isinstance(flow, http.HTTPFlow)
        assert flow.request.pretty_url == "http://ucupdates-r2.example.com/RequestHandlerExt/ucdevice.upx"
        assert flow.response
        assert flow.response.content == b"x"
        assert not flow.modified()
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_rewritten_message_is_a_modified_flow(self, tmp_path: Path) -> None:
        kept = replace(exchange(response=got(b"no update")), rewritten_response=got(b"update"))
        assert reopened(tmp_path / "a", kept)[0].rewritten_response == got(b"update")
        with (tmp_path / "a").open("rb") as file:
            (flow,) = io.FlowReader(file).stream()
        assert isinstance(flow, http.HTTPFlow)
        assert flow.response
        assert flow.response.content == b"update"
        flow.revert()
        assert flow.response.content == b"no update"

    def test_equal_exchanges_stay_two(self, tmp_path: Path) -> None:
        one = exchange(response=got(b"x"))
        assert len(reopened(tmp_path / "a", one, one)) == 2

    def test_absent_body_keeps_its_hash(self, tmp_path: Path) -> None:
        body = replace(Body.of(b"firmware"), data=None)
        kept = exchange(response=replace(got(b"firmware"), body=body))
        with FlowFileWriter.create(tmp_path / "a") as writer:
            assert writer.write(kept) == (http_wire.BODY_ABSENT,)
            assert writer.write(kept, {body.sha256: [b"firm", b"ware"]}.get) == ()
        one, two = opened(tmp_path / "a")[0]
        assert one.response
        assert two.response
        assert one.response.body == two.response.body == body
        assert (one.response.body.data, two.response.body.data) == (None, b"firmware")

    def test_absent_body_of_a_request_without_a_length(self, tmp_path: Path) -> None:
        request = Request("POST", "/", headers=(("Host", "a"),), body=Body(0, "", 0))
        with FlowFileWriter.create(tmp_path / "a") as writer:
            assert writer.write(exchange(request, got(b""))) == (http_wire.BODY_ABSENT,)
        assert opened(tmp_path / "a")[0][0].request == request

    def test_body_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flow_exchange, "MAX_BODY", 11)
        with FlowFileWriter.create(tmp_path / "a") as writer:
            assert writer.write(exchange(response=got(b"123456789012"))) == (flow_exchange.BODY_TOO_LARGE,)

    def test_unknown_address(self, tmp_path: Path) -> None:
        with FlowFileWriter.create(tmp_path / "a") as writer:
            assert writer.write(exchange(response=got(b""), client="")) == (flow_exchange.ADDRESS_UNKNOWN,)
        assert opened(tmp_path / "a")[0][0].client == "0.0.0.0:0"

    def test_connect(self, tmp_path: Path) -> None:
        request = Request("CONNECT", "updates.example.com:443", headers=(("Host", "updates.example.com:443"),))
        (found,) = reopened(tmp_path / "a", exchange(request, Response(200, "OK")))
        assert found.request == request

    def test_http2(self, tmp_path: Path) -> None:
        request = replace(POST, version="2.0")
        (found,) = reopened(tmp_path / "a", exchange(request, Response(200, "", "2.0")))
        assert found.request == request


@given(exchanges())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, kept: Exchange) -> None:
    path = tmp_path_factory.mktemp("flow") / "a"
    (found,) = reopened(path, kept)
    expected = replace(kept, capture=str(path))
    if kept.rewritten_request == kept.request:
        expected = replace(expected, rewritten_request=None)
    if kept.rewritten_response == kept.response:
        expected = replace(expected, rewritten_response=None)
    assert found == expected
    for side in ("request", "response", "rewritten_request", "rewritten_response"):
        one, two = getattr(found, side), getattr(expected, side)
        assert (one and (one.body.data, one.body.encoded)) == (two and (two.body.data, two.body.encoded))


def test_corpus(corpus: Path) -> None:
    truth = json.loads((corpus / "truth" / "flows.json").read_text())
    for name, told in truth.items():
        path = corpus / "flows" / name
        assert sniff(path.read_bytes()[:100], path)
        found, summary = opened(path)
        kinds = [each for each in told["flows"] if each["type"] != "HTTPFlow"]
        assert summary.problems == ((f"{len(kinds)} tcp flows, which are not HTTP",) if kinds else ())
        for each, expected in zip(found, (one for one in told["flows"] if one["type"] == "HTTPFlow"), strict=True):
            assert each.request.method == expected["method"]
            assert expected["url"].endswith(each.request.target)
            assert each.request.version == expected["http_version"].removeprefix("HTTP/")
            assert (each.response.status if each.response else None) == expected.get("status")
            if "resp_len" in expected and each.response:
                body = each.response.body
                assert body.encoded_size == expected["resp_len"]
                assert (body.encoded_sha256 or body.sha256) == expected["resp_sha256"]
