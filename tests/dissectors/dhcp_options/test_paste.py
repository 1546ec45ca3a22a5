from __future__ import annotations

import random
import time
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.dhcp_options import NtpServers, SipServers, VendorOptions, decode, format_hex, parse_hex, read_paste

SIP = SipServers(("sip.contoso.com",)).to_bytes()
VENDOR = VendorOptions.ms_uc_client("sip.contoso.com").to_bytes()
DATA = st.binary(min_size=1, max_size=120)
NOTATIONS: tuple[Literal["plain", "colon", "dotted"], ...] = ("plain", "colon", "dotted")


@given(DATA, st.sampled_from(NOTATIONS))
def test_every_notation_written_is_read(data: bytes, notation: Literal["plain", "colon", "dotted"]) -> None:
    assert parse_hex(format_hex(data, notation)) == data


@given(DATA, st.integers(3, 80))
def test_wrapping_anywhere_does_not_matter(data: bytes, width: int) -> None:
    digits = data.hex().upper()
    assert parse_hex("\r\n\t".join(digits[at : at + width] for at in range(0, len(digits), width))) == data


@given(DATA)
def test_one_group_per_byte(data: bytes) -> None:
    assert parse_hex(" ".join(f"0x{octet:02x}" for octet in data)) == data
    assert parse_hex(",".join(f"0x{octet:X}" for octet in data) + ",0x0")[:-1] == data
    assert parse_hex(":".join(f"{octet:x}" for octet in data) + ":0")[:-1] == data
    assert parse_hex("".join(f"\\x{octet:02x}" for octet in data)) == data
    assert parse_hex("hex:" + ",\\\n  ".join(f"{octet:02x}" for octet in data)) == data
    assert parse_hex("0x" + data.hex()) == data


@pytest.mark.parametrize("text", ["", "  ", "abc", "0g", "zz", "012 345 6" * 3, "x" * 70_000])
def test_what_is_no_hex_is_refused(text: str) -> None:
    with pytest.raises(DissectError):
        parse_hex(text)


def test_an_offset_points_at_the_wrong_character() -> None:
    with pytest.raises(DissectError) as raised:
        parse_hex("0102 03G4")
    assert raised.value.offset == 7


ONE_LINE = [
    f"option 120 hex {format_hex(SIP, 'dotted')}",
    f"option 120 hex {SIP.hex()}",
    f" option ext 120 hex {SIP.hex()[:20]}\n option ext 120 hex {SIP.hex()[20:]}",
    f"netsh dhcp server set optionvalue 120 BINARY {SIP.hex()}",
    f'netsh dhcp server 10.0.0.1 scope 10.0.0.0 set optionvalue 120 BINARY user="" "{SIP.hex()}"',
    f"dhcp-option=120,{format_hex(SIP, 'colon')}",
    f"/ip dhcp-server option add code=120 name=uc-sip value=0x{SIP.hex()}",
    f'set option 120 value "{SIP.hex(" ")}"',
    f"option option-120 {format_hex(SIP, 'colon')};",
    f'option 120 byte-stream "{SIP.hex(" ")}"',
    "Set-DhcpServerv4OptionValue -OptionId 120 -Value " + ",".join(f"0x{octet:02x}" for octet in SIP),
    f'Dhcp Server 10.0.0.1 Add Optiondef 120 UCSipServer BINARY 0 comment="" {SIP.hex()}',
    f"Option 120:\n{SIP.hex()[:9]}\n{SIP.hex()[9:]}\n\nVendor Class Identifier: MS-UC-Client\n",
    f"Option 120: {SIP.hex().upper()}\n",
    SIP.hex(),
    format_hex(SIP, "colon"),
]


@pytest.mark.parametrize("text", ONE_LINE)
def test_option_120_is_found_in_what_is_pasted(text: str) -> None:
    assert read_paste(text).options == (decode(120, SIP),)


def test_sub_options_alone_add_up() -> None:
    names = {1: "UC Identifier", 2: "URL Scheme", 3: "Web Server FQDN", 4: "Port", 5: "Relative Path for Cert Prov"}
    subs = {sub.code: sub.data.hex().upper() for sub in VendorOptions.parse(VENDOR).sub_options}
    printed = "\n".join(f"  sub-option {code} <{names[code]}>: {digits}" for code, digits in subs.items())
    wrapped = printed[:-13] + "\n        " + printed[-13:]
    script = "set optionvalue {} BINARY vendor=MSUCClient {}"
    netsh = "\n".join(script.format(code, digits) for code, digits in subs.items())
    for text in (printed, wrapped, netsh):
        (option,) = read_paste(text).options
        assert option.data == VENDOR
        assert not option.problems
    line = f'"C:\\DHCPConfigScript.bat" Configure MS-UC-Client {SIP.hex()} ' + " ".join(subs.values())
    assert [option.data for option in read_paste(line).options] == [VENDOR, SIP]


