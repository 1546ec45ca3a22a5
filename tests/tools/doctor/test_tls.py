from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes

from tests.dissectors.certificates.building import Plan
from tests.phone_certificates import LEAF, NAME, NOW, ROOT, identity_file, key_pem, pem, server_context
from tests.servers import serving
from tools.deploy import Address
from tools.doctor import tls
from tools.doctor.result import OK, PROBLEM, Result

DOMAIN = "contoso.com"
EXPIRED = replace(LEAF, not_after=NOW - timedelta(days=1))


@contextlib.contextmanager
def serving_tls(folder: Path, leaf: Plan = LEAF) -> Iterator[int]:
    context = server_context(folder / "served.pem", leaf)
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            plain.settimeout(20)
            with contextlib.suppress(OSError), plain, context.wrap_socket(plain, server_side=True) as phone:
                phone.recv(1000)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(20)


def words(results: Iterator[Result], status: str) -> str:
    return " ".join(f"{result.check}: {result.found}" for result in results if result.status == status)


def test_a_file_that_is_fit(tmp_path: Path) -> None:
    results = list(tls.certificate_file(identity_file(tmp_path / "c.pem"), DOMAIN))
    assert [result.status for result in results if result.status == PROBLEM] == []
    assert "nobody else may read it" in words(iter(results), OK)


@pytest.mark.parametrize("what", ["mode", "expired", "other name", "other key", "no key", "no certificate", "none"])
def test_files_that_are_not(what: str, tmp_path: Path) -> None:
    file = tmp_path / "c.pem"
    other = replace(LEAF, name="www", dns_names=("www.contoso.com",))
    text = {
        "expired": key_pem(EXPIRED) + pem(EXPIRED) + pem(ROOT),
        "other name": key_pem(other) + pem(other) + pem(ROOT),
        "other key": key_pem(other) + pem(LEAF) + pem(ROOT),
        "no key": pem(LEAF) + pem(ROOT),
        "no certificate": key_pem(LEAF),
    }.get(what, key_pem(LEAF) + pem(LEAF) + pem(ROOT))
    if what != "none":
        file.write_text(text)
        file.chmod(0o644 if what == "mode" else 0o600)
    expected = {
        "mode": "others may read (644)",
        "expired": "expired",
        "other name": NAME,
        "other key": "expected a certificate of the private key",
        "no key": "expected one private key",
        "no certificate": "expected the certificate of the key",
        "none": "No such file",
    }[what]
    assert expected in words(tls.certificate_file(file, DOMAIN), PROBLEM)


def test_what_a_port_serves(tmp_path: Path) -> None:
    with serving_tls(tmp_path, EXPIRED) as port:
        assert "expired" in words(tls.served(Address("127.0.0.1", port), DOMAIN), PROBLEM)
        chain = tls.served_chain("127.0.0.1", port)
        assert chain is not None
        assert chain.count(b"BEGIN CERTIFICATE") == 2
    assert list(tls.served(Address("127.0.0.1", port), DOMAIN)) == []


def test_the_servers_certificate(tmp_path: Path) -> None:
    # OpenSSL of today verifies no SHA-1: a server's certificate is of today.
    root = replace(ROOT, hash=hashes.SHA256())
    roots = tmp_path / "roots.pem"
    roots.write_text(pem(root))
    good = replace(LEAF, hash=hashes.SHA256())
    with serving_tls(tmp_path, good) as port:
        server = Address("localhost", port)
        assert "not accepted" in words(tls.server(server), PROBLEM)
        assert "its certificate is accepted" in words(tls.server(server, roots), OK)
        assert "no certificates" in words(tls.server(server, tmp_path / "none"), PROBLEM)
    with serving_tls(tmp_path, replace(EXPIRED, hash=hashes.SHA256())) as port:
        assert "expired" in words(tls.server(Address("localhost", port), roots), PROBLEM)


def test_a_server_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "WITHIN", 0.3)
    with serving(lambda _: [b""]) as server:
        (result,) = tls.server(Address("127.0.0.1", server.port))
        assert result.status == PROBLEM
    assert list(tls.server(Address("127.0.0.1", server.port))) == []
