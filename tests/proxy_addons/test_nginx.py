"""A real web server upstream: firmware streams unharmed while the check beside it is rewritten."""

from __future__ import annotations

import hashlib
import http.client
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from captures.store import Store
from dissectors.update_check import UpdateAnswer
from dissectors.vocabulary import Vocabulary
from tests.bodies import CHECK_TARGET, INTERIM, OFFER_NEXT, answer_body, check_body
from tests.conftest import require_tool
from tests.proxies import KINDS, running

SIZE = 60 << 20
TARGET = f"/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/{INTERIM}/CPE/CPE.nbt"
CONFIGURATION = """
{user} daemon off; worker_processes 1; error_log {root}/error.log; pid {root}/nginx.pid;
events {{ worker_connections 64; }}
http {{
  access_log off; default_type application/octet-stream;
  client_body_temp_path {root}/t1; proxy_temp_path {root}/t2; fastcgi_temp_path {root}/t3;
  uwsgi_temp_path {root}/t4; scgi_temp_path {root}/t5;
  server {{
    listen 127.0.0.1:{port}; root {root}/www;
    location = {check} {{ error_page 405 =200 /answer.xml; }}
    location = /answer.xml {{ default_type "text/xml; charset=utf-8"; }}
  }}
}}
"""


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of an nginx with the canned answer and a 60 MB file, and the file's sha256."""
    program = require_tool("nginx")
    root = tmp_path_factory.mktemp("nginx")
    image = root / "www" / TARGET.lstrip("/")
    image.parent.mkdir(parents=True)
    digest = hashlib.sha256()
    with image.open("wb") as file:
        for number in range(SIZE >> 20):
            block = hashlib.shake_256(str(number).encode()).digest(1 << 20)
            digest.update(block)
            file.write(block)
    (root / "www" / "answer.xml").write_bytes(answer_body())
    handler = root / "www" / CHECK_TARGET.lstrip("/")
    handler.parent.mkdir()
    handler.touch()  # a POST to a file is a 405, which the configuration turns into the canned answer
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    user = "" if os.geteuid() else "user root;"  # it would drop to a user who cannot look into our folder
    configuration = root / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(user=user, root=root, port=port, check=CHECK_TARGET))
    process = subprocess.Popen([program, "-p", str(root), "-c", str(configuration)], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (root / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
        yield f"http://127.0.0.1:{port}", digest.hexdigest()
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("kind", KINDS)
def test_60_mb_pass_unchanged_at_once_and_in_flat_memory(kind: str, nginx: tuple[str, str], tmp_path: Path) -> None:
    url, sha256 = nginx
    rules = tmp_path / "rules.toml"
    rules.write_text(OFFER_NEXT)
    record = tmp_path / "rec"
    with running(kind, url, tmp_path / "state", rules=rules, record=record) as proxy:
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=60)) as phone:
            phone.request("POST", CHECK_TARGET, check_body(), {"Content-Type": "text/xml"})
            response = phone.getresponse()
            assert response.status == 200
            (offer,) = UpdateAnswer.decode(response.read(), Vocabulary.default()).offers
            assert str(offer.offered_version) == INTERIM

            before = proxy.peak_memory()
            digest = hashlib.sha256()
            phone.request("GET", TARGET)
            response = phone.getresponse()
            assert response.getheader("Content-Length") == str(SIZE)
            # The first bytes are here long before the last have left the server: it streams.
            digest.update(response.read(1))
            digest.update(response.read(SIZE // 2))
            assert not [exchange for exchange in recorded(record) if exchange.endswith("CPE.nbt")]
            while piece := response.read(1 << 16):
                digest.update(piece)
        assert digest.hexdigest() == sha256
        # Half of the recorder's queue, far from the size of the file.
        assert proxy.peak_memory() - before < 40 << 20
        assert proxy.stop() == 0
    assert recorded(record) == [CHECK_TARGET, TARGET]
    kept = hashlib.sha256((record / "bodies" / sha256).read_bytes()).hexdigest()
    assert kept == sha256


def recorded(folder: Path) -> list[str]:
    with closing(Store.open(folder)) as store:
        return [exchange.request.target for exchange in store.exchanges()]