def test_what_disagrees_is_told() -> None:
    digits = VENDOR.hex()
    (cut,) = read_paste(f"Full Option 43 value (Length: {len(digits)}) :\n{digits[:-6]}\n").options
    assert any("digits announced" in problem for problem in cut.problems)
    (other,) = read_paste(f"Full Option 43 value:\n{digits}\n sub-option 2 <URL Scheme>: 6874747073\n").options
    assert any("add up to another value" in problem for problem in other.problems)


def test_ascii_and_addresses_of_a_router() -> None:
    text = 'option 42 ip 10.0.0.1 10.0.0.2\noption 60 ascii "MS-UC-Client"\noption 43 ascii "sip.contoso.com"'
    ntp, vendor, name = read_paste(text).options
    assert ntp.value == NtpServers(("10.0.0.1", "10.0.0.2"))
    assert "plain text" in vendor.problems[0]
    assert name.to_json()["text"] == "MS-UC-Client"


def test_bare_digits_tell_their_option_where_they_can() -> None:
    assert [read_paste(data.hex()).options[0].code for data in (VENDOR, SIP, SIP[1:], b"\x01\x0a\0\0\x01")] == [
        43,
        120,
        119,
        120,
    ]
    assert read_paste("0a000001", 42).options[0].value == NtpServers(("10.0.0.1",))
    with pytest.raises(DissectError, match="give its number"):
        read_paste("0a000001")


def test_noise_raises_nothing_else() -> None:
    rng = random.Random(43)
    words = [
        *"0123456789abcdef",
        " ",
        "\n",
        "option ",
        "43",
        "120",
        " hex ",
        "Option 120:",
        "sub-option 1 <x>: ",
        "ip ",
    ]
    words += [
        "Full Option 43 value (Length: 4) :",
        "Configure X ",
        "optionvalue 43 BINARY ",
        "ascii ",
        '"',
        "0x",
        ":",
        ".",
    ]
    for _ in range(8000):
        text = "".join(rng.choices(words, k=rng.randrange(1, 25)))
        try:
            read_paste(text, rng.choice((None, None, 43)))
        except DissectError:
            continue


LISTING = (
    f"Option 120:\n{SIP.hex().upper()}\n\nVendor Class Identifier: MS-UC-Client\n"
    f"Option 43 (for vendor=MS-UC-Client):\n\tFull Option 43 value (Length: {2 * len(VENDOR)}) :\n"
    f"\t{VENDOR.hex().upper()[:75]}\n\t{VENDOR.hex().upper()[75:]}\n"
)
WORDS = st.lists(
    st.sampled_from(["we", "use", "option 43", "option 120", "see", "page 12", "10.0.0.1", "é\u200b", "a - b", "2013"]),
    max_size=8,
).map(" ".join)


@given(st.lists(WORDS, max_size=4), st.lists(WORDS, max_size=4), st.sampled_from(["", "> ", "    ", "> > "]))
def test_words_around_a_listing_do_not_matter(before: list[str], after: list[str], quote: str) -> None:
    text = "\n".join([*before, "", *(quote + line for line in LISTING.splitlines()), "", *after])
    assert [(one.code, one.data) for one in read_paste(text).options] == [(43, VENDOR), (120, SIP)]


def test_several_listings_are_all_read() -> None:
    other = SipServers(("pool.contoso.com",)).to_bytes()
    text = f"before:\n{LISTING}\nafter:\n option 43 hex {VENDOR.hex()[:-6]}\n option 120 hex {other.hex()}\n{LISTING}"
    found = read_paste(text).options
    assert [(one.code, one.data) for one in found] == [(43, VENDOR), (120, SIP), (43, VENDOR[:-3]), (120, other)]


@pytest.mark.parametrize("stray", ["Z", "…", "O", "l"])
def test_a_value_with_a_stray_character_is_skipped_and_no_other(stray: str) -> None:
    wrapped = VENDOR.hex().upper()[75:]
    paste = read_paste(LISTING.replace(wrapped, wrapped[:20] + stray + wrapped[21:]))
    assert [(one.code, one.data) for one in paste.options] == [(120, SIP)]
    (skipped,) = paste.skipped
    assert skipped.startswith("line 6: option 43: line 8: expected hexadecimal digits")


