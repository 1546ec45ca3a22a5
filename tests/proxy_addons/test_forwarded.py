from __future__ import annotations

import http.client
from contextlib import closing
from pathlib import Path

import pytest

from captures.store import Store
from proxy_addons.forwarded import MAX_HOPS, Fronts
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.proxies import running
from tests.servers import message, serving

FRONTS = Fronts.of(["10.0.0.1", "10.9.0.0/16", "[fd00::1]"])


@pytest.mark.parametrize(
    ("peer", "told", "phone"),
    [
        ("10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("::ffff:10.0.0.1", ["192.0.2.7"], "192.0.2.7"),
        ("fd00::1", ["2001:DB8::7"], "2001:db8::7"),
        ("192.0.2.1", ["192.0.2.7"], "192.0.2.1"),  # not one of ours
        ("10.0.0.1", ["6.6.6.6, 192.0.2.7"], "192.0.2.7"),  # what the phone claims
        ("10.0.0.1", ["6.6.6.6", "192.0.2.7"], "192.0.2.7"),
        ("10.0.0.1", ["192.0.2.7, 10.9.3.4"], "192.0.2.7"),  # two fronts behind one another
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["192.0.2.7, nonsense, 10.9.3.4"], "10.9.3.4"),
        ("10.0.0.1", ["6.6.6.6, " + "10.9.0.1, " * MAX_HOPS + "10.9.0.1"], "10.9.0.1"),
    ],
)
def test_the_phone_behind_a_front(peer: str, told: list[str], phone: str) -> None:
    assert FRONTS.client(peer, tuple(("X-Forwarded-For", value) for value in told)) == phone


def test_nobody_is_believed_unless_named() -> None:
    assert Fronts().client("127.0.0.1", (("X-Forwarded-For", "192.0.2.7"),)) == "127.0.0.1"


@pytest.mark.parametrize("text", ["", "front", "10.0.0.0/33", "10.0.0.1:80"])
def test_a_front_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected an address or a network"):
        Fronts.of([text])


@pytest.mark.parametrize(("trusted", "phone"), [("127.0.0.0/8", "192.0.2.7"), ("10.0.0.1", "127.0.0.1")])
def test_rules_and_recording_see_the_phone(trusted: str, phone: str, tmp_path: Path) -> None:
    rules, recording = tmp_path / "rules.toml", tmp_path / "rec"
    rules.write_text(REPORT_ZERO + 'when.subnet = ["192.0.2.0/24"]\n')
    options = {"rules": rules, "record": recording, "trust_forwarded": trusted}
    with (
        serving(lambda _: iter([message(answer_body())])) as server,
        running("upshim", server.url, tmp_path / "state", **options) as proxy,
        closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as connection,
    ):
        connection.request("POST", CHECK_TARGET, check_body(), {"X-Forwarded-For": "192.0.2.7"})
        connection.getresponse().read()
        assert (b'Version="0.0.0.0"' in server.received[0].body) is (phone == "192.0.2.7")
        # It goes on as it came, once.
        assert server.received[0].head.lower().count(b"x-forwarded-for: 192.0.2.7\r\n") == 1
    with closing(Store.open(recording)) as store:
        (told,) = store.exchanges()
    assert told.client.rpartition(":")[0] == phone
