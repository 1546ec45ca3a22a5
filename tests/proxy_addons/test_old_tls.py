"""TLS with phones of 2008, by real handshakes; where OpenSSL has given up on them, by hellos byte for byte."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from mitmproxy.tls import ClientHello

from proxy_addons.hello import Offered, is_sslv2, is_tls, may_become_tls
from proxy_addons.phone_identity import IdentityError, load_identity
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.conftest import ROOT as PROJECT
from tests.faults.raw import check_request, connect, until
from tests.faults.test_own_faults import recorded
from tests.phone_certificates import LEAF, NAME, NOW, ROOT, YEAR, identity_file, key_pem, pem, server_context
from tests.proxies import Proxy, running
from tests.proxy_addons.test_launcher import admin_port, get
from tests.proxy_addons.test_metrics import samples
from tests.servers import Received, Server, message, serving
from tests.sslv2_phone import AES, SslV2Phone, sslv2_hello
from tools.errors import UnusableInput
from tools.proxy import readable

RC4, TRIPLE_DES = 0x0005, 0x000A
KEPT_CHECK = check_request().replace(b"Connection: close\r\n", b"")
HEAD = 5 + 4  # of a record and of a handshake message


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml")


def client_hello(*suites: int, version: int = 0x0301) -> bytes:
    """A hello without extensions, as Windows CE sends it."""
    offered = b"".join(struct.pack("!H", one) for one in suites)
    body = struct.pack("!H", version) + bytes(32) + b"\0" + struct.pack("!H", len(offered)) + offered + b"\1\0"
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16" + struct.pack("!HH", version, len(message)) + message


def client(version: ssl.TLSVersion, ciphers: str = "AES128-SHA:@SECLEVEL=0") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(ciphers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


def shown(port: int, context: ssl.SSLContext, name: str | None = None) -> x509.Certificate:
    """The certificate a phone is shown."""
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return x509.load_der_x509_certificate(found)


def check(port: int, context: ssl.SSLContext | None = None) -> tuple[int, bytes]:
    made = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        if context is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=20, context=context)
    )
    with closing(made) as connection:
        connection.request("POST", CHECK_TARGET, check_body())
        response = connection.getresponse()
        return response.status, response.read()


def said(port: int, data: bytes) -> bytes:
    """What comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.sendall(data)
        try:
            return b"".join(iter(lambda: connection.recv(65536), b""))
        except ConnectionError:
            return b""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(update_server) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def proxy(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """It serves what Windows CE speaks, and plain HTTP on the same port."""
    folder = tmp_path_factory.mktemp("old")
    rules = folder / "rules.toml"
    rules.write_text(REPORT_ZERO)
    certs = identity_file(folder / "phones.pem", replace(LEAF, bits=1024))
    options = {"rules": rules, "certs": certs, "tls_oldest": "1.0", "record": folder / "rec"}
    with running("upshim", server.url, folder / "state", **options) as running_proxy:
        yield running_proxy


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2])
def test_a_check_in_tls_of_its_time_is_rewritten(version: ssl.TLSVersion, proxy: Proxy, server: Server) -> None:
    assert check(proxy.port, client(version)) == (200, answer_body())
    assert b'Version="0.0.0.0"' in server.received[-1].body
    certificate = shown(proxy.port, client(version))
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA1)
    assert certificate.public_key().key_size == 1024  # type: ignore[union-attr]


def test_others_on_the_same_port(proxy: Proxy) -> None:
    assert check(proxy.port) == (200, answer_body())
    assert check(proxy.port, client(ssl.TLSVersion.TLSv1_3)) == (200, answer_body())
    assert check(proxy.port, client(ssl.TLSVersion.TLSv1, "ECDHE-RSA-AES256-SHA:@SECLEVEL=0")) == (200, answer_body())


def test_the_very_hello_of_windows_ce_is_answered(proxy: Proxy) -> None:
    hello = client_hello(RC4, TRIPLE_DES, AES)
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for position, one in enumerate(hello):
            connection.sendall(bytes([one]))
            if position < HEAD:
                time.sleep(0.01)  # so that the proxy reads it by itself
        with connection.makefile("rb") as stream:
            answer = stream.read(HEAD + 2 + 32 + 1)
            chosen = stream.read(answer[-1] + 2)[-2:]  # after the session's identity
    assert answer[:3] == b"\x16\3\1"
    assert chosen == struct.pack("!H", AES)


