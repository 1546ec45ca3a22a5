from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes

from tests.dissectors.certificates.building import Plan
from tests.phone_certificates import LEAF, NAME, NOW, ROOT, identity_file, key_pem, pem, server_context
from tests.servers import serving
from tools.deploy import Address
from tools.doctor import reach, tls
from tools.doctor.result import OK, PROBLEM, WARN, Result

DOMAIN = "contoso.com"
EXPIRED = replace(LEAF, not_after=NOW - timedelta(days=1))


@contextlib.contextmanager
def serving_tls(folder: Path, leaf: Plan = LEAF, newest: ssl.TLSVersion | None = None) -> Iterator[int]:
    context = server_context(folder / "served.pem", leaf)
    if newest is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = newest
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
        chain = tls.served_chain(Address("127.0.0.1", port))
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
        assert "not accepted" in words(tls.server(server, tls.Verifying()), PROBLEM)
        assert "its certificate is accepted" in words(tls.server(server, tls.Verifying(roots)), OK)
        assert "is not verified" in words(tls.server(server, tls.Verifying(insecure=True)), WARN)
    assert "no certificates" in words(tls.unusable(tls.Verifying(tmp_path / "none")), PROBLEM)
    assert list(tls.unusable(tls.Verifying(roots))) == []
    with serving_tls(tmp_path, replace(EXPIRED, hash=hashes.SHA256())) as port:
        assert "expired" in words(tls.server(Address("localhost", port), tls.Verifying(roots)), PROBLEM)


@pytest.mark.parametrize("old", ["signature", "version"])
def test_a_server_as_old_as_the_phones(old: str, tmp_path: Path) -> None:
    hashed: dict[str, Any] = {} if old == "signature" else {"hash": hashes.SHA256()}
    roots = tmp_path / "roots.pem"
    roots.write_text(pem(replace(ROOT, **hashed)))
    newest = ssl.TLSVersion.TLSv1 if old == "version" else None
    with serving_tls(tmp_path, replace(LEAF, **hashed), newest) as port:
        server = Address("localhost", port)
        (refused,) = tls.server(server, tls.Verifying(roots))
        assert refused.status == PROBLEM
        assert "--server-tls-oldest 1.0" in refused.advice
        (taken,) = tls.server(server, tls.Verifying(roots, oldest="1.0"))
        assert taken.status == OK


def test_a_file_for_todays_tls_is_none_for_windows_ce(tmp_path: Path) -> None:
    file = identity_file(tmp_path / "c.pem")
    assert "Windows CE speaks 1.0 at most" in words(tls.certificate_file(file, DOMAIN, "1.2"), WARN)
    assert "Windows CE" not in words(tls.certificate_file(file, DOMAIN, "1.0"), WARN)


def test_a_server_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "WITHIN", 0.3)
    with serving(lambda _: [b""]) as server:
        (result,) = tls.server(Address("127.0.0.1", server.port), tls.Verifying())
        assert result.status == PROBLEM
    assert list(tls.server(Address("127.0.0.1", server.port), tls.Verifying())) == []
