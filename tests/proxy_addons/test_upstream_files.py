"""Files looked for on a real server: what it may answer, what is made of it, and that nobody waits."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mitmproxy.addons import tlsconfig
from mitmproxy.test import taddons

from dissectors.version import Version
from proxy_addons import upstream_files
from proxy_addons.packages import PackageFiles, files_of, files_of_rules
from proxy_addons.rules import Rules
from proxy_addons.upstream_files import AGAIN, EXPIRED, FRESH, MAX_PACKAGES, Origin, UpstreamFiles
from proxy_addons.upstream_tls import tls_context
from tests.bodies import OFFER_NEXT, REPORT_ZERO, RULES
from tests.servers import Received, Server, serving

FILES = PackageFiles("/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.103/CPE", "CPE.nbt", "CPE.cat")
GOOD = {"CPE.nbt": 30 << 20, "CPE.cat": 9000}


def answer(status: str, *headers: str) -> list[bytes]:
    return ["\r\n".join((f"HTTP/1.1 {status}", *headers, "", "")).encode(), b""]


def having(sizes: dict[str, int]) -> Callable[[Received], Iterable[bytes]]:
    """A server that has files of these sizes."""

    def reply(request: Received) -> Iterable[bytes]:
        assert request.method == "HEAD"
        size = sizes.get(request.target.rpartition("/")[2])
        return answer("404 Not Found") if size is None else answer("200 OK", f"Content-Length: {size}")

    return reply


def everyone(_host: str, _port: int) -> bool:
    return True


def looked(reply: Callable[[Received], Iterable[bytes]], files: PackageFiles = FILES) -> tuple[str | None, Server]:
    with serving(reply) as server:
        found = asyncio.run(UpstreamFiles(everyone).look(Origin("http", "127.0.0.1", server.port), files))
        return found, server


def test_an_image_with_its_catalog() -> None:
    found, server = looked(having(GOOD))
    assert found is None
    assert [request.target for request in server.received] == [f"{FILES.folder}/CPE.nbt", f"{FILES.folder}/CPE.cat"]
    assert f"Host: 127.0.0.1:{server.port}\r\n".encode() in server.received[0].head


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"CPE.cat": 9000}, "CPE.nbt: the server answers 404"),
        ({"CPE.nbt": 30 << 20}, "CPE.cat: the server answers 404"),
        ({**GOOD, "CPE.nbt": 1200}, "CPE.nbt: 1200 bytes, expected 65536 to"),
        ({**GOOD, "CPE.nbt": 5 << 30}, "CPE.nbt: 5368709120 bytes"),
        ({**GOOD, "CPE.cat": 0}, "CPE.cat: 0 bytes, expected 100 to"),
    ],
)
def test_files_that_are_missing_or_have_no_plausible_size(sizes: dict[str, int], complaint: str) -> None:
    found, _ = looked(having(sizes))
    assert complaint in (found or "")


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (answer("503 Service Unavailable"), "the server answers 503"),
        (answer("302 Found", "Location: http://elsewhere/"), "the server answers 302"),
        (answer("401 Unauthorized", "WWW-Authenticate: NTLM"), "cannot be seen without a logon"),
        (answer("200 OK", "Content-Length: 700000", "Content-Type: text/html; charset=utf-8"), "page (text/html)"),
        (answer("200 OK", "Transfer-Encoding: chunked"), "tells no size"),
        (answer("200 OK", "Content-Length: many"), "tells no size"),
        ([b"SSH-2.0-OpenSSH\r\n\r\n", b""], "status line"),
        ([b"HTTP/1.1 200 OK\r\nContent-Le", b""], "bytes"),
        ([b"x" * 3_000_000, b""], ""),
        ([b""], ""),
    ],
)
def test_answers_that_are_none_of_a_file(reply: list[bytes], complaint: str) -> None:
    found, _ = looked(lambda _: reply)
    assert found is not None
    assert complaint in found


def test_a_server_that_refuses_head_is_asked_for_one_byte() -> None:
    def reply(request: Received) -> Iterable[bytes]:
        if request.method == "HEAD":
            return answer("405 Method Not Allowed", "Allow: GET")
        assert b"\r\nRange: bytes=0-0\r\n" in request.head
        size = GOOD[request.target.rpartition("/")[2]]
        if request.target.endswith(".cat"):  # this one knows no ranges: its body is not read
            return [*answer("200 OK", f"Content-Length: {size}")[:1], b"x" * 100, b""]
        return [*answer("206 Partial Content", f"Content-Range: bytes 0-0/{size}", "Content-Length: 1")[:1], b"x", b""]

    found, server = looked(reply)
    assert found is None
    assert [request.method for request in server.received] == ["HEAD", "GET", "HEAD", "GET"]
    found, _ = looked(lambda request: answer("405 No" if request.method == "HEAD" else "200 OK", "Content-Length: 5"))
    assert "5 bytes" in (found or "")


def test_an_interim_answer_is_not_the_answer() -> None:
    def reply(request: Received) -> Iterable[bytes]:
        return [b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n", *having(GOOD)(request)]

    assert looked(reply)[0] is None


def test_a_server_that_hangs_or_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream_files, "WITHIN", 0.2)
    let_go = threading.Event()

    def hang(_: Received) -> Iterable[bytes]:
        let_go.wait(20)
        return [b""]

    found, _ = looked(hang)
    let_go.set()
    assert "no answer within 0.2 s" in (found or "")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = asyncio.run(UpstreamFiles(everyone).look(Origin("http", "127.0.0.1", port), FILES))
    assert (found or "").endswith("CPE.nbt: Connection refused")


def test_nobody_but_the_configured_upstream_is_asked() -> None:
    with serving(having(GOOD)) as server:
        files = UpstreamFiles(lambda host, port: (host, port) == ("127.0.0.1", 1))
        found = asyncio.run(files.look(Origin("http", "127.0.0.1", server.port), FILES))
        assert "is not a configured upstream" in (found or "")
        assert server.connections == 0


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "updates")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, path = serialization.Encoding.PEM, folder / "server.pem"
    unprotected = serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unprotected) + certificate.public_bytes(pem)
    )
    return path


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({}, "CERTIFICATE_VERIFY_FAILED"),
        ({"ssl_verify_upstream_trusted_ca": True}, None),
        ({"ssl_insecure": True, "tls_version_server_min": "TLS1"}, None),
    ],
)
def test_a_server_is_verified_as_mitmproxy_would(
    settings: dict[str, Any], complaint: str | None, tmp_path: Path
) -> None:
    pem = self_signed(tmp_path)
    serving_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving_tls.load_cert_chain(pem)

    async def look(port: int) -> str | None:
        with taddons.context(tlsconfig.TlsConfig()) as context:
            named = {name: str(pem) if name.endswith("_ca") else value for name, value in settings.items()}
            context.options.update(**named)
            files = UpstreamFiles(everyone, lambda: tls_context(context.options))
            return await files.look(Origin("https", "127.0.0.1", port), FILES)

    with serving(having(GOOD), serving_tls) as server:
        found = asyncio.run(look(server.port))
    assert found is None if complaint is None else complaint in (found or "")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


def test_what_is_not_known_yet_is_asked_in_the_background_and_grows_old() -> None:
    clock = Clock()
    sizes: dict[str, int] = {}

    async def story(server: Server) -> None:
        files = UpstreamFiles(everyone, clock=clock)
        origin = Origin("http", "127.0.0.1", server.port)
        assert "not known yet" in (files.reason(origin, FILES) or "")
        assert files.counts() == {"there": 0, "not there": 0, "not known": 1}
        await until(lambda: "404" in (files.reason(origin, FILES) or ""))
        asked = len(server.received)
        files.refresh()
        clock.now += AGAIN - 1
        files.refresh()
        assert files.counts()["not there"] == 1
        sizes.update(GOOD)
        clock.now += 2
        files.refresh()
        await until(lambda: files.reason(origin, FILES) is None)
        assert len(server.received) == asked + 2
        sizes.clear()
        clock.now += FRESH - 1
        files.refresh()
        assert files.reason(origin, FILES) is None
        clock.now += EXPIRED - FRESH + 1
        assert "not known any more" in (files.reason(origin, FILES) or "")
        files.refresh()
        await until(lambda: "404" in (files.reason(origin, FILES) or ""))
        clock.now += upstream_files.WANTED_FOR + 1
        files.refresh()
        assert files.counts() == {"there": 0, "not there": 0, "not known": 0}
        files.close()

    with serving(having(sizes)) as server:
        asyncio.run(story(server))


def test_what_rules_name_is_asked_for_before_a_phone_comes() -> None:
    clock = Clock()
    rules = Rules.parse(OFFER_NEXT.replace("check_files = false", "").encode()).rules

    async def story(server: Server) -> None:
        files = UpstreamFiles(everyone, clock=clock)
        origin = Origin("http", "127.0.0.1", server.port)
        files.expect((origin, wanted) for wanted in files_of_rules(rules))
        await until(lambda: files.counts()["there"] == 2)
        assert files.reason(origin, FILES) is None
        clock.now += upstream_files.WANTED_FOR + 1
        files.refresh()
        await until(lambda: files.counts()["there"] == 2)
        files.expect([])
        clock.now += upstream_files.WANTED_FOR + 1
        files.refresh()
        assert sum(files.counts().values()) == 0

    with serving(having(GOOD)) as server:
        asyncio.run(story(server))


def test_there_is_a_bound_to_it() -> None:
    async def story() -> None:
        files = UpstreamFiles(lambda _host, _port: False)
        origin = Origin("http", "127.0.0.1", 1)
        for number in range(MAX_PACKAGES):
            files.reason(origin, replace(FILES, folder=f"/{number}"))
        assert "too many" in (files.reason(origin, FILES) or "")
        files.close()

    asyncio.run(story())


def test_where_the_files_of_a_rule_are() -> None:
    version = Version(1, 0, 522, 103)

    def files(text: str, *, external: bool = False) -> PackageFiles | None:
        return files_of(Rules.parse(text.encode()).rules[0], version, external=external)

    assert files(OFFER_NEXT) == FILES == files(REPORT_ZERO)
    assert files(OFFER_NEXT, external=True) == replace(FILES, folder=FILES.folder.replace("_Int", "_Ext"))
    named = 'then.offer = { version = "next", base_url = "http://pool/Request Handler/Files/x/", file = "i m.nbt" }\n'
    found = files(RULES + named)
    assert found is not None
    assert [target for target, _ in found.targets()] == [
        "/Request%20Handler/Files/x/i%20m.nbt",
        "/Request%20Handler/Files/x/i%20m.cat",
    ]
    observing = RULES + "then.observe = true\n"
    assert list(files_of_rules(Rules.parse(observing.encode()).rules)) == []
    assert list(files_of_rules(Rules.parse(OFFER_NEXT.encode()).rules)) == []