@pytest.mark.parametrize("pieces", [1, 28])
def test_a_hello_in_the_framing_of_ssl_2_is_served(proxy: Proxy, server: Server, pieces: int) -> None:
    with closing(SslV2Phone(connect(proxy.port), pieces)) as phone:
        for _ in range(2):
            assert phone.ask(KEPT_CHECK, answer_body()).startswith(b"HTTP/1.1 200 ")
            assert b'Version="0.0.0.0"' in server.received[-1].body
    assert isinstance(phone.certificate.signature_hash_algorithm, hashes.SHA1)


def test_and_goes_on_to_a_server_that_speaks_tls(tmp_path: Path) -> None:
    certs = identity_file(tmp_path / "phones.pem")
    options = {"certs": certs, "tls_oldest": "1.0", "server_insecure": True, "record": tmp_path / "rec"}
    with serving(update_server, server_context(tmp_path / "server.pem")) as server:
        url = f"https://localhost:{server.port}"
        with (
            running("upshim", url, tmp_path / "s", **options) as proxy,
            closing(SslV2Phone(connect(proxy.port))) as phone,
        ):
            assert phone.ask(KEPT_CHECK, answer_body()).startswith(b"HTTP/1.1 200 ")
            assert proxy.stop() == 0
    (exchange,) = recorded(tmp_path / "rec")
    assert exchange.complete


def test_what_a_hello_in_the_framing_of_ssl_2_offers() -> None:
    hello = sslv2_hello(RC4, 0x010080, AES)
    assert Offered.of_sslv2(hello) == Offered("TLS 1.0", (RC4, AES))
    assert Offered.of_sslv2(hello[:5] + b"\xff\xff" + hello[7:]).newest == "TLS 1.0"  # a length that lies
    assert Offered.of(ClientHello(client_hello(RC4, AES)[9:])) == Offered("TLS 1.0", (RC4, AES))


def test_what_may_become_tls_is_waited_for() -> None:
    for hello in (sslv2_hello(AES), client_hello(RC4)):
        sizes = [size for size in range(1, 6) if not may_become_tls(hello[:size])]
        assert all(is_sslv2(hello[:size]) or is_tls(hello[:size]) for size in sizes), sizes
        assert 5 in sizes
    for other in (b"", b"G", b"GET /", b"\x80\x2e\2", b"\x16\4", b"\xff\xff\xff"):
        assert not may_become_tls(other), other


def test_it_says_what_works_and_what_cannot(proxy: Proxy) -> None:
    until(lambda: b"TLS with phones from version 1.0 on" in proxy.log)
    line = next(line for line in proxy.log.splitlines() if b"TLS with phones" in line)
    assert b"; not SSL 3.0 or 2, nor RC4, 3DES (`upshim deploy lighttpd` prints a terminator that can)" in line
    assert b"CN=Pool" in proxy.log
    assert b"RSA 1024, signed with sha1, until " in proxy.log


UNSERVABLE = (
    (client_hello(TRIPLE_DES), b"no cipher in common with a phone", b"TLS 1.0, 3DES-CBC-SHA: `upshim deploy lighttpd`"),
    (client_hello(RC4, 4), b"no cipher in common with a phone", b""),
    (client_hello(AES, version=0x0300), b"a hello of SSL 3.0 cannot be served", b"nothing of today"),
    (sslv2_hello(AES, version=0x0300), b"a hello of SSL 3.0 cannot be served", b"nothing of today"),
    (sslv2_hello(0x010080, version=0x0002), b"a hello of SSL 2 cannot be served", b"nothing of today"),
    (sslv2_hello(RC4, 0x010080, TRIPLE_DES), b"no cipher in common with a phone", b""),
)