def test_where_nothing_is_left_the_error_tells_the_line() -> None:
    with pytest.raises(DissectError, match=r"line 2: option 43.*'Y'"):
        read_paste("the manual says\n option ext 43 hex Your value here\n")


@pytest.mark.parametrize(
    "text",
    [
        "see option 43 on page 12",
        "option 120 since 2009",
        "call option 43 at 0044 1234 5678 90",
        '"option43_bytes": 90',
        "sha256: " + "3a" * 32,
        "3A" * 20 + "\n" + "4b" * 20,
        "01 00 00 00 05 33 22 11 00 and more",
        "option 43\nis not here\n0102030405060708",
        "RFC 3361 defines option 120\nand others\n",
    ],
)
def test_numbers_in_prose_are_no_options(text: str) -> None:
    with pytest.raises(DissectError):
        read_paste(text)


def test_digits_after_words_about_an_option_are_its_value() -> None:
    text = f"This is our option 43:\n\n```\n{VENDOR.hex()}\n```\nIs it right?"
    assert [(one.code, one.data) for one in read_paste(text).options] == [(43, VENDOR)]
    text = f"The switch says {VENDOR.hex()} and\n{SIP.hex(':')}, is it right?"
    assert {(one.code, one.data) for one in read_paste(text).options} == {(43, VENDOR), (120, SIP)}


@pytest.mark.parametrize("at", [150, 160, 170])
def test_a_wrapped_command_line_is_read_whole_or_not_at_all(at: int) -> None:
    subs = [sub.data.hex() for sub in VendorOptions.parse(VENDOR).sub_options]
    line = f"DHCPConfigScript.bat Configure MS-UC-Client {SIP.hex()} {' '.join(subs)}"
    for wrapped in (line[:at] + "\n" + line[at:], line.replace(f" {subs[2]}", f"\n{subs[2]}")):
        assert [one.data for one in read_paste(wrapped).options] == [VENDOR, SIP]
    with pytest.raises(DissectError, match="values, not 6"):
        read_paste(line[: line.index(subs[3])])


def bytewise(data: bytes) -> str:
    return ",".join(f"0x{octet:02x}" for octet in data)


@pytest.mark.parametrize(
    ("text", "code", "addresses"),
    [
        ("Option 42: 10.1.1.1", 42, "10.1.1.1"),
        ("Option 42 (NTP servers): 192.168.100.200", 42, "192.168.100.200"),
        ("option 6 = 10.20.30.40", 6, "10.20.30.40"),
        ("Option 3: 10.0.0.1, 10.0.0.2", 3, "10.0.0.1 10.0.0.2"),
        ("dhcp-option=42,10.1.1.1,10.1.1.2", 42, "10.1.1.1 10.1.1.2"),
        ("Set-DhcpServerv4OptionValue -OptionId 42 -Value 10.1.1.1 -ScopeId 10.1.2.0", 42, "10.1.1.1"),
        ("Option 120: 10.0.0.1", 120, "10.0.0.1"),
    ],
)
def test_addresses_are_decimal(text: str, code: int, addresses: str) -> None:
    (option,) = read_paste(text).options
    octets = bytes(int(part) for part in addresses.replace(" ", ".").split("."))
    assert (option.code, option.data) == (code, octets)


@pytest.mark.parametrize(
    "text",
    [
        "See option 120, 10.0.0.5 answers; set on 2010-03-01",
        "see option 120, 10.0.0.5",
        "option 120: 2010-03-01",
        "Option 120:\n10.0.0.1",
        "option 43 = 1.0.522.73",
        "option 51: 864000",
        "option 43: meeting at 10:05",
        "Set-DhcpServerv4OptionValue -OptionId 51 -Value 86400 -ScopeId 10.1.2.0",
        "option 12: added",
    ],
)
def test_dates_versions_and_numbers_are_no_octets(text: str) -> None:
    with pytest.raises(DissectError):
        read_paste(text)


@pytest.mark.parametrize("behind", [" -Force", " -ScopeId 10.1.2.0", " -ComputerName dc01", ""])
@pytest.mark.parametrize("form", ["{}", "([byte[]]({}))", "@({})", '"{}"'])
def test_powershell_s_value_is_what_stands_behind_value(form: str, behind: str) -> None:
    text = f"Set-DhcpServerv4OptionValue -OptionId 120 -Value {form.format(bytewise(SIP))}{behind}"
    assert read_paste(text).options == (decode(120, SIP),)
    text = f"Set-DhcpServerv4OptionValue -ScopeId 10.1.2.0 -OptionId 120 -Value {form.format(bytewise(SIP))}{behind}"
    assert read_paste(text).options == (decode(120, SIP),)


