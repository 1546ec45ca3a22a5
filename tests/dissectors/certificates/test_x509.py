from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.certificates import Certificate, dissect, tlv
from dissectors.certificates.meaning import by_cryptography, by_tlv
from dissectors.certificates.names import Name
from dissectors.certificates.x509 import read_certificate
from tests.dissectors.certificates.building import (
    YEAR_2010,
    YEAR_2020,
    Plan,
    certificate,
    der,
    key,
    leaf,
    oid,
    sequence,
    set_of,
)

SERVER = Plan("pool01.contoso.com", "Contoso Root", dns_names=("pool01.contoso.com", "ucupdates-r2.contoso.com"))
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "phone1")])
ROOT = Plan("Contoso Root", "Contoso Root", ca=True, hash=hashes.SHA256())


def test_a_certificate_says_what_it_was_made_to_say() -> None:
    found = certificate(SERVER)
    assert str(found.subject) == "CN=pool01.contoso.com,O=Contoso\\, Ltd.,C=US"
    assert found.issuer.common_name == "Contoso Root"
    assert (found.not_before, found.not_after) == (YEAR_2010, YEAR_2020)
    assert (found.version, found.signature_algorithm, found.signature_hash) == (3, "sha1WithRSAEncryption", "sha1")
    assert not found.self_issued
    assert found.problems == ()
    shown = found.to_json()
    assert shown["key"] == {"type": "RSA", "bits": 2048}
    assert shown["dns_names"] == list(SERVER.dns_names)
    assert shown["extended_key_usage"] == ["serverAuth"]
    assert shown["crl_urls"] == ["http://pki.contoso.com/ca.crl"]
    assert shown["issuer_urls"] == ["http://pki.contoso.com/ca.crt"]
    assert shown["not_after"] == "2020-01-01T00:00:00Z"


def test_a_root_is_self_issued_and_an_authority() -> None:
    found = certificate(ROOT)
    assert found.self_issued
    assert found.meaning.is_ca
    assert found.meaning.key_usage == ("digitalSignature", "keyCertSign", "cRLSign")
    assert found.signature_hash == "sha256"


# Not a lone blank: that library escapes it twice.
TEXT = st.text(
    st.characters(min_codepoint=1, max_codepoint=0x2FF) | st.sampled_from(' #,+"\\<>;=\0'), min_size=1, max_size=12
).filter(lambda text: text != " ")


@given(st.lists(st.tuples(st.sampled_from([NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME]), TEXT), max_size=4))
def test_a_name_is_written_as_another_library_writes_it(pairs: list[tuple[x509.ObjectIdentifier, str]]) -> None:
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in pairs])
    assert str(Name.read(tlv.parse_one(name.public_bytes()))) == name.rfc4514_string()


def test_pairs_of_one_part_are_joined_by_a_plus() -> None:
    kinds = {NameOID.SERIAL_NUMBER: "07823", NameOID.COMMON_NAME: "phone+1"}
    phone = x509.RelativeDistinguishedName([x509.NameAttribute(kind, value) for kind, value in kinds.items()])
    country = x509.RelativeDistinguishedName([x509.NameAttribute(NameOID.COUNTRY_NAME, "US")])
    name = Name.read(tlv.parse_one(x509.Name([country, phone]).public_bytes()))
    assert str(name) == "CN=phone\\+1+serialNumber=07823,C=US"
    assert name.parts == (("C", "US"), ("serialNumber", "07823"), ("CN", "phone+1"))


def both_meanings(found: Certificate) -> None:
    """What the library says and what the tree says are the same."""
    theirs, refusal = by_cryptography(found.der)
    assert refusal is None
    key = _key_node(found.der)
    problems: list[str] = []
    ours = by_tlv(key, found.extensions, problems)
    # Sizes of other keys than RSA are told by the library alone.
    if theirs.key_type != "RSA":
        assert ours.key_type == theirs.key_type
    else:
        assert (ours.key_type, ours.key_bits) == (theirs.key_type, theirs.key_bits)
    for name in (
        *("is_ca", "path_length", "dns_names", "other_names", "key_usage", "extended_key_usage"),
        *("crl_urls", "issuer_urls", "ocsp_urls", "subject_key_id", "authority_key_id"),
    ):
        assert getattr(ours, name) == getattr(theirs, name), (str(found.subject), name)
    assert problems == []


