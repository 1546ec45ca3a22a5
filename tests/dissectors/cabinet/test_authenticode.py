from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from dissectors.cabinet import Cabinet, Compression
from tests.conftest import require_tool
from tests.dissectors.cabinet.making import TEXT, cabinet_of


def signed(der: bytes, offset_error: int = 0, length_error: int = 0, data_reserve: int = 0) -> bytes:
    def build(offset: int) -> bytes:
        reserve = b"\0\0\x10\0" + offset.to_bytes(4, "little")
        reserve += (len(der) + length_error).to_bytes(4, "little") + bytes(8)
        return cabinet_of({"a": TEXT}, Compression.MSZIP, header_reserve=reserve, data_reserve=data_reserve)

    size = len(build(0))
    return build(size + offset_error) + der


def test_place_bytes_and_digests() -> None:
    data = signed(b"DER bytes")
    signature = Cabinet.parse(data).signature
    assert signature is not None
    assert (signature.offset, signature.length, signature.der) == (len(data) - 9, 9, b"DER bytes")
    covered = data[0:4] + data[8:34] + data[56:-9]
    assert signature.digests("sha1", "sha256") == {
        "sha1": hashlib.sha1(covered).hexdigest(),
        "sha256": hashlib.sha256(covered).hexdigest(),
    }
    assert signature.to_json()["length"] == 9


def test_what_is_left_out_of_the_digest_may_change() -> None:
    data = bytearray(signed(b"DER"))
    before = Cabinet.parse(bytes(data)).signature
    data[4:8] = b"abcd"
    data[34:36] = b"\x07\0"
    after = Cabinet.parse(bytes(data)).signature
    assert before is not None
    assert after is not None
    assert before.digest("sha256") == after.digest("sha256")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (signed(b"DER", offset_error=1), "expected a signature from"),
        (signed(b"DER", length_error=1), "expected a signature from"),
        (signed(b"DER", length_error=-1), "expected a signature from"),
        (signed(b"DER", length_error=1 << 30), "over the limit"),
        (signed(b"DER", data_reserve=4), "not read as a signature"),
        (signed(b"DER") + b"more", "expected a signature from"),
    ],
)
def test_a_signature_that_is_not_where_it_must_be_is_none(data: bytes, said: str) -> None:
    cabinet = Cabinet.parse(data)
    assert cabinet.signature is None
    assert any(said in problem for problem in cabinet.problems)
    cabinet.verify()


def test_an_opaque_reserve_is_shown_not_guessed_at() -> None:
    cabinet = Cabinet.parse(cabinet_of({"a": b"a"}, header_reserve=b"mine"))
    assert cabinet.signature is None
    assert cabinet.to_json()["reserve"] == b"mine".hex()


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_the_digest_is_the_one_osslsigncode_signs(tmp_path: Path, algorithm: str) -> None:
    sign, openssl = require_tool("osslsigncode"), require_tool("openssl")
    key, certificate, made = tmp_path / "key.pem", tmp_path / "certificate.pem", tmp_path / "signed.cab"
    plain = tmp_path / "plain.cab"
    subject = ["-subj", "/CN=test", "-addext", "extendedKeyUsage=codeSigning"]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )
    plain.write_bytes(cabinet_of({"a": TEXT}, Compression.MSZIP))
    subprocess.run(
        [sign, "sign", "-h", algorithm, "-certs", certificate, "-key", key, "-in", plain, "-out", made],
        check=True,
        capture_output=True,
    )
    said = subprocess.run([sign, "verify", "-in", str(made)], check=False, capture_output=True, text=True).stdout
    signature = Cabinet.parse(made.read_bytes()).signature
    assert signature is not None
    calculated = re.search(r"Calculated message digest\s*:\s*([0-9A-F]+)", said)
    assert calculated is not None
    assert signature.digest(algorithm).upper() == calculated[1]
