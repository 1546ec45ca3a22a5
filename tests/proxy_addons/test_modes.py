"""Modes in a network of their own, phone - router with upshim - server, by the text that `upshim deploy` prints."""

from __future__ import annotations

import http.client
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from captures.store import Store
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.conftest import ROOT, require_tool
from tests.faults.raw import check_request, until
from tests.namespaces import PHONE, ROUTER, SERVERS, Network, network
from tests.phone_certificates import LEAF, NAME, identity_file, server_context
from tests.proxies import Proxy, running, started
from tests.proxy_addons.test_old_tls import client
from tests.servers import Received, Server, message, serving
from tests.sslv2_phone import SslV2Phone

FIRMWARE = bytes(range(256)) * 2048
FIRST, RAW, SIXTH = SERVERS
PORT = 8080
UPSTREAMS = [f"http://{FIRST}", f"https://{FIRST}", f"http://{RAW}", f"https://{RAW}", f"http://[{SIXTH}]"]


def update_server(request: Received) -> Iterator[bytes]:
    yield message(answer_body(), "Content-Type: text/xml") if request.method == "POST" else message(FIRMWARE)


@contextmanager
def echoing(address: tuple[str, int], tls: ssl.SSLContext | None = None) -> Iterator[list[str]]:
    """Gives back what it gets, of whatever kind; tells who has connected."""
    peers: list[str] = []
    listener = socket.create_server(address)

    def echo(plain: socket.socket) -> None:
        with plain, suppress(OSError), tls.wrap_socket(plain, server_side=True) if tls else plain as connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def accept() -> None:
        while True:
            try:
                connection, (peer, _) = listener.accept()
            except OSError:
                return
            peers.append(peer)
            threading.Thread(target=echo, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield peers
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


class Place:
    """What is running in the three namespaces."""

    def __init__(self, net: Network, stack: ExitStack, folder: Path) -> None:
        self.net, self.folder = net, folder
        leaf = replace(LEAF, dns_names=("other.contoso.com",))
        tls = server_context(folder / "server.pem", leaf)
        with net.inside("server"):
            self.first = stack.enter_context(serving(update_server, address=(FIRST, 80)))
            self.secure = stack.enter_context(serving(update_server, tls, (FIRST, 443)))
            self.aside = stack.enter_context(serving(update_server, address=(FIRST, 8000)))
            self.sixth = stack.enter_context(serving(update_server, address=(SIXTH, 80)))
            self.raw_peers = stack.enter_context(echoing((RAW, 80)))
            stack.enter_context(echoing((RAW, 443), tls))

    def from_phone(self, host: str, port: int) -> socket.socket:
        with self.net.inside("phone"):
            return socket.create_connection((host, port), 20)

    def http(self, host: str, port: int = 80, tls: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        made = http.client.HTTPConnection(host, port, timeout=20)
        plain = self.from_phone(host, port)
        made.sock = plain if tls is None else tls.wrap_socket(plain)
        return made

    def check(self, host: str, port: int = 80, tls: ssl.SSLContext | None = None) -> tuple[int, bytes]:
        with closing(self.http(host, port, tls)) as connection:
            connection.request("POST", CHECK_TARGET, check_body(), {"Host": "ucupdates-r2.contoso.com"})
            response = connection.getresponse()
            return response.status, response.read()


def zeroed(server: Server) -> bool:
    """Whether the last check that came there was rewritten."""
    return b'Version="0.0.0.0"' in server.received[-1].body


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("modes")
    (folder / "rules.toml").write_text(REPORT_ZERO)
    with network() as net, ExitStack() as stack:
        yield Place(net, stack, folder)


@pytest.fixture(scope="module")
def table(place: Place) -> Path:
    """The very text that is printed."""
    words = [sys.executable, "-m", "tools", "deploy", "nftables", "--shim", f"127.0.0.1:{PORT}"]
    for one in UPSTREAMS:
        words += ["--upstream", one]
    printed = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    file = place.folder / "upshim.nft"
    file.write_text(printed.stdout)
    return file


@pytest.fixture(scope="module")
def router(place: Place, table: Path) -> Iterator[Proxy]:
    """upshim in transparent mode, its table loaded."""
    options: dict[str, object] = {
        "mode": "transparent",
        "upstream": UPSTREAMS[1:],
        "listen": [f"0.0.0.0:{PORT}", f"[::]:{PORT}"],
        "rules": place.folder / "rules.toml",
        "record": place.folder / "rec",
        "certs": identity_file(place.folder / "phones.pem"),
        "tls_oldest": "1.0",
        "server_insecure": True,
    }
    with ExitStack() as stack:
        with place.net.inside("router"):
            proxy = stack.enter_context(running("upshim", UPSTREAMS[0], place.folder / "s", **options))
        place.net.become_router(table.read_text())
        yield proxy


@pytest.mark.parametrize("host", [FIRST, SIXTH])
def test_checks_are_rewritten_on_their_way(host: str, place: Place, router: Proxy) -> None:
    server = place.first if host == FIRST else place.sixth
    assert place.check(host) == (200, answer_body())
    assert zeroed(server)
    assert b"Host: ucupdates-r2.contoso.com\r\n" in server.received[-1].head

    def recorded() -> set[str]:
        with closing(Store.open(place.folder / "rec")) as store:
            return {told.server for told in store.exchanges()}

    shown = f"[{host}]:80" if ":" in host else f"{host}:80"
    until(lambda: shown in recorded())  # where the phone was going


def test_other_ports_are_not_seen(place: Place, router: Proxy) -> None:
    assert place.check(FIRST, 8000) == (200, answer_body())
    assert not zeroed(place.aside)


def test_other_paths_and_hosts_pass(place: Place, router: Proxy) -> None:
    with closing(place.http(FIRST)) as connection:
        for target, host in (("/DeviceUpdateFiles_Int/CPE.nbt", FIRST), ("/", "www.contoso.com")):
            connection.request("GET", target, headers={"Host": host, "X-Odd": "a"})
            assert connection.getresponse().read() == FIRMWARE
            came = place.first.received[-1]
            assert came.target == target
            assert f"\r\nHost: {host}\r\nX-Odd: a\r\n".encode() in came.head


@pytest.mark.parametrize(
    "pieces",
    [
        [b"\0\1\2binary"],
        [b"SSH-2.0-x\r\n"],
        [b"no method at all\r\n"[:2], b"x"],
        [b"\x16\3\1\xff\xffnonsense"],
        [b"\x16\3\1\0\x10\2nonsense"],
    ],
)
def test_what_is_not_http_passes_as_it_is(pieces: list[bytes], place: Place, router: Proxy) -> None:
    with place.from_phone(RAW, 80) as connection:
        for piece in pieces:
            connection.sendall(piece)
            got = b""
            while len(got) < len(piece):
                more = connection.recv(100)
                assert more
                got += more
            assert got == piece


def test_a_method_in_two_pieces_is_one(place: Place, router: Proxy) -> None:
    body = check_body()
    head = f"OST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with place.from_phone(FIRST, 80) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b"P")
        until(lambda: _queued(connection) == 0)  # it went off by itself
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.endswith(answer_body())
    assert zeroed(place.first)


def _queued(connection: socket.socket) -> int:
    """Bytes that were sent and not acknowledged."""
    import array
    import fcntl
    import termios

    found = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, found)
    return found[0]


def test_tls_of_old_phones_is_ours_and_goes_on_as_tls(place: Place, router: Proxy) -> None:
    assert place.check(FIRST, 443, client(ssl.TLSVersion.TLSv1)) == (200, answer_body())
    assert zeroed(place.secure)


def test_tls_asked_for_in_the_framing_of_ssl_2_is_ours(place: Place, router: Proxy) -> None:
    with closing(SslV2Phone(place.from_phone(FIRST, 443))) as phone:
        assert phone.ask(check_request(), answer_body()).startswith(b"HTTP/1.1 200 ")
    assert zeroed(place.secure)


def test_what_is_not_http_within_our_tls_passes(place: Place, router: Proxy) -> None:
    with place.from_phone(RAW, 443) as plain, client(ssl.TLSVersion.TLSv1).wrap_socket(plain) as tls:
        tls.sendall(b"\0binary")
        assert tls.recv(100) == b"\0binary"


def test_tls_for_other_names_is_not_ours(place: Place, router: Proxy) -> None:
    for name, ours in (("other.contoso.com", False), (NAME, True)):
        context = client(ssl.TLSVersion.TLSv1_2)
        with (
            place.from_phone(FIRST, 443) as plain,
            context.wrap_socket(plain, server_hostname=name) as tls,
        ):
            shown = tls.getpeercert(binary_form=True)
            assert shown is not None
            assert (b"other.contoso.com" in shown) is not ours


def test_who_comes_to_the_port_itself_gets_nowhere(place: Place, router: Proxy) -> None:
    with closing(place.http(ROUTER, PORT)) as connection:
        connection.request("GET", "/", headers={"Host": FIRST})
        with suppress(http.client.RemoteDisconnected):  # the kernel may know of no other destination
            assert connection.getresponse().status == 502
    assert place.check(FIRST) == (200, answer_body())


def test_without_the_table_everything_goes_straight(place: Place, table: Path, router: Proxy) -> None:
    nft = require_tool("nft")
    with closing(place.http(FIRST)) as kept:
        for turn in range(2):
            kept.request("POST", CHECK_TARGET, check_body())
            assert kept.getresponse().read() == answer_body()
            assert zeroed(place.first)  # those under way are still ours
            if not turn:
                place.net.run("router", nft, "flush", "chain", "inet", "upshim", "prerouting")
                assert place.check(FIRST) == (200, answer_body())
                assert not zeroed(place.first)
    place.net.run("router", nft, "delete", "table", "inet", "upshim")
    assert place.check(FIRST) == (200, answer_body())
    assert not zeroed(place.first)
    with place.from_phone(RAW, 80) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    assert place.raw_peers[-1] == PHONE
    place.net.run("router", nft, "-f", str(table))
    assert place.check(FIRST) == (200, answer_body())
    assert zeroed(place.first)


def test_without_upstreams_it_goes_anywhere_but_to_the_router(place: Place, table: Path) -> None:
    port = 8081
    chain = f"type nat hook prerouting priority -110; policy accept; tcp dport 80 redirect to :{port};"
    nft = require_tool("nft")
    with ExitStack() as stack:
        with place.net.inside("router"):
            secret = stack.enter_context(serving(lambda _: [message(b"for the router's own")], address=(ROUTER, 80)))
            words = [sys.executable, "-m", "tools", "proxy", "--mode", "transparent", "--listen", f"0.0.0.0:{port}"]
            words += ["--rules", str(place.folder / "rules.toml"), "--state", str(place.folder / "s2")]
            proxy = stack.enter_context(started(words))
        place.net.run("router", nft, "-f", "-", text=f"table inet every {{ chain pre {{ {chain} }}; }}")
        stack.callback(place.net.run, "router", nft, "delete", "table", "inet", "every")
        assert place.check(FIRST) == (200, answer_body())
        assert zeroed(place.first)
        assert place.check(ROUTER)[0] == 502
        assert secret.received == []
        until(lambda: b"refused upstream" in proxy.log)


def test_a_name_that_points_at_upshim(place: Place) -> None:
    listen = [f"{ROUTER}:8088", "[fd77:1::1]:8088"]
    options: dict[str, object] = {"listen": listen, "rules": place.folder / "rules.toml"}
    with ExitStack() as stack:
        with place.net.inside("router"):
            stack.enter_context(running("upshim", f"http://[{SIXTH}]", place.folder / "s3", **options))
        for host in (ROUTER, "fd77:1::1"):
            assert place.check(host, 8088) == (200, answer_body())
            assert zeroed(place.sixth)
