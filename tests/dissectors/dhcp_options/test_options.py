from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.dhcp_options import (
    DomainSearch,
    NtpServers,
    ParameterRequest,
    SipServers,
    SubOption,
    Text,
    TimeOffset,
    VendorOptions,
    decode,
)

ADDRESSES = st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=8).map(tuple)
HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z0-9]{1,12}){0,4}", fullmatch=True)


@given(st.binary(max_size=300))
def test_any_option_43_is_kept_to_the_byte(data: bytes) -> None:
    value = VendorOptions.parse(data)
    assert value.to_bytes() == data
    json.dumps(decode(43, data).to_json())


@given(HOSTS, st.integers(1, 65535), st.sampled_from(["https"]))
def test_what_is_written_for_a_server_leads_to_it(host: str, port: int, scheme: str) -> None:
    value = VendorOptions.ms_uc_client(host, port=port, scheme=scheme)
    read = VendorOptions.parse(value.to_bytes())
    assert read.certificate_url == f"{scheme}://{host}:{port}/CertProv/CertProvisioningService.svc"
    assert read.sub_options == value.sub_options


@given(st.integers(1, 4094), st.integers(1, 254))
def test_a_vlan_there_and_back(vlan: int, code: int) -> None:
    value = VendorOptions.cpe_ocphone(vlan, code=code)
    read = decode(43, value.to_bytes(), "CPE-OCPHONE")
    assert isinstance(read.value, VendorOptions)
    assert (read.value.vlan, read.problems) == (vlan, ())


@given(ADDRESSES)
def test_addresses_there_and_back(addresses: tuple[str, ...]) -> None:
    assert SipServers.parse(SipServers(addresses=addresses).to_bytes()).addresses == addresses
    assert NtpServers.parse(NtpServers(addresses).to_bytes()).addresses == addresses


@given(st.lists(HOSTS, min_size=1, max_size=5).map(tuple))
def test_names_there_and_back(names: tuple[str, ...]) -> None:
    assert SipServers.parse(SipServers(names).to_bytes()).names == names
    assert DomainSearch.parse(DomainSearch(names).to_bytes()).names == names


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.binary(max_size=60))
def test_small_options_there_and_back(seconds: int, codes: bytes) -> None:
    assert TimeOffset.parse(TimeOffset(seconds).to_bytes()).seconds == seconds
    assert ParameterRequest.parse(codes).to_bytes() == codes


WHOLE = VendorOptions.ms_uc_client("sip.contoso.com").sub_options


def changed(code: int, data: bytes | None) -> bytes:
    parts = [SubOption.of(code, data) if sub.code == code and data is not None else sub for sub in WHOLE]
    return b"".join(sub.to_bytes() for sub in parts if data is not None or sub.code != code)


MISTYPED = [
    (changed(1, b"ms-uc-client"), "sub-option 1 (UCIdentifier): 'ms-uc-client' instead of MS-UC-Client"),
    (changed(2, b"http"), "sub-option 2 (URLScheme): 'http' instead of https"),
    (changed(3, b"10.1.2.3"), "sub-option 3 (WebServerFqdn): the address 10.1.2.3 instead of a name"),
    (changed(3, b"sip_contoso com"), "is no host name"),
    (changed(3, b"sip.contoso.com\0"), "ends with a zero octet"),
    (changed(3, "sip.contoso.com".encode("utf-16-le")), "UTF-16 instead of ASCII"),
    (changed(4, b"\x01\xbb"), "sub-option 4 (WebServerPort): a binary number (443), it must be digits"),
    (changed(4, b"70000"), "'70000' is no port"),
    (changed(4, None), "sub-option 4 (WebServerPort) is missing"),
    (changed(5, b"CertProv"), "does not begin with a slash"),
    (changed(5, b""), "sub-option 5 (CertProvRelPath): empty"),
    (changed(9, None) + b"\x09\x01x", "sub-option 9 is not one of MS-UC-Client"),
    (changed(9, None) + b"\x02\x05https", "sub-option 2 comes twice"),
    (changed(9, None) + b"\x06", "sub-option 6: breaks off before its length"),
]


@pytest.mark.parametrize(("data", "problem"), MISTYPED)
def test_mistyped_values_are_named(data: bytes, problem: str) -> None:
    assert any(problem in found for found in decode(43, data, "MS-UC-Client").problems)


