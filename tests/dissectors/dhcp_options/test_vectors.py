"""Exact bytes of values that other people's tools and servers have made."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dissectors.dhcp_options import (
    KNOWN,
    DomainSearch,
    SipServers,
    TimeOffset,
    VendorOptions,
    decode,
    parse_hex,
    read_paste,
)


@pytest.fixture(scope="module")
def vectors(corpus: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((corpus / "dhcp/ms-uc-option-vectors.json").read_text())["vectors"]
    return found


@pytest.fixture(scope="module")
def generated(corpus: Path) -> list[dict[str, str]]:
    found = json.loads((corpus / "dhcp/ms-uc-option-vectors.json").read_text())
    items: list[dict[str, str]] = found["bloxone_generated"]["items"]
    return items


def test_option_43_as_printed_is_the_bytes_it_stands_for(vectors: list[dict[str, Any]]) -> None:
    printed = [vector for vector in vectors if "option43_printed" in vector]
    assert printed
    for vector in printed:
        assert parse_hex("\n".join(vector["option43_printed"])).hex() == vector["option43_hex"], vector["id"]


def test_option_43_has_the_sub_options_decoded_by_hand(vectors: list[dict[str, Any]]) -> None:
    decoded = [vector for vector in vectors if "decoded_by_hand_tlv" in vector]
    assert decoded
    for vector in decoded:
        value = decode(43, bytes.fromhex(vector["option43_hex"]), vector.get("option60")).value
        assert isinstance(value, VendorOptions)
        assert value.to_bytes().hex() == vector["option43_hex"]
        by_hand = vector["decoded_by_hand_tlv"]
        assert [(sub.code, sub.declared, len(sub.data)) for sub in value.sub_options] == [
            (sub["type"], sub["declared_len"], sub["present"]) for sub in by_hand
        ], vector["id"]
        assert [sub.data.decode("latin-1") for sub in value.sub_options] == [sub["ascii"] for sub in by_hand]
        named = " ".join(value.problems)
        for sub in by_hand:
            if sub["problem"] and value.flavour != "text":
                assert f"sub-option {sub['type']}" in named
                assert f"declares {sub['declared_len']} octets, {sub['present']} present" in named


def test_only_microsoft_s_values_are_called_so(vectors: list[dict[str, Any]]) -> None:
    for vector in vectors:
        if "option43_hex" in vector:
            value = decode(43, bytes.fromhex(vector["option43_hex"]), vector.get("option60")).value
            assert isinstance(value, VendorOptions)
            assert (value.flavour == "ms-uc") == ("web_fqdn" in vector), vector["id"]


def test_option_43_is_encoded_to_the_byte(vectors: list[dict[str, Any]], generated: list[dict[str, str]]) -> None:
    made = [vector for vector in vectors if "encoded_by_bloxone" in vector]
    assert made
    for vector in made:
        value = VendorOptions.ms_uc_client(vector["web_fqdn"])
        assert value.to_bytes().hex() == vector["encoded_by_bloxone"]
        assert not value.problems
    for item in generated:
        assert VendorOptions.ms_uc_client(item["fqdn"]).to_bytes().hex() == item["option43"]


def test_option_120_both_ways(vectors: list[dict[str, Any]], generated: list[dict[str, str]]) -> None:
    told = [vector for vector in vectors if "option120" in vector]
    assert told
    for vector in told:
        data = parse_hex(vector["option120"])
        value = SipServers.parse(data)
        by_hand = vector["option120_by_hand"]
        assert (list(value.names), list(value.addresses)) == (by_hand.get("names", []), by_hand.get("ipv4", []))
        assert value.to_bytes() == data
    for item in generated:
        assert SipServers((item["fqdn"],)).to_bytes().hex() == item["option120"]


def test_options_119_and_2(vectors: list[dict[str, Any]]) -> None:
    for vector in vectors:
        if "option119" in vector:
            data = bytes.fromhex(vector["option119"])
            assert list(DomainSearch.parse(data).names) == vector["option119_decoded"]
            assert DomainSearch(tuple(vector["option119_decoded"])).to_bytes() == data
        if "option2" in vector:
            assert vector["option2_decoded"].startswith(str(TimeOffset.parse(bytes.fromhex(vector["option2"])).seconds))


def test_the_cut_of_cisco_ios_is_named(vectors: list[dict[str, Any]]) -> None:
    (vector,) = (vector for vector in vectors if vector["id"] == "cisco-ios-truncated")
    (option,) = read_paste(f"option 43 hex {vector['option43_printed'][0]}").options
    (problem,) = option.problems
    assert "sub-option 5 (CertProvRelPath): declares 37 octets, 34 present" in problem
    assert "Cisco IOS" in problem


def test_output_of_dhcputil_is_read_whole(corpus: Path) -> None:
    post = (corpus / "dhcp/src-randyzhong-dhcputil-post.md").read_text()
    printed = [part for part in post.split("```") if "Full Option 43 value" in part]
    assert len(printed) == 2
    for part in printed:
        vendor, sip = read_paste(part).options
        assert (vendor.code, sip.code) == (43, 120)
        assert not vendor.problems
        assert isinstance(vendor.value, VendorOptions)
        assert vendor.value.certificate_url is not None
        assert vendor.value.certificate_url in part


def test_router_configurations_are_read(corpus: Path) -> None:
    post = (corpus / "dhcp/src-randyzhong-dhcputil-post.md").read_text()
    entered, accepted = (read_paste(part).options for part in post.split("```") if "option 43 hex 01" in part)
    assert not entered[0].problems
    assert "sub-option 5" in accepted[0].problems[0]
    assert entered[1] == accepted[1]


def test_truth_of_the_captures_decodes(corpus: Path) -> None:
    """Every value of an option of interest that tshark printed is read or named."""
    seen = set()
    for path in sorted((corpus / "truth").glob("dhcp__*.json")):
        for packet in json.loads(path.read_text())["dhcp"]:
            codes = [int(code) for code in packet["option_types"].split(";") if code]
            values = packet["option_values_hex"].split(";")
            for code, digits in zip(codes, values, strict=False):
                if not re.fullmatch("(?:[0-9a-f]{2})+", digits):
                    continue  # tshark could not print it
                option = decode(code, bytes.fromhex(digits), packet["vendor_class"] or None)
                assert (option.value is None) == (code not in KNOWN) or option.problems
                seen |= {code} & KNOWN
                json.dumps(option.to_json())
    assert seen