def test_what_cannot_be_served_is_counted_and_told_once(proxy: Proxy) -> None:
    for hello, cause, detail in UNSERVABLE * 2:
        # An alert, or nothing: the connection ends either way. What SSL 2 has said is no line of HTTP.
        answer = said(proxy.port, hello + b"\r\n\r\n")
        assert answer[:1] in {b"", b"\x15", b"H"}, answer
        until(lambda cause=cause: cause in proxy.log)  # type: ignore[misc]
        assert detail in proxy.log
    for cause in {cause for _, cause, _ in UNSERVABLE}:
        assert proxy.log.count(cause) == 1
    assert b"handshake failed" not in proxy.log
    assert check(proxy.port, client(ssl.TLSVersion.TLSv1)) == (200, answer_body())


def test_old_versions_only_where_asked_for(server: Server, tmp_path: Path) -> None:
    certs = identity_file(tmp_path / "phones.pem")
    with running("upshim", server.url, tmp_path / "s", certs=certs) as proxy:
        with pytest.raises(OSError, match=r"."):
            shown(proxy.port, client(ssl.TLSVersion.TLSv1))
        until(lambda: b"a hello of TLS 1.0 is not served" in proxy.log)
        assert b"--tls-oldest 1.0 would" in proxy.log
        assert check(proxy.port, client(ssl.TLSVersion.TLSv1_2)) == (200, answer_body())


