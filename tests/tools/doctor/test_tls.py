from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from tests.servers import serving
from tools.deploy import Address
from tools.doctor import tls
from tools.doctor.result import OK, PROBLEM, Result

DOMAIN = "contoso.com"
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A CA of the time: SHA-1 where it may be, and whatever names are asked for."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.certificate = self.issue("Test CA", self.key, "Test CA", ca=True)

    @property
    def pem(self) -> bytes:
        return pem(self.certificate)

    def issue(
        self, subject: str, key: rsa.RSAPrivateKey, *names: str, ca: bool = False, until: datetime = NOW + 300 * DAY
    ) -> x509.Certificate:
        alternative: list[x509.GeneralName] = [x509.DNSName(one) for one in names]
        alternative.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        built = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("Test CA"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - 400 * DAY)
            .not_valid_after(until)
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            built = built.add_extension(usage, critical=True)
        else:
            built = built.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        built = built.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return built.add_extension(identifier, critical=False).sign(self.key, hashes.SHA256())

    def file(self, path: Path, *names: str, until: datetime = NOW + 300 * DAY, mode: int = 0o600) -> Path:
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        leaf = self.issue(names[0], key, *names, until=until)
        path.write_bytes(pem(key) + pem(leaf) + pem(self.certificate))
        path.chmod(mode)
        return path


def pem(what: rsa.RSAPrivateKey | x509.Certificate) -> bytes:
    if isinstance(what, x509.Certificate):
        return what.public_bytes(serialization.Encoding.PEM)
    form = serialization.PrivateFormat.PKCS8
    return what.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@contextlib.contextmanager
def serving_tls(file: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
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


def test_a_file_that_is_fit(authority: Authority, tmp_path: Path) -> None:
    file = authority.file(tmp_path / "c.pem", f"ucupdates-r2.{DOMAIN}")
    results = list(tls.certificate_file(file, DOMAIN))
    assert "belongs to the first certificate" in words(iter(results), OK)
    # This CA signs with SHA-2, which the phones' old firmware does not take: that is said, and nothing else.
    problems = [result.found for result in results if result.status == PROBLEM]
    assert problems
    assert all("SHA" in found for found in problems)


@pytest.mark.parametrize("what", ["mode", "expired", "other name", "other key", "no key", "no certificate", "none"])
def test_files_that_are_not(what: str, authority: Authority, tmp_path: Path) -> None:
    file = tmp_path / "c.pem"
    own = f"ucupdates-r2.{DOMAIN}"
    expected = {
        "mode": "others may read (644)",
        "expired": "expired",
        "other name": own,
        "other key": "does not belong to the first certificate",
        "no key": "holds no private key",
        "no certificate": "holds no certificate",
        "none": "cannot be read",
    }[what]
    if what == "mode":
        authority.file(file, own, mode=0o644)
    elif what == "expired":
        authority.file(file, own, until=NOW - DAY)
    elif what != "none":
        authority.file(file, "www.contoso.com" if what == "other name" else own)
    data = file.read_bytes() if file.exists() else b""
    if what == "other key":
        file.write_bytes(
            pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))
            + data.split(b"-----END PRIVATE KEY-----\n")[1]
        )
    elif what == "no key":
        file.write_bytes(pem(authority.certificate))
    elif what == "no certificate":
        file.write_bytes(b"nothing")
    assert expected in words(tls.certificate_file(file, DOMAIN), PROBLEM)


def test_what_a_port_serves(authority: Authority, tmp_path: Path) -> None:
    file = authority.file(tmp_path / "c.pem", f"ucupdates-r2.{DOMAIN}", until=NOW - DAY)
    with serving_tls(file) as port:
        assert "expired" in words(tls.served(Address("127.0.0.1", port), DOMAIN), PROBLEM)
        chain = tls.served_chain("127.0.0.1", port)
        assert chain is not None
        assert chain.count(b"BEGIN CERTIFICATE") == 2
    assert list(tls.served(Address("127.0.0.1", port), DOMAIN)) == []


def test_the_servers_certificate(authority: Authority, tmp_path: Path) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(pem(authority.certificate))
    good = authority.file(tmp_path / "good.pem", "dus.contoso.com")
    old = authority.file(tmp_path / "old.pem", "dus.contoso.com", until=NOW - DAY)
    with serving_tls(good) as port:
        assert "not accepted" in words(tls.server(Address("127.0.0.1", port)), PROBLEM)
        assert "its certificate is accepted" in words(tls.server(Address("127.0.0.1", port), roots), OK)
        assert "no certificates" in words(tls.server(Address("127.0.0.1", port), tmp_path / "none"), PROBLEM)
    with serving_tls(old) as port:
        assert "expired" in words(tls.server(Address("127.0.0.1", port), roots), PROBLEM)


def test_a_server_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "WITHIN", 0.3)
    with serving(lambda _: [b""]) as server:
        (result,) = tls.server(Address("127.0.0.1", server.port))
        assert result.status == PROBLEM
    assert list(tls.server(Address("127.0.0.1", server.port))) == []