def test_every_cut_of_option_43_is_named_with_its_sub_option() -> None:
    data = changed(9, None)
    starts = {0, 14, 21, 38, 43}
    for size in range(1, len(data)):
        found = decode(43, data[:size], "MS-UC-Client").problems
        if size not in starts:
            assert any("breaks off" in problem or "present" in problem for problem in found), size
        else:
            assert any("missing" in problem for problem in found)


def test_the_class_must_have_its_case() -> None:
    assert any("case" in problem for problem in decode(43, changed(9, None), "MS-UC-CLIENT").problems)
    assert decode(60, b"ms-uc-client").problems
    assert not decode(60, b"MS-UC-Client").problems
    assert not decode(60, b"MSFT 5.0").problems


def test_text_in_the_place_of_sub_options_is_named() -> None:
    assert "plain text" in decode(43, b"https://sip.contoso.com", "MS-UC-Client").problems[0]
    other = decode(43, b"172.18.6.37", "ArubaAP")
    assert isinstance(other.value, VendorOptions)
    assert other.value.to_json()["text"] == "172.18.6.37"


def test_other_vendors_sub_options_get_their_plain_readings() -> None:
    (sub,) = decode(43, bytes.fromhex("f1080a050bc10a050cbf")).to_json()["sub_options"]
    assert (sub["code"], sub["ipv4"], sub["name"]) == (241, ["10.5.11.193", "10.5.12.191"], None)


WRONG_120 = [
    (b"", "nothing"),
    (b"\x00", "a name"),
    (b"\x02\x03sip\x00", "encoding octet"),
    (b"\x03sip\x07contoso\x03com\x00", "the name sip.contoso.com without the octet 00"),
    (b"sip.contoso.com", "typed as a string"),
    (b"\x00sip.contoso.com", "length 115"),
    (b"\x00\x03sip\x07contoso\x03com", "the end"),
    (b"\x00\x03sip\x07cont", "a label of 7 octets"),
    (b"\x00\x03sip\xc0\x00", "compression"),
    (b"\x01\x0a\x00\x00", "3 octets"),
]


@pytest.mark.parametrize(("data", "problem"), WRONG_120)
def test_wrong_sip_servers_are_named(data: bytes, problem: str) -> None:
    option = decode(120, data)
    assert option.value is None
    assert problem in option.problems[0]
    with pytest.raises(DissectError):
        SipServers.parse(data)


WRONG = [(42, b"\x0a\x00\x00"), (42, b""), (119, b""), (119, b"\xc0\x00"), (60, b"\xff"), (15, b""), (2, b"\0\0")]


@pytest.mark.parametrize(("code", "data"), WRONG)
def test_wrong_octets_of_the_other_options_are_told(code: int, data: bytes) -> None:
    option = decode(code, data)
    assert option.value is None
    assert option.problems


def test_the_domain_leads_to_the_update_host() -> None:
    assert decode(15, b"contoso.local\0").to_json()["update_host"] == "ucupdates-r2.contoso.local"


UNENCODABLE = [
    lambda: SipServers().to_bytes(),
    lambda: SipServers(("a.b",), ("10.0.0.1",)).to_bytes(),
    lambda: SipServers(addresses=("10.0.0.256",)).to_bytes(),
    lambda: DomainSearch(("bücher.example",)).to_bytes(),
    lambda: DomainSearch(("a..b",)).to_bytes(),
    lambda: DomainSearch(("x" * 64,)).to_bytes(),
    lambda: TimeOffset(1 << 31).to_bytes(),
    lambda: Text("é").to_bytes(),
    lambda: VendorOptions.ms_uc_client("a b"),
    lambda: VendorOptions.ms_uc_client("a.b", port=0),
    lambda: VendorOptions.ms_uc_client("a.b", path="/" + "x" * 240),
    lambda: VendorOptions.cpe_ocphone(4095, code=10),
    lambda: VendorOptions.cpe_ocphone(100, code=255),
]


@pytest.mark.parametrize("make", UNENCODABLE)
def test_what_does_not_fit_is_not_encoded(make: object) -> None:
    assert callable(make)
    with pytest.raises(DissectError):
        make()


def test_noise_raises_nothing() -> None:
    rng = random.Random(2132)
    for _ in range(4000):
        data = bytearray(changed(9, None) if rng.random() < 0.5 else rng.randbytes(rng.randrange(1, 40)))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        for code in (2, 15, 42, 43, 55, 60, 119, 120):
            json.dumps(decode(code, bytes(data), rng.choice((None, "MS-UC-Client", "CPE-OCPHONE"))).to_json())