class Recorder:
    """Takes what comes, byte for byte, and answers in kind."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.came = b""
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                self.came = connection.recv(65536)
                connection.sendall(b"\x15\3\1\0\2\2\x28")


def test_what_we_cannot_serve_the_server_may(tmp_path: Path) -> None:
    recorder = Recorder()
    certs = identity_file(tmp_path / "phones.pem")
    try:
        url = f"https://127.0.0.1:{recorder.port}"
        with running("upshim", url, tmp_path / "s", certs=certs, tls_oldest="1.0") as proxy:
            for hello in (client_hello(TRIPLE_DES), client_hello(RC4), sslv2_hello(RC4)):
                assert said(proxy.port, hello) == b"\x15\3\1\0\2\2\x28"
                assert recorder.came == hello
    finally:
        recorder.listener.close()


def test_without_a_certificate_tls_passes_unseen(tmp_path: Path) -> None:
    context = server_context(tmp_path / "server.pem")
    with serving(update_server, context) as server:
        url = f"https://127.0.0.1:{server.port}"
        with running("upshim", url, tmp_path / "s", record=tmp_path / "rec") as proxy:
            assert check(proxy.port, client(ssl.TLSVersion.TLSv1_2)) == (200, answer_body())
            until(lambda: b"TLS passed on unseen" in proxy.log)


def test_a_name_that_is_not_ours_passes_unseen(tmp_path: Path) -> None:
    context = server_context(tmp_path / "server.pem", replace(LEAF, dns_names=("other.contoso.com",)))
    certs = identity_file(tmp_path / "phones.pem", replace(LEAF, dns_names=("*.phones.contoso.com", NAME)))
    with serving(update_server, context) as server:
        url = f"https://127.0.0.1:{server.port}"
        with running("upshim", url, tmp_path / "s", certs=certs) as proxy:
            for name, expected in (("other.contoso.com", False), (NAME, True), ("a.phones.contoso.com", True)):
                names = load_identity(certs).names()
                found = shown(proxy.port, client(ssl.TLSVersion.TLSv1_2), name)
                extension = found.extensions.get_extension_for_class(x509.SubjectAlternativeName)
                assert (set(extension.value.get_values_for_type(x509.DNSName)) <= names) is expected, name


def test_the_server_is_verified_as_asked(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(pem(ROOT))
    with serving(update_server, server_context(tmp_path / "s.pem", replace(LEAF, hash=hashes.SHA256()))) as server:
        url = f"https://localhost:{server.port}"
        for options, status in (({}, 502), ({"server_ca": tmp_path / "ca.pem"}, 200)):
            with running("upshim", url, tmp_path / "s", **options) as proxy:
                assert check(proxy.port)[0] == status
                if status != 200:
                    until(lambda log=proxy: b"TLS with the server failed" in log.log)  # type: ignore[misc]
                else:
                    assert b"TLS with the server failed" not in proxy.log


def test_a_server_of_the_same_age(tmp_path: Path) -> None:
    context = server_context(tmp_path / "server.pem")
    (tmp_path / "ca.pem").write_text(pem(ROOT))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1
    with serving(update_server, context) as server:
        url = f"https://localhost:{server.port}"
        options = {"server_ca": tmp_path / "ca.pem", "server_tls_oldest": "1.0"}
        with running("upshim", url, tmp_path / "s", **options) as proxy:
            assert check(proxy.port) == (200, answer_body())


def test_a_new_certificate_without_a_restart(server: Server, tmp_path: Path) -> None:
    file = identity_file(tmp_path / "phones.pem")
    context = client(ssl.TLSVersion.TLSv1_2)
    with (
        running("upshim", server.url, tmp_path / "s", certs=file, admin="127.0.0.1:0") as place,
        socket.create_connection(("127.0.0.1", place.port), 20) as plain,
        context.wrap_socket(plain) as before,
    ):

        def accepted() -> float:
            return samples(get(admin_port(place), "/metrics")[1])["upshim_certificate_reload_successful", ()]

        def names() -> str:
            return shown(place.port, context).subject.rfc4514_string()

        assert "CN=Pool" in names()
        identity_file(tmp_path / "new.pem", replace(LEAF, name="Next")).rename(file)
        until(lambda: "CN=Next" in names())
        assert accepted() == 1
        file.write_text("nonsense")
        place.process.send_signal(signal.SIGHUP)
        until(lambda: b"the old certificate stays in force" in place.log)
        assert accepted() == 0
        assert "CN=Next" in names()
        file.unlink()
        until(lambda: b"No such file" in place.log)
        assert "CN=Next" in names()
        identity_file(file, replace(LEAF, name="Third"))
        place.process.send_signal(signal.SIGHUP)
        until(lambda: "CN=Third" in names())
        assert accepted() == 1
        before.sendall(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")  # who was connected still is
        assert before.recv(12) == b"HTTP/1.1 200"


BROKEN = {
    "No such file": None,
    "expected one private key (PEM), found none": pem(LEAF),
    "expected the certificate of the key (PEM), found none": key_pem(LEAF),
    "those of other keys": key_pem(LEAF) + pem(ROOT),
    "expected a key without passphrase": key_pem(LEAF, b"secret") + pem(LEAF),
    "expected a certificate, found what is none": key_pem(LEAF)
    + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    "found 2 of them": key_pem(LEAF) + key_pem(ROOT) + pem(LEAF),
}


@pytest.mark.parametrize(("complaint", "text"), BROKEN.items())
def test_a_file_that_cannot_be_used(complaint: str, text: str | None, tmp_path: Path) -> None:
    file = tmp_path / "phones.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(IdentityError) as raised:
        load_identity(file)
    assert str(raised.value).startswith(f"{file}: ")
    assert complaint in str(raised.value)


def test_at_start_it_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "phones.pem").write_text(BROKEN["those of other keys"] or "")
    words = [sys.executable, "-m", "tools", "proxy", "--upstream", "http://127.0.0.1:9", "--state", str(tmp_path / "s")]
    words += ["--certs", str(tmp_path / "phones.pem")]
    ended = subprocess.run(words, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1, ended.stderr
    assert words[-1] in ended.stderr
    with pytest.raises(UnusableInput, match="none: No such file"):
        readable("--server-ca", tmp_path / "none")
    with pytest.raises(UnusableInput, match="expected certificates"):
        readable("--server-ca", PROJECT / "README.md")


def test_an_expired_one_is_served_and_told(server: Server, tmp_path: Path) -> None:
    file = identity_file(tmp_path / "phones.pem", replace(LEAF, not_after=NOW - YEAR))
    with running("upshim", server.url, tmp_path / "s", certs=file, admin="127.0.0.1:0") as proxy:
        assert check(proxy.port, client(ssl.TLSVersion.TLSv1_2)) == (200, answer_body())
        assert b"its certificate expired on " in proxy.log
        found = samples(get(admin_port(proxy), "/metrics")[1])
        assert found["upshim_certificate_expires_timestamp_seconds", ()] == int((NOW - YEAR).timestamp())


def test_what_will_not_work_for_phones(tmp_path: Path) -> None:
    assert load_identity(identity_file(tmp_path / "a.pem")).concerns(NOW) == []
    modern = load_identity(identity_file(tmp_path / "b.pem", replace(LEAF, hash=hashes.SHA256())))
    assert [one.partition(" is ")[2] for one in modern.concerns(NOW)] == [
        "signed with sha256: old phones know no SHA-2"
    ]
    alone = replace(LEAF, issuer=LEAF.name, hash=hashes.SHA256())
    (tmp_path / "alone.pem").write_text(key_pem(alone) + pem(alone))
    assert [one.partition(" is ")[2] for one in load_identity(tmp_path / "alone.pem").concerns(NOW)] == [
        "signed with sha256: old phones know no SHA-2"
    ]
    old = replace(ROOT, hash=hashes.SHA256())
    (tmp_path / "old.pem").write_text(key_pem(LEAF) + pem(LEAF) + pem(old))
    assert load_identity(tmp_path / "old.pem").concerns(NOW) == []  # nobody checks how a root is signed
    (tmp_path / "c.pem").write_text(pem(replace(ROOT, name="Other", issuer="Other")) + pem(LEAF) + key_pem(LEAF))
    assert "is not issued by the certificate after it" in load_identity(tmp_path / "c.pem").concerns(NOW)[0]
    soon = load_identity(identity_file(tmp_path / "d.pem", replace(LEAF, not_after=NOW + YEAR / 30)))
    assert soon.concerns(NOW)[0].startswith("its certificate expires on ")
    assert soon.concerns(NOW - 20 * YEAR)[0].startswith("its certificate is not valid before ")


def test_openssl_s_client(proxy: Proxy) -> None:
    from tests.conftest import require_tool

    words = [require_tool("openssl"), "s_client", "-connect", f"127.0.0.1:{proxy.port}", "-tls1", "-cipher"]
    words += ["AES128-SHA:@SECLEVEL=0", "-showcerts"]
    ended = subprocess.run(words, input=b"", capture_output=True, timeout=60, check=False)
    text = ended.stdout.decode()
    assert ended.returncode == 0, ended.stderr
    assert "Cipher is AES128-SHA" in text or "Cipher    : AES128-SHA" in text
    assert text.count("BEGIN CERTIFICATE") >= 2  # the chain is sent


def test_a_login_in_old_tls_on_both_sides(tmp_path: Path) -> None:
    """As phones outside ask: `/RequestHandlerExt/`, a connection that NTLM authenticates, within TLS."""
    from tests.conftest import require_tool
    from tests.ntlm import PASSWORD, USER, NtlmServer, accounts

    rules, body, certs = tmp_path / "rules.toml", tmp_path / "check.xml", identity_file(tmp_path / "phones.pem")
    rules.write_text(REPORT_ZERO)
    body.write_bytes(check_body())
    words = [require_tool("curl"), "-s", "-k", "--tlsv1.0", "--tls-max", "1.0", "--ciphers", "AES128-SHA:@SECLEVEL=0"]
    words += ["--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %{num_connects}", "--data-binary", f"@{body}"]
    with accounts(tmp_path):
        demanding = NtlmServer(answer_body())
        with serving(demanding, server_context(tmp_path / "server.pem")) as server:
            options = {"certs": certs, "tls_oldest": "1.0", "server_insecure": True, "rules": rules}
            with running("upshim", f"https://127.0.0.1:{server.port}", tmp_path / "s", **options) as proxy:
                url = f"https://127.0.0.1:{proxy.port}/RequestHandlerExt/ucdevice.upx"
                for login, expected in ((["--ntlm", "-u", f"{USER}:{PASSWORD}"], "200 1"), ([], "401 1")):
                    ended = subprocess.run(
                        [*words, *login, url], capture_output=True, text=True, timeout=60, check=False
                    )
                    assert ended.stdout == expected
    assert demanding.logins == [USER]
    assert [one.connection for one in server.received] == [1, 1, 2]
    assert b'Version="0.0.0.0"' in server.received[1].body
