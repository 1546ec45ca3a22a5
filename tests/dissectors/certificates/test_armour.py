from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.certificates.armour import looks_like_armour, strip
from tests.dissectors.certificates.building import integer, sequence

DER = sequence(integer(1), integer(2**200), integer(3))
PEM = b"-----BEGIN PKCS7-----\r\n" + base64.encodebytes(DER) + b"-----END PKCS7-----\r\n"
BARE = base64.encodebytes(DER)


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (DER, "DER"),
        (PEM, "PEM"),
        (b"words before\n" + PEM + b"and after", "PEM"),
        (b"\xef\xbb\xbf" + PEM, "PEM"),
        (BARE, "base64"),
        (b"\n\n " + BARE.replace(b"\n", b""), "base64"),
        (PEM.decode().encode("utf-16"), "UTF-16 PEM"),
        (PEM.decode().encode("utf-16-be"), "UTF-16 PEM"),
        (BARE.decode().encode("utf-16-le"), "UTF-16 base64"),
        (b"\xfe\xff" + BARE.decode().encode("utf-16-be"), "UTF-16 base64"),
        (b"PKCX" + DER, "PKCX"),
    ],
)
def test_every_form_holds_the_same_octets(data: bytes, form: str) -> None:
    bare = strip(data)
    assert (bare.form, bare.problems) == (form, ())
    assert [block.der for block in bare.blocks] == [DER]
    assert looks_like_armour(data)


def test_pem_headers_are_no_base64() -> None:
    encapsulated = PEM.replace(b"-----\r\n", b"-----\r\nProc-Type: 4,CLEAR\r\n\r\n", 1)
    assert strip(encapsulated).blocks[0].der == DER


def test_a_bundle_keeps_its_order_and_labels() -> None:
    other = PEM.replace(b"PKCS7", b"CERTIFICATE")
    bare = strip(PEM + other + PEM)
    assert [block.label for block in bare.blocks] == ["PKCS7", "CERTIFICATE", "PKCS7"]
    assert [block.offset for block in bare.blocks] == [0, len(PEM), len(PEM) + len(other)]


def test_a_private_key_is_never_decoded() -> None:
    secret = PEM.replace(b"PKCS7", b"RSA PRIVATE KEY")
    assert strip(secret).blocks == ()
    bare = strip(secret + PEM)
    assert (len(bare.blocks), bare.problems) == (1, ())
    assert [(block.der, block.offset, block.label) for block in bare.keys] == [(b"", 0, "RSA PRIVATE KEY")]


def test_a_block_without_its_end_is_read_and_named() -> None:
    bare = strip(PEM[:-30])
    assert bare.blocks[0].der == DER[: len(bare.blocks[0].der)]
    assert "no end line" in bare.problems[0]


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN X-----\n!!!\n-----END X-----", b"-----BEGIN X", b"-----BEGIN X-----"]
)
def test_empty_and_broken_text_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        strip(data)


@given(st.binary(min_size=1, max_size=200), st.integers(0, 3))
def test_base64_cut_anywhere_gives_the_octets_that_are_there(value: bytes, cut: int) -> None:
    text = base64.b64encode(sequence(value))
    bare = strip(text[: len(text) - cut])
    assert sequence(value).startswith(bare.blocks[0].der)
    assert len(bare.blocks[0].der) >= len(sequence(value)) - 3


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-16", "surrogatepass")))
def test_nothing_but_our_error_comes_out(data: bytes) -> None:
    looks_like_armour(data)
    with contextlib.suppress(DissectError):
        assert strip(data).blocks
