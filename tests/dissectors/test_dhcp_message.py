from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import BOOTP, DHCP

from dissectors import DissectError
from dissectors.dhcp_message import DhcpMessage

MAC = bytes.fromhex("0004f2000176")


def built(*options: object) -> bytes:
    return bytes(BOOTP(op=1, xid=0x1234, chaddr=MAC) / DHCP(options=[*options, "end"]))


def test_scapys_messages_are_read() -> None:
    message = DhcpMessage.parse(
        built(("message-type", "discover"), ("vendor_class_id", b"CPE-OCPHONE"), ("param_req_list", [43, 120]))
    )
    assert (message.message_type, message.client_mac, message.transaction) == ("discover", "00:04:f2:00:01:76", 0x1234)
    assert message.options == ((53, b"\1"), (60, b"CPE-OCPHONE"), (55, b"\x2b\x78"))
    shown = message.to_json()["options"]
    assert shown[1]["text"] == "CPE-OCPHONE"
    assert shown[2]["hex"] == "2b78"


def test_long_and_overloaded_options() -> None:
    data = bytearray(built((52, b"\1"), (43, b"ab"), (43, b"cd")))
    data[108:112] = b"\x2a\x04\x0a\x00"
    data[112:115] = b"\x00\x01\xff"
    assert DhcpMessage.parse(bytes(data)).options == ((52, b"\1"), (43, b"abcd"), (42, b"\x0a\x00\x00\x01"))


def test_cut_options_are_told() -> None:
    message = DhcpMessage.parse(built()[:240] + b"\x2b\x09ab")
    assert message.options == ((43, b"ab"),)
    assert message.problems == ("option 43 at offset 240 is cut off",)


def test_another_cookie() -> None:
    with pytest.raises(DissectError, match="cookie"):
        DhcpMessage.parse(bytes([1]) + bytes(300))


@given(st.binary(max_size=300))
def test_nothing_else_escapes(data: bytes) -> None:
    with contextlib.suppress(DissectError):
        DhcpMessage.parse(built()[:240] + data).to_json()
