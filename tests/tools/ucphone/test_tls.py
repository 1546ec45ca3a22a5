from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.proxy_addons.test_upstream_tls import NAME, PEM, Authority, issued
from tests.servers import serving
from tools.cli import main

NOTHING_NEW = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("trusted", [True, False])
def test_a_plain_ca_will_do_and_what_openssl_says_is_told(
    trusted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, key = Authority(), ec.generate_private_key(ec.SECP256R1())  # no key usage, as `openssl req -x509` makes it
    leaf = issued(NAME, key, root, x509.SubjectAlternativeName([x509.DNSName(NAME)]))
    unprotected = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "server.pem").write_bytes(unprotected + leaf.public_bytes(PEM))
    (tmp_path / "ca.pem").write_bytes((root if trusted else Authority()).certificate.public_bytes(PEM))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "server.pem")
    with serving(lambda _: [NOTHING_NEW], served) as server:
        words = ["--server", f"https://{NAME}:{server.port}", "--version", "3.5.6907.222", "--polls", "1"]
        assert main(["phone", *words, "--ca", str(tmp_path / "ca.pem")]) == (0 if trusted else 1)

    said = "unable to get local issuer certificate" in capsys.readouterr().out
    assert said is not trusted
