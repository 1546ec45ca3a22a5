from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import pytest

from captures.exchange import Exchange
from captures.items import CaptureSummary
from captures.sources import read_exchanges
from tests.conftest import require_tool
from tools.bench import captures, traffic
from tools.cli import main


@pytest.mark.parametrize("kind", ["download", "fleet", "checks"])
def test_upshim_reads_what_was_generated(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    with path.open("wb") as file:
        packets, exchanges = traffic.write(file, kind, 4 << 20)
    items = list(read_exchanges(path))
    read = [item for item in items if isinstance(item, Exchange)]
    assert len(read) == exchanges
    assert all(one.complete and not one.problems for one in read)
    assert isinstance(items[-1], CaptureSummary)
    assert items[-1].counts["packets"] == packets
    assert bool(items[-1].counts["early segments"]) == (kind != "download")


def test_half_of_the_bytes_of_a_fleet_are_downloads(tmp_path: Path) -> None:
    path = tmp_path / "fleet"
    with path.open("wb") as file:
        traffic.write(file, "fleet", 8 << 20)
    fetched = [
        item.response for item in read_exchanges(path) if isinstance(item, Exchange) and item.request.method == "GET"
    ]
    assert {response and response.body.size for response in fetched} == {1 << 20}
    assert 0.25 < len(fetched) * (1 << 20) / path.stat().st_size < 0.6


def test_the_same_arguments_give_the_same_bytes() -> None:
    files = [io.BytesIO(), io.BytesIO()]
    for file in files:
        traffic.write(file, "fleet", 1 << 20)
    one, two = (hashlib.sha256(file.getvalue()).digest() for file in files)
    assert one == two


def test_every_program_is_measured_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    require_tool("tshark")
    require_tool("tcpflow")
    sizes = ["--fleet", "1", "--checks", "1", "--download", "1", "--rounds", "1"]
    assert main(["bench", "captures", *sizes, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    results = [one for one in told if one["kind"] == "bench"]
    for kind in ("small download", "download", "fleet", "checks"):
        programs = {one["program"] for one in results if one["capture"] == kind}
        assert programs >= {captures.OURS, captures.FLOW, captures.FIELDS}
        assert (captures.DEFAULT in programs) == (kind != "fleet")
        assert ("scapy" in programs) == (kind == "small download")
    aims = [one for one in told if one["kind"] == "aim"]
    assert len(aims) == 3 * (1 + 3 * 2) - 2
    captures.show(results, aims)
    said = capsys.readouterr().out
    assert "exchanges/s" in said
    assert "under 200 MB" in said
