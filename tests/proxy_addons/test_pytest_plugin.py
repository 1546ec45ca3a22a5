from __future__ import annotations

import http.client
from contextlib import closing
from pathlib import Path

import pytest

from proxy_addons.launcher import StartError
from proxy_addons.pytest_plugin import RunningProxy
from tests.bodies import CHECK_TARGET, REPORT_ZERO, answer_body, check_body
from tests.conftest import ROOT
from tests.servers import message, serving

pytest_plugins = ["pytester"]

AN_ENGINEERS_TEST = """
def test_only_stuck_phones_are_touched(upshim_replay):
    exchanges = upshim_replay("rec", rules="rules.toml")
    assert [e.rewritten_request is not None for e in exchanges] == [True, False]
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.toml"
    path.write_text(REPORT_ZERO)
    return path


def test_a_proxy_in_this_process(upshim_proxy: object, rules: Path) -> None:
    assert callable(upshim_proxy)
    with serving(lambda _: [message(answer_body(), "Content-Type: text/xml")]) as server:
        for dry_run in (False, True):
            proxy: RunningProxy = upshim_proxy(server.url, rules, dry_run=dry_run)
            with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
                phone.request("POST", CHECK_TARGET, check_body(), {"Content-Type": "text/xml"})
                assert phone.getresponse().read() == answer_body()
            (exchange,) = proxy.recorded()
            assert (exchange.rewritten_request is None) is dry_run
        assert b'"0.0.0.0"' in server.received[0].body
        assert server.received[1].body == check_body()
        with pytest.raises(StartError):
            upshim_proxy(server.url, "/nowhere/rules.toml")


def test_an_engineers_own_test_is_three_lines(
    pytester: pytest.Pytester, rules: Path, upshim_proxy: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert callable(upshim_proxy)
    with serving(lambda _: [message(answer_body())]) as server:
        proxy: RunningProxy = upshim_proxy(server.url)
        with closing(http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)) as phone:
            for model in ("CX700", "CX600"):
                phone.request("POST", CHECK_TARGET, check_body(Model=model))
                phone.getresponse().read()
    (pytester.path / "rec").symlink_to(proxy.recording)
    (pytester.path / "rules.toml").write_text(rules.read_text())
    pytester.makepyfile(AN_ENGINEERS_TEST)
    ended = pytester.runpytest_subprocess("-p", "proxy_addons.pytest_plugin", "-W", "ignore")
    ended.assert_outcomes(passed=1)
