from __future__ import annotations

import codecs

import pytest

from dissectors import DissectError, LimitExceeded, Unsupported
from dissectors.xml_body import XmlBody, encoding
from dissectors.xml_body.encoding import MAX_BODY, MAX_LABEL, decode_text


def declared(name: str) -> str:
    return f'<?xml version="1.0" encoding="{name}"?><r>ü</r>'


ENCODINGS = {
    "utf-8": declared("utf-8").encode(),
    "utf-16-le": declared("utf-16").encode("utf-16-le"),
    "utf-16-be": declared("UCS-2").encode("utf-16-be"),
    "utf-32-le": declared("utf-32").encode("utf-32-le"),
    "utf-32-be": declared("utf-32").encode("utf-32-be"),
    "cp1252": declared("Windows-1252").encode("cp1252"),
    "iso8859-15": declared("ISO-8859-15").encode("iso8859-15"),
    "koi8-r": declared("koi8-r").encode("koi8-r", "xmlcharrefreplace"),
    "cp850": declared("IBM850").encode("cp850"),
    "gb18030": declared("GB18030").encode("gb18030"),
    "euc_jp": declared("EUC-JP").encode("euc_jp"),
    "cp932": declared("windows-31j").encode("cp932", "xmlcharrefreplace"),
}


@pytest.mark.parametrize("codec", ENCODINGS)
def test_ordinary_encodings_are_known(codec: str) -> None:
    body = XmlBody.decode(ENCODINGS[codec])
    text = body.elements[0].text
    assert text
    assert text.value == "ü"
    assert body.encoding == codec
    assert body.problems == ()


MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@pytest.mark.parametrize("codec", MARKS)
def test_the_byte_order_mark_wins(codec: str) -> None:
    read = decode_text(MARKS[codec] + declared("shift_jis").encode(codec), "koi8-r")
    assert read.text == declared("shift_jis")
    assert read.label == f"{codec} with byte order mark"
    assert read.problems == (f"the XML declaration says shift_jis, the bytes are {codec}",)


@pytest.mark.parametrize("claim", ["utf-16", "UTF-32LE", "ucs-2", "cp037"])
def test_8_bit_text_that_claims_to_be_something_else(claim: str) -> None:
    read = decode_text(declared(claim).encode())
    assert (read.codec, len(read.problems)) == ("utf-8", 1)
    assert decode_text(declared(claim).encode("koi8-r", "replace"), '"koi8-r"').codec == "koi8-r"


def test_headers_that_contradict_are_noted() -> None:
    assert "HTTP header" in decode_text(declared("utf-8").encode(), "windows-1252").problems[0]
    assert "HTTP header" in decode_text(b"<r/>", "utf-16").problems[0]
    assert "unknown charset" in decode_text(b"<r/>", "rot13").problems[0]
    assert decode_text(b"<r/>", "UTF_8").problems == ()


def test_broken_utf_8_is_taken_byte_by_byte() -> None:
    read = decode_text(b"<r>\xfc</r>")
    assert (read.text, read.guessed, read.label) == ("<r>ü</r>", True, "iso8859-1 (guessed)")
    assert read.problems == ("byte 3 is not utf-8; bytes over 127 are not to be trusted",)


@pytest.mark.parametrize(
    "label", ["utf-7", "rot13", "idna", "unicode_escape", "iso2022_jp", "hz", "zlib", "x" * 40, "iso-8859-99"]
)
def test_anything_out_of_the_ordinary_is_refused(label: str) -> None:
    with pytest.raises(Unsupported):
        decode_text(f'<?xml version="1.0" encoding="{label}"?><r/>'.encode())


def test_ebcdic_is_named() -> None:
    with pytest.raises(Unsupported, match="EBCDIC"):
        decode_text(declared("cp037").encode("cp037"))


@pytest.mark.parametrize("octets", [b"\xff\xfe<\0a", b"\xff\xfe<\0\x00\xd8>\0", b"<\0\0\0\xff\xff\xff\xff"])
def test_broken_wide_text_is_refused(octets: bytes) -> None:
    with pytest.raises(DissectError):
        decode_text(octets)


def test_padding_is_tolerated() -> None:
    for codec in ("utf-8", "utf-16-le"):
        octets = f"\r\n {declared(codec)} \r\n".encode(codec) + b"\0\0\0"
        assert XmlBody.decode(octets).elements[0].tag == "r"


def test_large_bodies_are_refused() -> None:
    with pytest.raises(LimitExceeded):
        decode_text(b" " * (MAX_BODY + 1))


def test_long_labels_are_not_remembered() -> None:
    encoding._remembered.cache_clear()
    for label in ("utf-16".ljust(MAX_LABEL, "x"), "utf-16".ljust(MAX_LABEL + 1, "x")):
        assert decode_text(b"<r/>", label).problems == (
            f"the charset of the HTTP header says {label}, the bytes are 8-bit text",
        )
    assert encoding._remembered.cache_info().currsize == 1