def _key_node(octets: bytes) -> tlv.Node:
    fields = [child for child in tlv.read(octets).roots[0].children[0].children if child.tag.cls == tlv.UNIVERSAL]
    return fields[5]


@pytest.mark.parametrize("plan", [SERVER, ROOT, Plan("ec", "Contoso Root", curve=True)])
def test_library_and_tree_agree_on_what_a_certificate_means(plan: Plan) -> None:
    both_meanings(certificate(plan))


def test_every_kind_of_alternative_name_is_told() -> None:
    upn = leaf(tlv.UTF8_STRING, b"phone1@contoso.com")
    names = [
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), upn),
        x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), sequence()),
        x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), upn),
        x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a+b")])),
        x509.RegisteredID(x509.ObjectIdentifier("1.2.3.5")),
        x509.RFC822Name("a@contoso.com"),
    ]
    made = (
        x509.CertificateBuilder(NAME, NAME, key("names").public_key(), 7, YEAR_2010, YEAR_2020)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key("names"), hashes.SHA256())
    )
    found = read_certificate(tlv.parse_one(made.public_bytes(serialization.Encoding.DER)))
    assert found.to_json()["other_names"] == [
        "upn:phone1@contoso.com",
        "other:1.3.6.1.4.1.311.20.2.3",
        "other:1.2.3.4",
        "directory:CN=a\\+b",
        "oid:1.2.3.5",
        "email:a@contoso.com",
    ]
    both_meanings(found)


def test_library_and_tree_agree_on_the_corpus(corpus: Path) -> None:
    compared = 0
    for path in [*sorted(corpus.glob("der/cv-*")), *sorted(corpus.glob("payloads/pki/*/*"))]:
        try:
            document = dissect(path.read_bytes())
        except DissectError:
            continue
        for found in document.certificates:
            if by_cryptography(found.der)[1] is None:
                both_meanings(found)
                compared += 1
    assert compared > 30


def test_a_certificate_that_the_library_refuses_is_told_from_its_tree() -> None:
    whole = der(SERVER)
    bad = whole.replace(b"200101000000Z", b"200101000000z")
    found = read_certificate(tlv.parse_one(bad))
    with pytest.raises(ValueError, match="InvalidValue"):
        x509.load_der_x509_certificate(bad)
    assert found.not_after is None
    assert found.meaning.dns_names == SERVER.dns_names
    assert found.meaning.key_bits == 2048
    assert any("not accepted by cryptography" in problem for problem in found.problems)


def test_fingerprints_are_those_of_the_octets() -> None:
    found = certificate(SERVER)
    theirs = x509.load_der_x509_certificate(found.der)
    assert found.sha1 == theirs.fingerprint(hashes.SHA1()).hex()
    assert found.sha256 == theirs.fingerprint(hashes.SHA256()).hex()


def test_a_value_that_is_no_text_is_shown_as_it_is() -> None:
    odd = sequence(set_of(sequence(oid("2.5.4.3"), leaf(tlv.BIT_STRING, b"\0\1"))))
    assert Name.read(tlv.parse_one(odd)).parts == (("CN", "#03020001"),)


def test_the_beginning_of_a_certificate_is_refused() -> None:
    with pytest.raises(DissectError):
        dissect(der(SERVER)[:10])


@pytest.mark.parametrize("cut", [200, -1])
def test_of_a_cut_off_certificate_the_nodes_are_shown(cut: int) -> None:
    found = dissect(der(SERVER)[:cut])
    assert (found.kind, found.certificates) == ("der", ())
    assert found.problems[0].startswith("cut off or damaged: at offset 0")


@pytest.mark.parametrize(
    "noise", [b"0102030405060708090A0B0C0D0E0F" * 3, b"0\x82\x10\0" + b"\xff" * 200, b"0\x80" + bytes(60)]
)
def test_what_only_begins_like_an_encoding_is_refused(noise: bytes) -> None:
    with pytest.raises(DissectError):
        dissect(noise)
