from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.dns import DNS, DNSQR

from captures.exchange import Exchange
from captures.items import Observation
from captures.read_options import ReadOptions
from captures.sources import read_exchanges
from tests.captures.wire import START, Packet, Talk, answer, ethernet, ipv4, pcap, request, udp, written
from tools.cli import main

REGISTER = (
    b"REGISTER sip:contoso.com SIP/2.0\r\nFrom: <sip:amy@contoso.com>;tag=1;epid=0004f2000176\r\n"
    b"To: <sip:amy@contoso.com>\r\nCSeq: 1 REGISTER\r\nUser-Agent: CPE/1.0.522.101 OCPhone/1.0.522.101\r\n"
    b"Content-Length: 0\r\n\r\n"
)
FORBIDDEN = (
    b"SIP/2.0 403 Forbidden\r\nFrom: <sip:amy@contoso.com>\r\nTo: <sip:amy@contoso.com>\r\nCSeq: 1 REGISTER\r\n"
    b'ms-diagnostics: 4004;reason="No";source="pool.contoso.com"\r\nContent-Length: 3\r\n\r\nabc'
)


def observed(path: Path, **options: Any) -> list[Observation]:
    return [item for item in read_exchanges(path, ReadOptions(**options)) if isinstance(item, Observation)]


def facts(path: Path, kind: str) -> list[dict[str, Any]]:
    return [dict(fact) for item in observed(path) for fact in item.facts if fact["fact"] == kind]


def sip_over_tcp(*pieces: tuple[bool, bytes]) -> list[Packet]:
    talk = Talk().open()
    for asking, data in pieces:
        (talk.client if asking else talk.server)(data)
    return talk.close().packets


@pytest.mark.parametrize("size", [1, 7, 4000])
def test_sip_over_tcp_in_pieces_of_any_size(tmp_path: Path, size: int) -> None:
    first, rest = REGISTER[:60], REGISTER[60:] + b"\r\n\r\n" + REGISTER
    up = [first, *(rest[at : at + size] for at in range(0, len(rest), size))]
    down = [FORBIDDEN[at : at + size] for at in range(0, len(FORBIDDEN), size)]
    path = written(tmp_path, pcap(sip_over_tcp(*((True, each) for each in up), *((False, each) for each in down))))
    found = facts(path, "sip")
    assert [(fact["method"], fact["status"]) for fact in found] == [
        ("REGISTER", None),
        ("REGISTER", None),
        ("REGISTER", 403),
    ]
    assert found[2]["diagnostics"][0]["code"] == 4004
    assert len({item.client for item in observed(path)}) == 1


def test_an_unfinished_message_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, pcap(sip_over_tcp((True, REGISTER[:-2]))))
    (item,) = observed(path)
    assert item.problems == (f"{len(REGISTER) - 2} bytes of an unfinished SIP message",)


def test_users_are_masked_unless_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, pcap(sip_over_tcp((True, REGISTER))))
    assert main(["exchanges", str(path)]) == main(["exchanges", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "REGISTER sip:contoso.com from sip:*@contoso.com" in out
    assert "amy" not in out
    assert main(["exchanges", "--json", "--secrets", str(path)]) == 0
    line = json.loads(capsys.readouterr().out.splitlines()[0])
    assert (line["kind"], line["facts"][0]["from"]) == ("fact", "sip:amy@contoso.com")


def test_facts_stand_among_the_exchanges_by_time(tmp_path: Path) -> None:
    talk = Talk().open().client(request()).server(answer(b"abc")).close()
    query = bytes(DNS(id=1, qd=DNSQR(qname="ucupdates-r2.contoso.com")))
    asked = [
        Packet(ethernet(ipv4(udp(query, 5000, 53), protocol=17)), time)
        for time in (START - 1, talk.packets[3].time + 1, talk.packets[-1].time + 1)
    ]
    packets = sorted([*talk.packets, *asked], key=lambda packet: packet.time)
    items = list(read_exchanges(written(tmp_path, pcap(packets))))[:-1]
    assert [type(item) for item in items] == [Observation, Exchange, Observation, Observation]
    assert isinstance(items[0], Observation)
    assert items[0].facts[0]["relevant"]


@pytest.mark.parametrize(
    "name", ["opt120-sipservers.pcap", "opt33.pcap", "opt43-aruba.pcap", "opt52-overload.pcap", "opt60-msft50.pcap",
             "dhcp-dora.pcapng"]
)  # fmt: skip
def test_dhcp_options_are_those_tshark_shows(corpus: Path, name: str) -> None:
    truth = json.loads((corpus / "truth" / f"dhcp__{name}.json").read_text())["dhcp"]
    found = facts(corpus / "dhcp" / name, "dhcp-message")
    assert len(found) == len(truth)
    for ours, theirs in zip(found, truth, strict=True):
        shown = {str(option["option"]): option["hex"] for option in ours["options"]}
        kinds = [kind for kind in theirs["option_types"].split(";") if kind not in ("0", "255")]
        assert list(shown) == list(dict.fromkeys(kinds))
        values = theirs["option_values_hex"].replace("<MISSING>", "").split(";")
        assert sorted(filter(None, shown.values())) == sorted(filter(None, values))


@pytest.mark.parametrize("name", ["dns-srv-ad.pcap", "dns-srv-sip.pcap"])
def test_dns_is_what_tshark_shows(corpus: Path, name: str) -> None:
    truth = json.loads((corpus / "truth" / f"pcap__{name}.json").read_text())["dns"]
    rows = [row.split("|") for row in truth]
    found = facts(corpus / "pcap" / name, "dns")
    assert [(fact["message"], fact["questions"][0]["name"]) for fact in found] == [
        ("answer" if row[1] == "1" else "query", row[3]) for row in rows
    ]
    for fact, row in zip(found, rows, strict=True):
        targets = [answer["value"].split()[3] for answer in fact["answers"] if answer["type"] == "SRV"]
        assert targets == [target for target in row[4].split(",") if target]


@pytest.mark.parametrize("name", ["sip-nero.pcap", "sip.pcapng"])
def test_sip_is_what_tshark_shows(corpus: Path, name: str) -> None:
    truth = json.loads((corpus / "truth" / f"pcap__{name}.json").read_text())
    rows = [row.split("|") for row in truth["sip"]]  # the first sixty
    found = facts(corpus / "pcap" / name, "sip")
    assert len(found) == truth["protocols"]["sip"]
    assert [(fact["status"], fact["reason"] or fact["method"]) for fact in found[: len(rows)]] == [
        (int(row[2].split()[1]), row[2].split(" ", 2)[2]) if row[2] else (None, row[1].split()[0]) for row in rows
    ]


def test_a_circle_of_names_is_a_problem(corpus: Path) -> None:
    for item in observed(corpus / "malformed" / "dns-zlip-1.pcap"):
        assert any("DNS" in problem for problem in item.problems)
