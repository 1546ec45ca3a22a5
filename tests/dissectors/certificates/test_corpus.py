"""Every PKI file of the corpus against what other programs say of it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dissectors import DissectError
from dissectors.certificates import SignedData, dissect, prove, verify
from dissectors.file_digests import FileDigests
from tests.conftest import CORPUS, require_tool

# asn1crypto's words for content types.
NAMES = {
    "signed_data": "signedData",
    "enveloped_data": "envelopedData",
    "encrypted_data": "encryptedData",
    "digested_data": "digestedData",
    "compressed_data": "compressedData",
    "data": "data",
}


def manifest() -> Iterator[Any]:
    path = CORPUS / "payloads/MANIFEST.tsv"
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            yield from (pytest.param(row, id=row["path"]) for row in rows if row["path"].startswith("pki/"))


def truth() -> Iterator[Any]:
    path = CORPUS / "truth/der.json"
    if path.is_file():
        for name, told in json.loads(path.read_text(encoding="utf-8")).items():
            yield pytest.param(name, told, id=name)


@pytest.mark.parametrize("row", list(manifest()))
def test_the_manifest_agrees(row: dict[str, str], corpus: Path) -> None:
    data = (corpus / "payloads" / row["path"]).read_bytes()
    expected = row["expected"]
    if row["kind"].startswith("catalog-member"):
        with pytest.raises(DissectError):
            dissect(data)
        return
    document = dissect(data)
    shown = document.to_json()
    json.dumps(shown)
    assert document.kind == {"catalog": "ctl", "ctl": "ctl", "pkcs7": "pkcs7"}[row["kind"]]
    if document.kind == "ctl":
        assert (shown["usage"] == "catalog") == (row["kind"] == "catalog")
    if count := re.search(r"cryptography:(\d+) certs", expected):
        assert len(document.certificates) == int(count[1])
    if "asn1crypto:ValueError" in expected:
        return
    told = re.search(r"asn1crypto:(\w+)(?: econtent=(\S+) certs=(\d+) signers=(\d+))?", expected)
    assert told is not None
    assert shown["content_type"] == NAMES[told[1]]
    if told[1] == "signed_data":
        assert told[2] in {shown["econtent_oid"], *(old for old, new in NAMES.items() if new == shown["econtent_type"])}
        assert (len(shown["certificates"]), len(shown["signers"])) == (int(told[3]), int(told[4]))


@pytest.mark.parametrize(("name", "told"), list(truth()))
def test_the_truth_agrees(name: str, told: dict[str, Any], corpus: Path) -> None:
    data = (corpus / "der" / name).read_bytes()
    try:
        document = dissect(data)
    except DissectError:
        # Whatever a library could make sense of, must be told here too.
        assert told["cryptography"] != "ok"
        return
    json.dumps(document.to_json())
    assert document.form == told["form"]
    if told["cryptography"] == "ok":
        wanted = {"openssl_x509": "certificate", "openssl_crl": "crl", "openssl_pkcs7": "pkcs7"}
        assert document.kind == next(kind for key, kind in wanted.items() if key in told)
        assert not any("not accepted by cryptography" in problem for problem in _loading_problems(document.problems))
    elif document.kind in {"certificate", "crl"}:
        assert document.problems


def _loading_problems(problems: tuple[str, ...]) -> list[str]:
    """Those of reading the whole; the truth's "ok" says nothing of single extensions, which are read later."""
    return [problem for problem in problems if "ParseError" in problem and "location" in problem]


