from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.items import CaptureSummary
from captures.packets import DECRYPTED
from captures.sources import Item, ReadOptions, read_exchanges
from tests.conftest import require_tool

CAPTURES = {
    "tls12-dsb.pcapng": ReadOptions(),
    "tls-dhe1.pcapng.gz": ReadOptions(keylog=Path("tls-dhe1.keys")),
    "tls-nss-example.pcap": ReadOptions(keylog=Path("tls-nss-example.keys")),
    "tls-rsasnakeoil2.pcap": ReadOptions(tls_key=Path("tls-rsasnakeoil2.key")),
}

# Answers that are in the streams tshark follows, and that its HTTP dissector does not show.
MORE_ANSWERS = {"tls-nss-example.pcap": [200, 200]}


def read(corpus: Path, name: str) -> list[Item]:
    given = CAPTURES[name]
    keylog = corpus / "pcap" / given.keylog if given.keylog else None
    key = corpus / "pcap" / given.tls_key if given.tls_key else None
    return list(read_exchanges(corpus / "pcap" / name, ReadOptions(keylog=keylog, tls_key=key)))


@pytest.mark.parametrize("name", CAPTURES)
def test_what_tshark_shows_is_read(corpus: Path, name: str) -> None:
    require_tool("tshark")
    truth = json.loads((corpus / "truth" / f"pcap__{name}.json").read_text())
    exchanges = [item for item in read(corpus, name) if isinstance(item, Exchange)]
    assert all(DECRYPTED in exchange.problems for exchange in exchanges)
    assert [exchange.started for exchange in exchanges] == sorted(exchange.started for exchange in exchanges)
    asked = sorted((row["method"], row["uri"]) for row in truth["http"] if "method" in row)
    assert sorted((exchange.request.method, exchange.request.target) for exchange in exchanges) == asked
    statuses = sorted(int(row["status"]) for row in truth["http"] if "status" in row)
    ours = sorted(exchange.response.status for exchange in exchanges if exchange.response)
    assert ours == sorted(statuses + MORE_ANSWERS.get(name, []))
    hashes = {exchange.response.body.sha256 for exchange in exchanges if exchange.response}
    assert {each["sha256"] for each in truth["objects"]} <= hashes


def test_without_tshark_it_is_said(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    summary = read(corpus, "tls12-dsb.pcapng")[-1]
    assert isinstance(summary, CaptureSummary)
    assert summary.problems == ("tshark is not installed: TLS connections are not decrypted",)


def test_a_key_log_may_begin_with_a_blank_line(corpus: Path, tmp_path: Path) -> None:
    require_tool("tshark")
    keylog = tmp_path / "keys"
    keylog.write_bytes(b"\n" + (corpus / "pcap" / "tls-dhe1.keys").read_bytes())
    items = read_exchanges(corpus / "pcap" / "tls-dhe1.pcapng.gz", ReadOptions(keylog=keylog))
    assert [item.request.target for item in items if isinstance(item, Exchange)] == ["/test"]
