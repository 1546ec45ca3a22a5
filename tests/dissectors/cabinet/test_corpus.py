"""Every cabinet of the corpus against its manifest, with libmspack and with our own decoders alone."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dissectors import DissectError
from dissectors.cabinet import Cabinet, Compression, accelerate

csv.field_size_limit(sys.maxsize)


def rows(corpus: Path, *kinds: str) -> Iterator[dict[str, str]]:
    with (corpus / "payloads" / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            # A set stands at its first part; the others refer to it.
            if row["kind"] in kinds and not row["expected"].startswith("see "):
                yield row


def read(corpus: Path, row: dict[str, str]) -> Cabinet:
    if row["set"]:
        parts = [corpus / "payloads" / path for path in row["set"].split("+")]
        return Cabinet.join(Cabinet.parse(part.read_bytes()) for part in reversed(parts))
    return Cabinet.parse((corpus / "payloads" / row["path"]).read_bytes())


@pytest.mark.parametrize("native", [True, False], ids=["libmspack", "own"])
def test_good_cabinets_and_sets_list_and_hash_as_the_manifest_says(corpus: Path, native: bool) -> None:
    if native and not accelerate.available():
        pytest.skip("libmspack is not installed")
    count = 0
    for row in rows(corpus, "ok", "ok-set"):
        cabinet = read(corpus, row)
        if not native and any(folder.method is Compression.QUANTUM for folder in cabinet.folders):
            continue
        contents = cabinet.verify(native=native)
        found = [
            {"name": each.member.name, "size": each.member.size, "sha256": each.digests and each.digests.sha256}
            for each in contents.members
        ]
        assert found == json.loads(row["expected"]), row["path"]
        count += 1
    assert count


def test_what_must_be_refused_at_open_is(corpus: Path) -> None:
    for row in rows(corpus, "reject-open"):
        with pytest.raises(DissectError) as caught:
            read(corpus, row)
        assert caught.value.offset >= 0, row["path"]
        assert caught.value.expected, row["path"]
        assert caught.value.found, row["path"]


@pytest.mark.parametrize("native", [True, False], ids=["libmspack", "own"])
def test_what_must_be_refused_when_decoding_is(corpus: Path, native: bool) -> None:
    for row in rows(corpus, "reject-data"):
        cabinet = read(corpus, row)
        with pytest.raises(DissectError):
            cabinet.verify(native=native)


def test_a_broken_folder_costs_its_own_members_only(corpus: Path) -> None:
    """The manifest gives a digest or an error for each member here."""
    for row in rows(corpus, "reject-data"):
        expected = json.loads(row["expected"].partition(": ")[2])
        contents = read(corpus, row).examine()
        good = [each.digests is not None for each in contents.members]
        assert good == [not each["result"].startswith("error") for each in expected], row["path"]


def test_a_real_signed_cabinet_has_the_digest_that_was_signed(corpus: Path) -> None:
    path = corpus / "cab" / "kb955430-x86-express.cab"
    said = (corpus / "truth" / "kb955430-cab.txt").read_text()
    with path.open("rb") as file:
        cabinet = Cabinet.parse(file)
        contents = cabinet.verify()
        assert cabinet.signature is not None
        digest = cabinet.signature.digest("sha1").upper()
        der = cabinet.signature.der
    assert f"Calculated message digest : {digest}" in said
    assert der[:2] == b"\x30\x82"
    assert cabinet.signature.offset + len(der) == path.stat().st_size
    assert [folder.compression for folder in cabinet.folders] == ["LZX-21"]
    listed = {line.split()[1]: line.split()[0] for line in said.splitlines()[1:24]}
    assert {each.member.name: each.digests and each.digests.sha256 for each in contents.members} == listed


def test_what_is_not_at_the_start_is_found_by_searching(corpus: Path) -> None:
    for row in rows(corpus, "reject-open"):
        if "embedded" in row["note"]:
            data = (corpus / "payloads" / row["path"]).read_bytes()
            found = list(Cabinet.search(data))
            assert found, row["path"]
            for cabinet in found:
                assert data[cabinet.offset :].startswith(b"MSCF")
                cabinet.verify()


def test_members_shown_to_some_programs_only_are_reported(corpus: Path) -> None:
    cabinet = Cabinet.parse((corpus / "payloads/cab/libmspack-git/hidden-files.cab").read_bytes())
    assert any("programs that believe it show 2 others, the first 'hidden1.txt'" in each for each in cabinet.problems)
