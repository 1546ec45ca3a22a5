"""`decode` over real files made by others, held against what other tools say of them."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from tools.cli import main


def decode(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, list[dict[str, Any]]]:
    capsys.readouterr()
    code = main(["decode", "--json", *map(str, words)])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("folder", ["cab", "payloads", "der", "dhcp", "sip", "logs", "xml", "malformed"])
def test_every_file_is_told(corpus: Path, capsys: pytest.CaptureFixture[str], folder: str) -> None:
    files = [path for path in (corpus / folder).rglob("*") if path.is_file()]
    code, records = decode(capsys, corpus / folder)
    assert code in {0, 1}
    assert {record.get("file") for record in records} >= set(map(str, files))
    for path in files:
        assert main(["decode", str(path)]) in {0, 1}


def test_cabinets_hold_what_the_manifest_says(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = corpus / "payloads"
    with (root / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    wanted = [row for row in rows if row["kind"] in {"ok", "ok-set"} and row["expected"].startswith("[")]
    assert wanted
    for row in wanted:
        paths = [root / part for part in row["set"].split("+")] if row["set"] else [root / row["path"]]
        _code, records = decode(capsys, *paths)
        members = [(one["size"], one.get("sha256")) for one in records[0]["members"]]
        assert members == [(one["size"], one["sha256"]) for one in json.loads(row["expected"])], row["path"]


def test_malformed_cabinets_are_refused(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = corpus / "payloads"
    with (root / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for row in rows:
        if row["kind"].startswith("reject"):
            code, [record] = decode(capsys, root / row["path"])
            assert (code, bool(record["problems"])) == (1, True), row["path"]


def test_signed_cabinet(corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = corpus / "cab/kb955430-x86-express.cab"
    truth = (corpus / "truth/kb955430-cab.txt").read_text().split("# osslsigncode")[0]
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in truth.splitlines()) if name}
    code, [record] = decode(capsys, path, "--extract", tmp_path)
    assert code == 0
    assert {one["name"]: one["sha256"] for one in record["members"]} == expected
    assert [(one["compression"], one["window"]) for one in record["folders"]] == [("lzx", 21)]
    signature = record["signature"]
    assert signature["digest"] == signature["computed"] == "80466E5C65B31C68890F8A05B285865F1E6752D0"
    assert signature["verified"] is True
    assert "CN=Microsoft Corporation" in signature["signer"]
    assert len(record["catalogs"]) == 10
    for catalog in record["catalogs"]:
        own = catalog["catalog"].replace(".cat", ".mum")
        assert own in {one["file"] for one in catalog["lists"]}
    for name, digest in expected.items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest


def test_changed_cabinet_is_not_verified(corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    data = bytearray((corpus / "cab/kb955430-x86-express.cab").read_bytes())
    data[20_000] ^= 1
    (tmp_path / "x.cab").write_bytes(data)
    code, [record] = decode(capsys, tmp_path / "x.cab")
    assert (code, record["signature"]["verified"]) == (1, False)


def test_loose_file_and_catalog_are_held_against_each_other(corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = corpus / "payloads/pki/signify"
    _code, records = decode(capsys, *sorted(folder.iterdir()))
    proofs = [record for record in records if record["kind"] == "catalog-proof"]
    assert any(one["file"].endswith(".inf") for proof in proofs for one in proof["lists"])


def test_dhcp_vectors(corpus: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    vectors = json.loads((corpus / "dhcp/ms-uc-option-vectors.json").read_text())["vectors"]
    seen = 0
    for vector in vectors:
        if "option43_hex" in vector and vector.get("option43_hex"):
            (tmp_path / "x").write_text("option 43 hex " + vector["option43_hex"])
            _code, [record] = decode(capsys, tmp_path / "x")
            assert (record["kind"], record["options"][0]["hex"]) == ("dhcp", vector["option43_hex"].lower())
            seen += 1
    assert seen
