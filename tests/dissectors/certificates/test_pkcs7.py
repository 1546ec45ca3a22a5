from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.serialization import pkcs7

from dissectors import DissectError
from dissectors.certificates import Certificate, SignedData, dissect, tlv, verify
from dissectors.certificates.document import MAX_PROBLEMS
from dissectors.certificates.pkcs7 import MAX_SIGNERS
from tests.dissectors.certificates.building import (
    Plan,
    der,
    integer,
    key,
    leaf,
    oid,
    sequence,
    set_of,
    signed_data,
    tagged,
)

SERVER = Plan("pool01.contoso.com", "Contoso Root")
ROOT = Plan("Contoso Root", "Contoso Root", ca=True)
BAG = [der(SERVER), der(ROOT)]
CERTNEW = signed_data("1.2.840.113549.1.7.1", None, BAG)


def only(data: bytes) -> SignedData:
    (item,) = dissect(data).items
    assert isinstance(item, SignedData)
    return item


def test_certs_only_holds_its_certificates_to_the_byte() -> None:
    signed = only(CERTNEW)
    assert signed.certs_only
    assert [certificate.der for certificate in signed.certificates] == BAG
    shown = dissect(CERTNEW).to_json()
    assert (shown["kind"], shown["content_type"], shown["econtent_type"]) == ("pkcs7", "signedData", "data")
    assert shown["problems"] == []


def test_the_chain_of_the_library_is_read_the_same() -> None:
    loaded = [x509.load_der_x509_certificate(octets) for octets in BAG]
    made = pkcs7.serialize_certificates(loaded, serialization.Encoding.PEM)
    document = dissect(made)
    assert (document.form, document.labels) == ("PEM", ("PKCS7",))
    assert {certificate.der for certificate in document.certificates} == set(BAG)


def test_a_wrong_label_is_told() -> None:
    body = base64.encodebytes(CERTNEW)
    document = dissect(b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n")
    assert document.kind == "pkcs7"
    assert document.problems == ("labelled CERTIFICATE, but holds pkcs7",)


def test_a_cut_off_chain_gives_the_whole_certificates() -> None:
    document = dissect(CERTNEW[: -len(BAG[1]) // 2])
    assert [certificate.der for certificate in document.certificates] == [BAG[0]]
    assert any("cut off" in problem for problem in document.problems)


def signed(content: bytes, *options: pkcs7.PKCS7Options, digest: hashes.SHA256 | hashes.SHA384) -> bytes:
    signer = x509.load_der_x509_certificate(BAG[0])
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(signer, key(SERVER.name), digest)
    return builder.sign(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary, *options])


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384()])
def test_a_signature_over_enclosed_content_holds(digest: hashes.SHA256 | hashes.SHA384) -> None:
    whole = only(signed(b"content", digest=digest))
    (verdict,) = verify(whole)
    assert (verdict.digest_matches, verdict.verified) == (True, True)
    assert whole.content == b"content"
    assert whole.signers[0].signing_time is not None


def test_a_signature_without_attributes_is_checked_over_the_content() -> None:
    whole = only(signed(b"content", pkcs7.PKCS7Options.NoAttributes, digest=hashes.SHA256()))
    (verdict,) = verify(whole)
    assert (verdict.digest_matches, verdict.verified) == (None, True)


def test_changed_content_and_changed_attributes_are_told_apart() -> None:
    octets = signed(b"content", digest=hashes.SHA256())
    (verdict,) = verify(only(octets.replace(b"content", b"CONTENT")))
    assert (verdict.digest_matches, verdict.verified) == (False, False)
    time = only(octets).signers[0].signing_time
    assert time is not None
    was = time.strftime("%y%m%d%H%M%SZ").encode()
    assert was in octets
    (verdict,) = verify(only(octets.replace(was, b"000101000000Z")))
    assert (verdict.digest_matches, verdict.verified) == (True, False)


def test_a_detached_signature_needs_its_content() -> None:
    whole = only(signed(b"content", pkcs7.PKCS7Options.DetachedSignature, digest=hashes.SHA256()))
    assert [verdict.verified for verdict in verify(whole)] == [None]
    assert [verdict.verified for verdict in verify(whole, b"content")] == [True]
    assert [verdict.verified for verdict in verify(whole, b"other")] == [False]


def test_a_signer_whose_certificate_is_missing_is_not_verified() -> None:
    octets = signed(b"content", pkcs7.PKCS7Options.NoCerts, digest=hashes.SHA256())
    (verdict,) = verify(only(octets))
    assert (verdict.digest_matches, verdict.verified) == (True, None)
    assert "certificate is not in the file" in verdict.reason


@pytest.mark.parametrize(
    ("kind", "name"), [("1.2.840.113549.1.7.3", "envelopedData"), ("1.2.840.113549.1.9.16.1.9", "compressedData")]
)
def test_other_content_is_named_and_not_opened(kind: str, name: str) -> None:
    shown = dissect(sequence(oid(kind), tagged(0, sequence(integer(0))))).to_json()
    assert (shown["kind"], shown["content_type"]) == ("pkcs7", name)


def test_signed_data_without_content_is_refused() -> None:
    with pytest.raises(DissectError):
        dissect(sequence(oid("1.2.840.113549.1.7.2"), tagged(0, set_of())) + b"\xff")


def test_certificates_one_after_the_other_are_all_found() -> None:
    document = dissect(b"".join(BAG))
    assert document.kind == "certificates"
    assert [certificate.der for certificate in document.certificates] == BAG
    assert len(document.to_json()["certificates"]) == 2


def test_what_follows_is_counted_and_padding_is_no_problem() -> None:
    assert dissect(CERTNEW + b"\0\0").problems == ()
    loud = dissect(CERTNEW + b"overlay")
    assert loud.trailing == 7
    assert loud.problems == (f"7 bytes follow at offset {len(CERTNEW)}",)


def test_a_damaged_certificate_leaves_the_others() -> None:
    broken = sequence(sequence(integer(1)))
    document = dissect(signed_data("1.2.840.113549.1.7.1", None, [broken, BAG[1]]))
    assert [certificate.der for certificate in document.certificates] == [BAG[1]]
    assert len(document.problems) == 1


def test_one_certificate_is_a_certificate() -> None:
    (item,) = dissect(BAG[0]).items
    assert isinstance(item, Certificate)
    shown = dissect(BAG[0]).to_json()
    assert (shown["kind"], shown["form"], shown["sha256"]) == ("certificate", "DER", item.sha256)


def test_the_nodes_of_all_blocks_count_together() -> None:
    nulls = base64.encodebytes(sequence(leaf(tlv.NULL, b"") * (tlv.MAX_NODES // 10)))
    block = b"-----BEGIN X-----\n" + nulls + b"-----END X-----\n"
    document = dissect(block * 12)
    assert len(document.items) == 9
    assert "nodes in a file" in document.problems[0]


def test_many_problems_are_summed_up() -> None:
    document = dissect(signed_data("1.2.840.113549.1.7.1", None, [sequence(integer(1))] * 500))
    assert len(document.problems) == MAX_PROBLEMS + 1
    assert document.problems[-1] == "and 300 more problems"


def test_only_so_many_signers_are_read() -> None:
    many = set_of(*[sequence(integer(1))] * (MAX_SIGNERS + 1))
    inner = sequence(integer(1), set_of(), sequence(oid("1.2.840.113549.1.7.1")), many)
    document = dissect(sequence(oid("1.2.840.113549.1.7.2"), tagged(0, inner)))
    assert document.problems[0] == f"only {MAX_SIGNERS} of {MAX_SIGNERS + 1} signers are read"
