"""Terminators in front for phones whose TLS we cannot speak: the printed text, run by the real program."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from captures.store import Store
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.conftest import require_tool
from tests.phone_certificates import LEAF, identity_file
from tests.proxies import running, started
from tests.proxy_addons.test_old_tls import client, shown
from tests.servers import message, serving
from tests.tools.test_deploy import listening
from tools.bench.proxy_targets import for_this_user
from tools.deploy import KINDS, Address, Operator, render
from tools.errors import UnusableInput
from tools.ports import free_port

OFFERS = {
    "RC4": "+ARCFOUR-128:+SHA1:+RSA",
    "RC4-MD5": "+ARCFOUR-128:+MD5:+RSA",
    "3DES": "+3DES-CBC:+SHA1:+RSA",
    "AES": "+AES-128-CBC:+SHA1:+RSA",
}


def old_phone(port: int, offer: str) -> str:
    """What a client that offers nothing else gets, by a TLS library that still has it all."""
    body = check_body()
    head = f"POST {CHECK_TARGET} HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: close\r\n"
    request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
    words = [require_tool("gnutls-cli"), "--insecure", "-p", str(port), "127.0.0.1"]
    words += ["--priority", f"NORMAL:-VERS-ALL:+VERS-TLS1.0:-CIPHER-ALL:-MAC-ALL:-KX-ALL:{offer}:%COMPAT"]
    ended = subprocess.run(words, input=request, capture_output=True, timeout=60, check=False)
    return ended.stdout.decode("latin-1")


@pytest.mark.parametrize("kind", ["lighttpd", "haproxy"])
def test_phones_in_front_of_a_terminator(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = require_tool(kind)
    rules, certs, port = tmp_path / "rules.toml", identity_file(tmp_path / "phones.pem"), free_port()
    rules.write_text(REPORT_ZERO)
    options = {"rules": rules, "trust_forwarded": "127.0.0.1", "record": tmp_path / "rec"}
    with (
        serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as server,
        running("upshim", server.url, tmp_path / "s", **options) as shim,
    ):
        text = render(kind, server.url, [Address("127.0.0.1", shim.port)], [Address("127.0.0.1", port)], certs=certs)
        file = tmp_path / KINDS[kind]
        file.write_text(for_this_user(text))
        words = [program, "-D", "-f", str(file)] if kind == "lighttpd" else [program, "-db", "-f", str(file)]
        settings = tmp_path / "openssl.cnf"
        settings.write_text("\n".join(re.findall(r"^#   \| (.*)$", text, re.MULTILINE)))
        monkeypatch.setenv("OPENSSL_CONF", str(settings))
        with listening(words, port, tmp_path / "front.log"):
            offers = OFFERS if kind == "lighttpd" else {"AES": OFFERS["AES"]}
            for name, offer in offers.items():
                got = old_phone(port, offer)
                assert answer_body().decode() in got, f"{name}: {got}"
                assert "(TLS1.0" in got
                assert re.search(r"Certificate\[1\]", got)  # the CA is sent along
        assert [b'Version="0.0.0.0"' in one.body for one in server.received] == [True] * len(offers)
    with closing(Store.open(tmp_path / "rec")) as store:
        assert {told.client.rpartition(":")[0] for told in store.exchanges()} == {"127.0.0.1"}


def test_a_unit_takes_a_new_certificate_at_its_reload(tmp_path: Path) -> None:
    certs, port = identity_file(tmp_path / "phones.pem"), free_port()
    operator = Operator(admin=Address("127.0.0.1", free_port()))
    listen = [Address("127.0.0.1", port)]
    text = render("systemd", "http://127.0.0.1:9", [], listen, certs=certs, program=Path("upshim"), operator=operator)
    start = re.search(r"^ExecStart=upshim (.*?[^\\])$", text, re.MULTILINE | re.DOTALL)
    assert start is not None
    words = start[1].replace("\\\n", " ").replace("%S", str(tmp_path)).replace("$UPSHIM_OPTIONS", "").split()
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in text
    with started([sys.executable, "-m", "tools", *words]) as proxy:
        phone = client(ssl.TLSVersion.TLSv1_2)
        before = shown(port, phone)
        identity_file(certs, replace(LEAF, name="Renewed"))
        proxy.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 20
        while (now := shown(port, phone)) == before:
            assert time.monotonic() < deadline, proxy.log.decode()
        assert now.subject.rfc4514_string().startswith("CN=Renewed")


def test_a_terminator_needs_a_certificate(tmp_path: Path) -> None:
    places = [Address("127.0.0.1", 1)], [Address("*", 443), Address("::", 443)]
    with pytest.raises(UnusableInput, match="lighttpd needs --certs"):
        render("lighttpd", "http://x", *places)
    with pytest.raises(UnusableInput, match="without quotes"):
        render("lighttpd", "http://x", *places, certs=Path('a"b'))
    file = tmp_path / "l.conf"
    file.write_text(render("lighttpd", "http://x", *places, certs=identity_file(tmp_path / "phones.pem")))
    assert '$SERVER["socket"] == "[::]:443"' in file.read_text()
    words = [require_tool("lighttpd"), "-tt", "-f", str(file)]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
