from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dns import DNS, DNSQR, DNSRR, DNSRRSRV

from dissectors import DissectError
from dissectors.dns_message import Answer, DnsMessage

HEAD = bytes.fromhex("1234 8180 0001 0001 0000 0000")


def test_scapys_messages_are_read() -> None:
    name = "_sipinternaltls._tcp.example.com"
    answers = [
        DNSRRSRV(rrname=name, ttl=9, priority=1, weight=2, port=5061, target="pool.example.com"),
        DNSRR(rrname="ucupdates-r2.example.com", ttl=7, type="A", rdata="10.1.2.3"),
    ]
    message = DnsMessage.parse(bytes(DNS(id=7, qr=1, qd=[DNSQR(qname=name, qtype="SRV")], an=answers)))
    assert [(each.name, each.kind) for each in message.questions] == [(name, 33)]
    assert message.answers == (
        Answer(name, 33, 9, "1 2 5061 pool.example.com"),
        Answer("ucupdates-r2.example.com", 1, 7, "10.1.2.3"),
    )
    assert message.to_json()["rcode"] == "NOERROR"


@pytest.mark.parametrize("pointer", [b"\xc0\x0c", b"\xc0\xff", b"\x01a\xc0\x0c", b"\xc0"], ids=bytes.hex)
def test_circles_are_told(pointer: bytes) -> None:
    with pytest.raises(DissectError, match=r"pointer|octets"):
        DnsMessage.parse(HEAD + pointer + bytes(4))


@given(st.binary(max_size=300))
def test_nothing_else_escapes(data: bytes) -> None:
    with contextlib.suppress(DissectError):
        DnsMessage.parse(HEAD + data)
