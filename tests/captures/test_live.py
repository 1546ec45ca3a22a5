from __future__ import annotations

import http.client
import http.server
import itertools
import os
import socket
import threading
from collections.abc import Iterator

import pytest
from scapy.layers.dns import DNS, DNSQR

from captures.errors import CaptureError
from captures.exchange import Exchange
from captures.items import CaptureSummary, Observation
from captures.live import listen, read_live
from captures.read_options import ReadOptions

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="a packet socket needs root")


class Quiet(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@needs_root
def test_an_exchange_on_loopback_is_seen_while_it_happens(port: int) -> None:
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("GET", "/seen")
            connection.getresponse().read()
            connection.close()
            stop.wait(0.05)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        live = read_live("lo", ReadOptions(), seconds=20, packets=None)
        here = f"127.0.0.1:{port}"
        seen = next(one for one in live if isinstance(one, Exchange) and one.server == here and one.complete)
        live.close()  # type: ignore[attr-defined]
    finally:
        stop.set()
        asking.join()
    assert (seen.request.target, seen.response and seen.response.body.data) == ("/seen", b"hello")


@needs_root
def test_it_ends_by_itself() -> None:
    *_, summary = read_live("lo", ReadOptions(), seconds=0.05, packets=None)
    assert isinstance(summary, CaptureSummary)
    assert list(listen("lo", None, 0, [])) == []


def test_an_unknown_interface_is_one_line() -> None:
    with pytest.raises(CaptureError, match="nowhere0: no such network interface"):
        list(listen("nowhere0", 1, None, []))


@needs_root
def test_what_leads_a_phone_to_its_server_is_seen_once_each(port: int) -> None:
    """A DNS query and a SIP message by UDP, each told as it comes, before and between the exchanges."""
    query = bytes(DNS(id=1, qd=DNSQR(qname="ucupdates-r2.contoso.com")))
    register = b"REGISTER sip:contoso.com SIP/2.0\r\nFrom: <sip:amy@contoso.com>\r\nCSeq: 1 REGISTER\r\n\r\n"
    stop = threading.Event()

    def ask() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.bind(("127.0.0.1", 0))
            here.append(asking.getsockname()[1])
            while not stop.is_set():
                asking.sendto(query, ("127.0.0.1", 53))
                asking.sendto(register, ("127.0.0.1", port))
                stop.wait(0.05)

    here: list[int] = []
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        live = read_live("lo", ReadOptions(), seconds=20, packets=None)
        ours = (one for one in live if isinstance(one, Observation) and one.client == f"127.0.0.1:{here[0]}")
        facts = [one.facts[0] for one in itertools.islice(ours, 4)]
        live.close()  # type: ignore[attr-defined]
    finally:
        stop.set()
        thread.join()
    kinds = [fact["fact"] for fact in facts]
    assert kinds in (["dns", "sip"] * 2, ["sip", "dns"] * 2)
    assert {fact["from"] for fact in facts if fact["fact"] == "sip"} == {"sip:*@contoso.com"}


@needs_root
def test_what_the_kernel_dropped_is_said() -> None:
    problems: list[str] = []
    packets = listen("lo", 20, None, problems)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        there = sender.getsockname()  # nobody need read them
        sender.sendto(b"first", there)
        waiting = threading.Thread(target=lambda: next(packets))
        waiting.start()
        while waiting.is_alive():  # it listens from its first packet on
            sender.sendto(b"first", there)
            waiting.join(0.02)
        for _ in range(3000):
            sender.sendto(bytes(8000), there)
    packets.close()  # type: ignore[attr-defined]
    (problem,) = problems
    assert problem.endswith(" packets came faster than they were read, and were dropped")
