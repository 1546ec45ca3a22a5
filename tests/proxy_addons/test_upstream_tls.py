"""Our own questions to a server, and mitmproxy's, must be answered alike."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy import connection
from mitmproxy.addons import tlsconfig
from mitmproxy.proxy.context import Context
from mitmproxy.test import taddons
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from proxy_addons.upstream_tls import tls_context
from tests.servers import serving
from tools.deploy import Address
from tools.doctor.result import OK, PROBLEM
from tools.doctor.tls import Verifying
from tools.doctor.tls import server as judged_by_doctor

NAME = "localhost"
DAY = timedelta(days=1)
PEM = serialization.Encoding.PEM
USUAL = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs certificates and lists


class Authority:
    """A CA and what it issues."""

    def __init__(self, *extensions: x509.ExtensionType, issuer: Authority | None = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = "Middle" if issuer else "Root"
        basics = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = issued(self.name, self.key, issuer or self, basics, *extensions)


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def issued(
    name: str, key: ec.EllipticCurvePrivateKey, by: Authority, *extensions: x509.ExtensionType, until: timedelta = DAY
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder(named(by.name), named(name), key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - 9 * DAY)
        .not_valid_after(datetime.now(UTC) + until)
    )
    issuer_key = by.key.public_key()
    for one in (
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key),
        *extensions,
    ):
        builder = builder.add_extension(one, critical=isinstance(one, x509.BasicConstraints))
    return builder.sign(by.key, hashes.SHA256())


async def mitmproxy_takes(port: int, options: dict[str, str]) -> bool:
    """Whether mitmproxy's own handshake ends well."""
    with taddons.context(tlsconfig.TlsConfig()) as context, socket.create_connection(("127.0.0.1", port), 20) as plain:
        context.options.update(**options)
        client = connection.Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2), timestamp_start=0)
        data = TlsData(connection.Server(address=(NAME, port), sni=NAME), Context(client, context.options))
        context.master.addons.get("tlsconfig").tls_start_server(data)
        ours = data.ssl_conn
        assert isinstance(ours, SSL.Connection)
        while True:
            try:
                ours.do_handshake()
                return True
            except SSL.WantReadError:
                plain.sendall(ours.bio_read(1 << 20))
                ours.bio_write(plain.recv(1 << 16))
            except SSL.Error:
                return False


async def we_take(port: int, options: dict[str, str]) -> bool:
    """Whether what asks for files does."""
    with taddons.context(tlsconfig.TlsConfig()) as context:
        context.options.update(**options)
        ours = tls_context(context.options)
    with socket.create_connection(("127.0.0.1", port), 20) as plain:
        try:
            ours.wrap_socket(plain, server_hostname=NAME).close()
        except ssl.SSLCertVerificationError:
            return False
    return True


@pytest.mark.parametrize(
    ("what", "taken"),
    [
        ("usual", True),
        ("CA without key usage", True),  # as `openssl req -x509` makes it
        ("trusted without the root", False),
        ("name in the subject alone", False),
        ("another name", False),
        ("expired", False),
        ("not trusted", False),
    ],
)
def test_a_server_is_taken_by_all_or_by_none(what: str, taken: bool, tmp_path: Path) -> None:
    root = Authority() if what == "CA without key usage" else Authority(USUAL)
    middle = Authority(USUAL, issuer=root)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.SubjectAlternativeName([x509.DNSName("elsewhere" if what == "another name" else NAME)])
    names = () if what == "name in the subject alone" else (name,)
    leaf = issued(NAME, key, middle, *names, until=-DAY if what == "expired" else DAY)
    trusted = {"trusted without the root": middle, "not trusted": Authority(USUAL)}.get(what, root)
    (tmp_path / "ca.pem").write_bytes(trusted.certificate.public_bytes(PEM))
    unprotected = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain = [one.public_bytes(PEM) for one in (leaf, middle.certificate)]
    (tmp_path / "server.pem").write_bytes(b"".join((unprotected, *chain)))
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(tmp_path / "server.pem")
    options = {"ssl_verify_upstream_trusted_ca": str(tmp_path / "ca.pem")}
    with serving(lambda _: [b""], served) as server:
        assert asyncio.run(mitmproxy_takes(server.port, options)) is taken  # mitmproxy wants a loop to be there
        assert asyncio.run(we_take(server.port, options)) is taken
        (said,) = judged_by_doctor(Address(NAME, server.port), Verifying(tmp_path / "ca.pem"))
        assert said.status == (OK if taken else PROBLEM)
