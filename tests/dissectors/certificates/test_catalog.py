from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.certificates import Catalog, dissect, prove, tlv, unmatched
from dissectors.file_digests import FileDigests
from tests.dissectors.certificates.building import (
    algorithm,
    integer,
    leaf,
    octets,
    oid,
    sequence,
    set_of,
    signed_data,
    tagged,
    utc_time,
)

FILE = b"The image that the catalog is about."
SHA1, SHA256 = hashlib.sha1(FILE).digest(), hashlib.sha256(FILE).digest()


def attribute(kind: str, value: bytes) -> bytes:
    return sequence(oid(kind), set_of(value))


def name_value(name: str, value: str) -> bytes:
    text = leaf(tlv.BMP_STRING, name.encode("utf-16-be"))
    return sequence(text, integer(0x10010001), octets((value + "\0").encode("utf-16-le")))


def indirect(digest: bytes, subject: str = "1.3.6.1.4.1.311.2.1.25") -> bytes:
    kind = "1.3.14.3.2.26" if len(digest) == 20 else "2.16.840.1.101.3.4.2.1"
    return sequence(
        sequence(oid(subject), tagged(2, leaf(0, b"", tlv.CONTEXT))), sequence(algorithm(kind), octets(digest))
    )


def old_tag(digest: bytes) -> bytes:
    return (digest.hex().upper() + "\0").encode("utf-16-le")


def member(tag: bytes, *attributes: bytes) -> bytes:
    return sequence(octets(tag), set_of(*attributes))


def listing(*members: bytes, usage: str = "1.3.6.1.4.1.311.12.1.1", version: bool = False) -> bytes:
    extension = sequence(oid("1.3.6.1.4.1.311.12.2.1"), octets(name_value("OSAttr", "2:6.0")))
    content = sequence(
        *((integer(1),) if version else ()),
        sequence(oid(usage)),
        octets(b"\1" * 16),
        utc_time("090411101741Z"),
        algorithm("1.3.6.1.4.1.311.12.1.2"),
        sequence(*members),
        tagged(0, sequence(extension)),
    )
    return signed_data("1.3.6.1.4.1.311.10.1", content)


def catalog_of(data: bytes) -> Catalog:
    found = dissect(data).catalog
    assert found is not None
    return found


def test_an_old_catalog_says_what_it_lists() -> None:
    named = attribute("1.3.6.1.4.1.311.12.2.1", name_value("File", "cpe.nbt"))
    data = listing(member(old_tag(SHA1), attribute("1.3.6.1.4.1.311.2.1.4", indirect(SHA1)), named))
    catalog = catalog_of(data)
    assert catalog.is_catalog
    assert catalog.this_update == datetime(2009, 4, 11, 10, 17, 41, tzinfo=UTC)
    assert catalog.attributes == {"OSAttr": "2:6.0"}
    shown = dissect(data).to_json()
    assert (shown["kind"], shown["usage"]) == ("ctl", "catalog")
    assert shown["members"] == [
        {
            "tag": SHA1.hex().upper(),
            "file": "cpe.nbt",
            "digests": [{"algorithm": "sha1", "digest": SHA1.hex(), "subject": "file"}],
            "attributes": {"File": "cpe.nbt"},
        }
    ]


@pytest.mark.parametrize(
    ("entry", "hash_name", "by"),
    [
        (member(SHA1), "sha1", "tag"),
        (member(SHA256), "sha256", "tag"),
        (member(old_tag(SHA1)), "sha1", "tag"),
        (member(old_tag(SHA256)), "sha256", "tag"),
        (member(b"name", attribute("1.3.6.1.4.1.311.2.1.4", indirect(SHA256))), "sha256", "digest"),
    ],
)
def test_a_file_is_proved_by_any_of_its_digests(entry: bytes, hash_name: str, by: str) -> None:
    catalogs = [("a.cat", catalog_of(listing(entry))), ("b.cat", catalog_of(listing(member(b"\2" * 20))))]
    here, there = prove("cpe.nbt", FileDigests.of(FILE), catalogs)
    assert here.listed
    assert here.listing is not None
    assert (here.listing.hash, here.listing.by) == (hash_name, by)
    assert there.to_json() == {"file": "cpe.nbt", "catalog": "b.cat", "listed": False}
    assert not any(proof.listed for proof in prove("other", FileDigests.of(FILE + b"!"), catalogs))


def test_a_root_list_says_nothing_of_files() -> None:
    roots = catalog_of(listing(member(SHA1), usage="1.3.6.1.4.1.311.10.3.9", version=True))
    assert roots.usage == "rootListSigner"
    assert prove("x", FileDigests.of(FILE), [("authroot.stl", roots)]) == ()
    assert roots.lists(sha1=SHA1) is not None


def test_entries_without_their_file_are_counted() -> None:
    catalog = catalog_of(listing(member(SHA1), member(b"\3" * 32)))
    assert unmatched(catalog, [FileDigests.of(FILE)]) == 1
    assert unmatched(catalog, []) == 2


def test_a_broken_entry_leaves_the_others() -> None:
    document = dissect(listing(sequence(integer(1)), member(SHA1)))
    assert document.catalog is not None
    assert len(document.catalog.members) == 1
    assert any("list entry" in problem for problem in document.problems)


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=8, unique=True), st.binary(min_size=32, max_size=32))
def test_exactly_what_is_listed_is_found(listed: list[bytes], other: bytes) -> None:
    catalog = catalog_of(listing(*map(member, listed)))
    assert all(catalog.lists(sha256=digest) for digest in listed)
    assert (catalog.lists(sha256=other) is None) == (other not in listed)
    assert catalog.lists() is None


def test_a_real_catalog_lists_its_driver(corpus: Path) -> None:
    folder = corpus / "payloads/pki/signify"
    catalog = catalog_of((folder / "oem89.cat").read_bytes())
    (proof,) = prove("inf", FileDigests.of((folder / "amdacpbtscoext.inf").read_bytes()), [("oem89.cat", catalog)])
    assert proof.listing is not None
    assert (proof.listing.hash, proof.listing.member.file_name) == ("sha1", "amdacpbtscoext.inf")
    other = (folder / "catfiletest.cat").read_bytes()
    assert not prove("cat", FileDigests.of(other), [("oem89.cat", catalog)])[0].listed