def test_powershell_s_vendor_class_makes_sub_options() -> None:
    lines = [
        f"Set-DhcpServerv4OptionValue -VendorClass MSUCClient -OptionId {sub.code} -Value {bytewise(sub.data)}"
        for sub in VendorOptions.parse(VENDOR).sub_options
    ]
    assert [(one.code, one.data, one.problems) for one in read_paste("\n".join(lines)).options] == [(43, VENDOR, ())]


@pytest.mark.parametrize("prefix", ["", "0x"])
@pytest.mark.parametrize("between", ["\n", "\n\n"])
@pytest.mark.parametrize("word", ["", "Option 43: ", "option 43 = "])
def test_values_on_lines_of_their_own_are_not_one(prefix: str, between: str, word: str) -> None:
    text = f"{word}{prefix}{VENDOR.hex()}{between}{prefix}{SIP.hex()}"
    assert {(one.code, one.data, one.problems) for one in read_paste(text).options} == {
        (43, VENDOR, ()),
        (120, SIP, ()),
    }


@given(st.integers(20, 90), st.booleans(), st.sampled_from(["", "0x"]))
def test_wrapped_values_that_follow_one_another_are_told_apart(width: int, turned: bool, prefix: str) -> None:
    lines: list[str] = []
    for data in (SIP, VENDOR) if turned else (VENDOR, SIP):
        digits = prefix + data.hex()
        lines += (digits[at : at + width] for at in range(0, len(digits), width))
    for word in ("", "my option 120:\n" if turned else "Option 43: "):
        assert {(one.code, one.data) for one in read_paste(word + "\n".join(lines)).options} == {
            (43, VENDOR),
            (120, SIP),
        }


@pytest.mark.parametrize(
    "text",
    [
        f'{{"option-data":[{{"code":43,"data":"{VENDOR.hex()}"}},{{"code":120,"data":"0x{SIP.hex()}"}}]}}',
        f'{{"option-data":[{{"code":120,"data":"0x{SIP.hex()}"}},{{"code":43,"data":"{VENDOR.hex()}"}}]}}',
        f"43 = {bytewise(VENDOR)}\n120 = {bytewise(SIP)}",
        f"The value for option 43 is 0x{VENDOR.hex()} and for 120 it is 0x{SIP.hex()} as you see.",
        f"The value for option 43 is {VENDOR.hex()} and for option 120 it is {SIP.hex()} as you see.",
        f"option 43 hex {VENDOR.hex()} # phones\n option 120 hex {SIP.hex()} ! phones",
    ],
)
def test_no_option_of_a_line_is_lost(text: str) -> None:
    assert {(one.code, one.data) for one in read_paste(text).options} == {(43, VENDOR), (120, SIP)}


def test_an_option_that_cannot_be_read_is_said() -> None:
    whole = f"Option 120: {SIP.hex()}"
    odd = f"{VENDOR.hex()[:80]}Z{VENDOR.hex()[80:]}"
    for other in (f"option 43 = {odd}", f"option 43 may be {odd}", "option 43: 86400", "Option 43 (name): contoso.com"):
        paste = read_paste(f"{whole}\n{other}")
        assert [(one.code, one.data) for one in paste.options] == [(120, SIP)]
        assert paste.skipped == ("line 2: option 43: neither octets nor addresses",)
    assert read_paste(f"option sip code 120 = string;\n{whole}").skipped == ()


def test_words_that_follow_a_whole_value_do_not_damage_it() -> None:
    assert read_paste(f"Option 120: {SIP.hex()}\nDeadbeef!").options == (decode(120, SIP),)


@pytest.mark.parametrize(
    "text",
    [
        "option 43: " + "00:" * 80000 + "z",
        "option 43 " + "aa:" * 80000 + "zz",
        "option 43 " + "00 " * 80000 + "z",
        "code 1=0," * 28000,
        "1.1.1.1," * 30000 + "z",
        ("\n".join(["0001" * 16] * 32) + "\nx\n") * 60,
    ],
)
def test_hostile_text_does_not_take_long(text: str) -> None:
    began = time.process_time()
    with pytest.raises(DissectError):
        read_paste(text)
    assert time.process_time() - began < 15
