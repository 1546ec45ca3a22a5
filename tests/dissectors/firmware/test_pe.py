from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from dissectors import DissectError
from dissectors.certificates import SignedData, dissect, verify
from dissectors.file_digests import FileDigests
from dissectors.firmware import authenticode_digests, parse_pe
from tests.conftest import require_tool
from tests.dissectors.firmware.building import pe_image


@pytest.mark.parametrize("plus", [False, True])
def test_an_image_reads_as_it_was_built(plus: bool) -> None:
    image = parse_pe(pe_image(plus=plus))
    shown = image.to_json()
    assert shown["machine"] == "Thumb"
    assert shown["subsystem"] == "Windows CE"
    assert shown["sections"] == [{"name": ".text", "offset": 0x200, "size": 4}]
    assert (shown["dll"], shown["signed"]) == (True, False)


@pytest.mark.parametrize("plus", [False, True])
def test_the_hash_leaves_out_checksum_and_signature(plus: bool) -> None:
    data = pe_image(plus=plus, size=0x300)
    image = parse_pe(data)
    assert image.security_entry is not None
    plain = authenticode_digests(data, "sha1")[0]
    marked = bytearray(data)
    marked[image.checksum_offset] ^= 0xFF
    assert authenticode_digests(bytes(marked), "sha1")[0] == plain
    entry = len(data).to_bytes(4, "little") + (16).to_bytes(4, "little")
    marked[image.security_entry : image.security_entry + 8] = entry
    assert authenticode_digests(bytes(marked) + bytes(16), "sha1")[0] == plain
    marked[0x250] ^= 1
    assert authenticode_digests(bytes(marked) + bytes(16), "sha1")[0] != plain


def test_only_images_have_such_a_hash() -> None:
    assert FileDigests.of(b"text").pe_sha1 == b""
    assert FileDigests.of(b"MZ, but no more").pe_sha256 == b""
    assert FileDigests.of(pe_image()).pe_sha256 == authenticode_digests(pe_image(), "sha256")[0]
    assert FileDigests.from_hex("00" * 20, "11" * 32) == FileDigests(bytes(20), b"\x11" * 32)


@pytest.mark.parametrize("cut", [1, 30, 64, 80, 100, 300, 320, 350])
def test_a_cut_off_header_is_refused(cut: int) -> None:
    with pytest.raises(DissectError):
        parse_pe(pe_image()[:cut])


@pytest.mark.parametrize("size", [0x204, 0x300, 0x301])
@pytest.mark.parametrize("plus", [False, True])
def test_osslsigncode_signs_the_same_hash(plus: bool, size: int, tmp_path: Path) -> None:
    tool, openssl = require_tool("osslsigncode"), require_tool("openssl")
    unsigned, signed = tmp_path / "in.dll", tmp_path / "out.dll"
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    unsigned.write_bytes(pe_image(plus=plus, size=size))
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "9"]
    _run(openssl, *request, "-keyout", str(key), "-out", str(certificate))
    _run(
        tool,
        "sign",
        "-h",
        "sha256",
        "-certs",
        str(certificate),
        "-key",
        str(key),
        "-in",
        str(unsigned),
        "-out",
        str(signed),
    )
    data = signed.read_bytes()
    image = parse_pe(data)
    assert image.security is not None
    at, length = image.security
    # A WIN_CERTIFICATE header of eight bytes stands before the PKCS #7.
    (item,) = dissect(data[at + 8 : at + length]).items
    assert isinstance(item, SignedData)
    assert item.indirect_data is not None
    assert item.indirect_data.subject_type == "pe"
    assert item.indirect_data.digest == authenticode_digests(data, "sha256")[0]
    assert [verdict.verified for verdict in verify(item)] == [True]
    assert authenticode_digests(unsigned.read_bytes(), "sha256")[0] == item.indirect_data.digest
    told = subprocess.run([tool, "verify", "-in", str(signed)], capture_output=True, text=True, check=False).stdout
    found = re.search(r"Calculated message digest\s*: ([0-9A-F]+)", told)
    assert found is not None
    assert found[1].lower() == authenticode_digests(data, "sha256")[0].hex()
    assert hashlib.sha256(data).digest() != item.indirect_data.digest


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