def openssl_verifies(openssl: str, signature: Path) -> bool:
    """Whether OpenSSL finds digest and signature right; chains and purposes are not asked about."""
    command = [openssl, "cms", "-verify", "-noverify", "-inform", "DER", "-in", str(signature), "-out", "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_openssl_agrees_on_signatures(corpus: Path) -> None:
    openssl = require_tool("openssl")
    compared = []
    for path in sorted(corpus.glob("payloads/pki/*/*")):
        try:
            document = dissect(path.read_bytes())
        except DissectError:
            continue
        (item, *_) = document.items
        if not isinstance(item, SignedData) or document.form != "DER" or item.content_type != "1.2.840.113549.1.7.1":
            continue
        verdicts = [verdict.verified for verdict in verify(item)]
        if verdicts and None not in verdicts:
            assert openssl_verifies(openssl, path) == all(verdicts), path.name
            compared.append(all(verdicts))
    assert {True, False} == set(compared)


def test_every_signed_list_of_the_corpus_verifies(corpus: Path) -> None:
    verified = 0
    for path in [*corpus.glob("payloads/pki/*/*.cat"), *corpus.glob("payloads/pki/*/*.stl")]:
        (item,) = dissect(path.read_bytes()).items
        assert isinstance(item, SignedData)
        assert all(verdict.verified for verdict in verify(item)), path.name
        verified += len(item.signers)
    assert verified


def members(cabinet: Path, folder: Path) -> dict[str, bytes]:
    """The members of a cabinet by another program than ours."""
    subprocess.run([require_tool("cabextract"), "-q", "-d", str(folder), str(cabinet)], check=True, capture_output=True)
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_catalogs_of_a_real_cabinet_list_its_members(corpus: Path, tmp_path: Path) -> None:
    held = members(corpus / "cab/kb955430-x86-express.cab", tmp_path)
    told = (corpus / "truth/kb955430-cab.txt").read_text(encoding="utf-8")
    catalogs = []
    for name, count in re.findall(r"^(\S+\.cat): (\d+) certs$", told, re.MULTILINE):
        document = dissect(held[name])
        assert len(document.certificates) == int(count)
        (item,) = document.items
        assert isinstance(item, SignedData)
        assert [verdict.verified for verdict in verify(item)] == [True]
        assert item.catalog is not None
        catalogs.append((name, item.catalog))
    assert len(catalogs) == 10
    # Each catalog is for the manifest of its own name.
    for name, catalog in catalogs:
        manifest_name = name.removesuffix("cat") + "mum"
        listed = {
            proof.file
            for file in held
            for proof in prove(file, FileDigests.of(held[file]), [(name, catalog)])
            if proof.listed
        }
        assert manifest_name in listed
        assert not any(file.endswith(".cat") for file in listed)
        assert not any(file.endswith(".mum") for file in listed - {manifest_name})


def test_the_signature_of_a_real_cabinet_is_told_as_osslsigncode_tells_it(corpus: Path) -> None:
    whole = (corpus / "cab/kb955430-x86-express.cab").read_bytes()
    told = (corpus / "truth/kb955430-cab.txt").read_text(encoding="utf-8")
    at, size = (int.from_bytes(whole[place : place + 4], "little") for place in (44, 48))
    (item,) = dissect(whole[at : at + size]).items
    assert isinstance(item, SignedData)
    assert item.indirect_data is not None
    assert item.indirect_data.digest_algorithm == "sha1"
    assert f"Current message digest    : {item.indirect_data.digest.hex().upper()}" in told
    (signer,) = item.signers
    shown = signer.to_json()
    assert f"Serial : {shown['serial']}" in told
    assert f"URL description: {shown['url']}" in told
    assert f"Text description: {shown['program']}" in told
    assert f"Message digest: {shown['message_digest'].upper()}" in told
    (countersigner,) = shown["countersigners"]
    assert countersigner["signing_time"] == "2009-04-11T10:24:18Z"
    assert f"Serial: {countersigner['serial']}" in told
    assert [verdict.verified for verdict in verify(item)] == [True]


def test_the_root_list_of_a_real_cabinet(corpus: Path, tmp_path: Path) -> None:
    (data,) = members(corpus / "cab/authrootstl.cab", tmp_path).values()
    document = dissect(data)
    told = (corpus / "truth/authrootstl.txt").read_text(encoding="utf-8")
    assert document.catalog is not None
    assert document.catalog.usage == "rootListSigner"
    assert len(document.catalog.members) > 300
    assert all(len(member.tag) == 20 for member in document.catalog.members)
    for certificate in document.certificates:
        subject = ", ".join(f"{kind} = {value}" for kind, value in certificate.subject.parts)
        assert f"subject={subject}" in told
