"""The server over real sockets, asked by http.client and by hand."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from dissectors.audit_log import read_rows
from dissectors.installed_module import InstalledModule
from dissectors.update_check import UpdateAnswer
from dissectors.version import Version
from dissectors.vocabulary import Vocabulary
from tools.ucphone.identity import PhoneIdentity
from tools.ucphone.messages import write_check
from tools.update_server.audit import AuditLogWriter
from tools.update_server.http import ServerEvent, UpdateServer
from tools.update_server.messages import NoOffer
from tools.update_server.packages import CX700, make_synthetic
from tools.update_server.rules import RuleBook, approve_highest
from tools.update_server.service import UpdateService

V = Version.parse("3.5.6907.222")
OLD = Version.parse("1.0.522.73")
CHECK = "/RequestHandler/ucdevice.upx"
IMAGE = "/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/3.5.6907.222/CPE/CPE.nbt"
DAY = datetime(2009, 3, 17, 21, 4, 5)


@pytest.fixture
def updates(tmp_path: Path) -> Path:
    return make_synthetic(tmp_path / "updates", V, 200_000).folder.parents[6]


@pytest.fixture
def events() -> list[ServerEvent]:
    return []


@pytest.fixture
def server(updates: Path, events: list[ServerEvent]) -> Iterator[UpdateServer]:
    with UpdateServer(service(updates), on_event=events.append) as running:
        yield running


@pytest.fixture
def connection(server: UpdateServer) -> Iterator[http.client.HTTPConnection]:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    yield client
    client.close()


def service(updates: Path) -> UpdateService:
    return UpdateService(updates, RuleBook(approve_highest([(CX700, "CPE", V)])))


def body(version: Version = OLD, **identity: str) -> bytes:
    return write_check(PhoneIdentity(**identity), [InstalledModule("CPE.nbt", version, "01-01-2008 00:00:00")])


def answer(response: http.client.HTTPResponse) -> UpdateAnswer:
    assert response.status == 200
    return UpdateAnswer.decode(response.read(), Vocabulary.default())


def test_a_check_is_answered_with_the_offer(connection: http.client.HTTPConnection, events: list[ServerEvent]) -> None:
    connection.request("POST", CHECK, body(), {"Content-Type": "text/xml; charset=utf-8"})
    raw = connection.getresponse().read()
    assert b"synthetic" in raw
    (offer,) = UpdateAnswer.decode(raw, Vocabulary.default()).offers
    assert offer.base_url is not None
    assert offer.base_url.value == f"http://127.0.0.1:{connection.port}{IMAGE.rpartition('/')[0]}"
    assert offer.offered_version == V
    assert [(event.kind, event.data["offered"]) for event in events] == [("check", [str(V)])]


def test_paths_are_compared_without_case_and_there_is_an_external_one(connection: http.client.HTTPConnection) -> None:
    for path in ("/requesthandler/UCDEVICE.UPX", "/RequestHandlerExt/ucdevice.upx"):
        connection.request("POST", path, body())
        assert answer(connection.getresponse()).is_offer
    connection.request("GET", IMAGE.lower().replace("int", "EXT"))
    assert len(connection.getresponse().read()) == 200_000


def test_one_connection_serves_check_and_files(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    port = connection.sock.getsockname()
    for method, path, sent in (
        ("POST", CHECK, body()),
        ("HEAD", IMAGE, None),
        ("GET", IMAGE, None),
        ("GET", "/x", None),
    ):
        connection.request(method, path, sent)
        connection.getresponse().read()
        assert connection.sock is not None
        assert connection.sock.getsockname() == port


def test_head_gives_the_size_without_the_file(connection: http.client.HTTPConnection) -> None:
    connection.request("HEAD", IMAGE)
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Length"), response.read()) == (200, "200000", b"")


def test_the_folder_may_be_named_from_where_one_is(updates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(updates.parent)
    with UpdateServer(service(Path(updates.name))) as running:
        client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        client.request("HEAD", IMAGE)
        assert client.getresponse().status == 200
        client.close()


def test_a_range_gives_the_rest(connection: http.client.HTTPConnection, updates: Path) -> None:
    whole = next(updates.rglob("CPE.nbt")).read_bytes()
    connection.request("GET", IMAGE, headers={"Range": "bytes=150000-"})
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Range")) == (206, "bytes 150000-199999/200000")
    assert response.read() == whole[150000:]
    connection.request("GET", IMAGE, headers={"Range": "bytes=200000-"})
    response = connection.getresponse()
    assert (response.status, response.getheader("Content-Range")) == (416, "bytes */200000")
    response.read()


def test_a_range_of_another_file_gives_the_whole(connection: http.client.HTTPConnection) -> None:
    connection.request("HEAD", IMAGE)
    response = connection.getresponse()
    response.read()
    tag = response.getheader("ETag") or ""
    for wanted, status in ((tag, 206), ('"other"', 200)):
        connection.request("GET", IMAGE, headers={"Range": "bytes=10-", "If-Range": wanted})
        response = connection.getresponse()
        response.read()
        assert response.status == status


def test_a_chunked_check_is_accepted(connection: http.client.HTTPConnection) -> None:
    sent = body()
    connection.request("POST", CHECK, iter([sent[:10], sent[10:]]), {"Content-Type": "text/xml"}, encode_chunked=True)
    assert answer(connection.getresponse()).is_offer


def test_a_check_in_utf_16_is_read(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", CHECK, body().decode().replace('"utf-8"', '"utf-16"').encode("utf-16"))
    assert answer(connection.getresponse()).is_offer


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/RequestHandler/",
        "/Logs/Server/Audit/imageUpdates/x.log",
        "/DeviceUpdateFiles_Int/",
        IMAGE.rpartition("/")[0],
        IMAGE + "/x",
        IMAGE.replace("CPE.nbt", "..%2FCPE%2FCPE.nbt"),
        IMAGE.replace("CX700", ".."),
        IMAGE.replace("CPE.nbt", "%00"),
        IMAGE.replace("222", "223"),
    ],
)
def test_anything_else_is_not_found(connection: http.client.HTTPConnection, path: str) -> None:
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    assert response.status == 404


def test_the_handler_wants_a_post(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", CHECK)
    response = connection.getresponse()
    response.read()
    assert response.status == 405


@pytest.mark.parametrize(
    ("sent", "status", "kind"),
    [
        (b"\x00\x01CELOG" * 1000, 200, "upload"),
        (b"", 400, "refused"),
        (b"<UpdateCheck><MACAddress>", 400, "refused"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', 400, "refused"),
        ("<a/>".encode("utf-16"), 400, "refused"),
    ],
)
def test_uploads_are_taken_and_broken_checks_refused(
    connection: http.client.HTTPConnection, events: list[ServerEvent], sent: bytes, status: int, kind: str
) -> None:
    connection.request("POST", CHECK, sent)
    response = connection.getresponse()
    response.read()
    assert response.status == status
    assert [event.kind for event in events] == [kind]


@pytest.mark.parametrize(("no_offer", "count"), [(NoOffer.ABSENT, 0), (NoOffer.BLANK, 1)])
def test_an_answer_without_offer_has_two_forms(updates: Path, no_offer: NoOffer, count: int) -> None:
    with UpdateServer(service(updates), no_offer=no_offer) as running:
        client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        client.request("POST", CHECK, body(V))
        raw = client.getresponse().read()
        client.close()
    assert raw.count(b"<BaseURL></BaseURL>") == count
    assert not UpdateAnswer.decode(raw, Vocabulary.default()).is_offer


def test_the_external_check_may_want_a_logon(updates: Path) -> None:
    with UpdateServer(service(updates), deny_external=True) as running:
        client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        client.request("POST", "/RequestHandlerExt/ucdevice.upx", body())
        response = client.getresponse()
        response.read()
        assert (response.status, response.headers.get_all("WWW-Authenticate")) == (401, ["Negotiate", "NTLM"])
        client.request("POST", CHECK, body())
        assert answer(client.getresponse()).is_offer
        client.close()


def test_every_check_is_in_the_audit_log(updates: Path, tmp_path: Path) -> None:
    audit = AuditLogWriter(tmp_path / "share", "POOL01", lambda: DAY)
    with UpdateServer(service(updates), audit=audit) as running:
        client = http.client.HTTPConnection("127.0.0.1", running.port, timeout=10)
        for sent in (body(user="litware\\upgrade"), body(V, mac="", serial="", user="a;b#c,\nd")):
            client.request("POST", CHECK, sent)
            client.getresponse().read()
        client.close()
    (path,) = audit.folder.iterdir()
    first, second = read_rows([path.read_bytes()])
    assert (first.user_host_address, first.mac, first.user_id) == ("127.0.0.1", "00-04-F2-00-01-76", "litware\\upgrade")
    assert [module.version for module in first.request_modules] == [OLD]
    assert [(one.file_name, one.signature_file_name, one.version) for one in first.response_modules] == [
        ("CPE.nbt", "CPE.cat", V)
    ]
    assert (second.mac, second.serial, second.response_modules, second.user_id) == ("", "", (), "a;b#c,_d")
    assert first.problems == second.problems == ()


def test_stopping_closes_connections_and_the_port(updates: Path) -> None:
    running = UpdateServer(service(updates)).start()
    idle = socket.create_connection(("127.0.0.1", running.port), timeout=10)
    running.stop()
    assert idle.recv(1) == b""
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", running.port), timeout=10)
    running.stop()


def test_a_port_in_use_is_told_at_the_start(server: UpdateServer, updates: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        UpdateServer(service(updates), port=server.port).start()
