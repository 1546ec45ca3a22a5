from __future__ import annotations

import hashlib
import json
import sqlite3
import subprocess
from pathlib import Path

import pytest

from captures.exchange import Body, Exchange, Response
from captures.pcap_writer import PcapWriter
from captures.sources import ReadOptions, read_exchanges
from captures.store import StoreError
from captures.store_writer import StoreWriter
from tests.captures.har_schema import check_archive
from tests.captures.test_pcap_writer import exchange, got
from tests.conftest import require_tool
from tools.cli import main

FORMATS = ["pcap", "mitm", "har", "store"]
FIRMWARE = bytes(range(256)) * 9000  # more than a reader holds in memory


def convert(*words: object) -> int:
    return main(["convert", *map(str, words)])


def seen(path: Path) -> list[tuple[object, ...]]:
    """What of its exchanges no format may lose."""
    found = [each for each in read_exchanges(path, ReadOptions(hold=1 << 30)) if isinstance(each, Exchange)]
    return sorted(
        (each.started, each.client, each.server, each.request, str(each.response), each.complete) for each in found
    )


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "in.pcap"
    with PcapWriter.create(path) as writer:
        writer.write(exchange(response=got(b"<no-update/>"), number=0))
        writer.write(exchange(response=got(FIRMWARE), number=1))
        writer.write(exchange(response=got(b"x"), number=2, client="[2001:db8::3]:1037", server="[2001:db8::7]:8080"))
    return path


@pytest.mark.parametrize("middle", FORMATS)
@pytest.mark.parametrize("last", FORMATS)
def test_every_format_to_every_other(
    tmp_path: Path, capture: Path, capsys: pytest.CaptureFixture[str], middle: str, last: str
) -> None:
    assert convert(capture, tmp_path / "middle", "--to", middle) == 0
    assert convert(tmp_path / "middle", tmp_path / "last", "--to", last) == 0
    assert "not kept" not in capsys.readouterr().out
    assert seen(tmp_path / "last") == seen(capture)
    if last == "har":
        check_archive(json.loads((tmp_path / "last").read_text()))


def test_the_name_tells_the_format(tmp_path: Path, capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.PCAPNG", "b.mitm", "c.har", "d"):
        assert convert(capture, tmp_path / name, "--json") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["format"] for line in lines] == FORMATS
    assert all((line["exchanges"], line["not_kept"], line["problems"]) == (3, {}, []) for line in lines)
    assert (tmp_path / "d" / "store.sqlite").is_file()
    assert all((tmp_path / name).stat().st_mode & 0o077 == 0 for name in ("a.PCAPNG", "b.mitm", "c.har", "d"))


def test_what_is_not_kept_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = Response(200, "OK", headers=(("Content-Length", "9"),), body=Body(9, "00" * 32, 9))
    with StoreWriter.create(tmp_path / "in") as writer:
        writer.write(exchange(response=absent))
    assert convert(tmp_path / "in", tmp_path / "out.har") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1 exchange written to {tmp_path / 'out.har'}; not kept as they were: streamed bodies absent: 1"
    ]


def test_damaged_input(tmp_path: Path, capture: Path) -> None:
    convert(capture, tmp_path / "a.mitm")
    whole = (tmp_path / "a.mitm").read_bytes()
    (tmp_path / "a.mitm").write_bytes(whole[:-1])
    assert convert(tmp_path / "a.mitm", tmp_path / "b.har") == 1
    assert len(seen(tmp_path / "b.har")) == 2


def test_recording_that_cannot_be_written(tmp_path: Path) -> None:
    writer = StoreWriter.create(tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "store.sqlite") as database:
        database.execute("DROP TABLE exchanges")
    database.close()
    writer.write(exchange(response=got(b"x")))
    with pytest.raises(StoreError, match="cannot record here: no such table"):
        writer.close()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("in.pcap", "out.xyz"), "expected a name that tells the format"),
        (("in.pcap", "in.pcap"), "expected an output other than the input"),
        (("in.pcap", "missing/out.har"), "expected a place in an existing folder"),
        (("in.pcap", "full"), "expected a new folder, found a recording"),
        (("in.pcap", "folder", "--to", "har"), "Is a directory"),
        (("in.pcap", "out.har", "--leg", "phone"), "only a packet capture"),
        (("missing", "out.har"), "No such file"),
        (("garbage", "out.har"), "at offset 0: expected packet capture"),
    ],
)
def test_unusable(
    tmp_path: Path,
    capture: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("garbage").write_bytes(b"garbage")
    Path("folder").mkdir()
    StoreWriter.create(Path("full")).close()
    before = sorted(Path().iterdir())
    assert convert(*words) == 2
    shown = capsys.readouterr().err
    assert complaint in shown
    assert shown.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_corpus_seen_by_tshark(corpus: Path, tmp_path: Path) -> None:
    """Where a capture is whole and in order, what is made of it shows the same requests, statuses and bodies."""
    tshark = require_tool("tshark")
    names = ["wu-authrootstl-cab.pcap", "http-ntlm-webdav.pcap", "http-ip4and6.pcapng", "http-pipelined.pcap"]
    for name in (*names, "http-ipv6-four-streams.pcap", "http-100-continue.pcap"):
        target = tmp_path / "out.pcap"
        assert convert(corpus / "pcap" / name, target) == 0
        shown: list[tuple[list[str], list[str]]] = []
        for path in (corpus / "pcap" / name, target):
            objects = tmp_path / f"{name}-{len(shown)}"
            fields = ("http.request.method", "http.request.uri", "http.response.code")
            words = ["-Y", "http", "-T", "fields", *(word for field in fields for word in ("-e", field))]
            command = [tshark, "-n", "-r", str(path), *words, "--export-objects", f"http,{objects}"]
            told = subprocess.run(command, check=True, capture_output=True, text=True)
            digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in objects.iterdir())
            shown.append((sorted(told.stdout.splitlines()), digests))
        assert shown[0] == shown[1], name
