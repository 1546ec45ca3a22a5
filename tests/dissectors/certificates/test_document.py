from __future__ import annotations

import json
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from dissectors.certificates import dissect, tlv
from tests.dissectors.certificates.building import (
    YEAR_2010,
    YEAR_2020,
    Plan,
    der,
    integer,
    key,
    leaf,
    octets,
    sequence,
    signed_data,
)

NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Contoso Root")])


def test_a_revocation_list_is_counted_and_dated() -> None:
    builder = x509.CertificateRevocationListBuilder(NAME, YEAR_2010, YEAR_2020)
    for serial in (5, 6, 7):
        revoked = x509.RevokedCertificateBuilder(serial, datetime(2012, 1, 1, tzinfo=UTC)).build()
        builder = builder.add_revoked_certificate(revoked)
    made = builder.sign(key("Contoso Root"), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    shown = dissect(made).to_json()
    assert (shown["kind"], shown["form"], shown["labels"]) == ("crl", "PEM", ["X509 CRL"])
    assert (shown["issuer"], shown["revoked"]) == ("CN=Contoso Root", 3)
    assert (shown["this_update"], shown["next_update"]) == ("2010-01-01T00:00:00Z", "2020-01-01T00:00:00Z")
    assert shown["problems"] == []


def test_a_request_says_for_whom_and_what_key() -> None:
    request = x509.CertificateSigningRequestBuilder(NAME).sign(key("phone", 1024), hashes.SHA256())
    shown = dissect(request.public_bytes(serialization.Encoding.DER)).to_json()
    assert (shown["kind"], shown["subject"]) == ("certificate-request", "CN=Contoso Root")
    assert shown["key"] == {"type": "RSA", "bits": 1024}
    assert shown["signature_algorithm"] == "sha256WithRSAEncryption"


def test_what_has_no_name_is_shown_as_it_is_built() -> None:
    shown = dissect(sequence(integer(1), octets(b"\xaa" * 40), leaf(2, b"x", tlv.CONTEXT))).to_json()
    assert shown["kind"] == "der"
    assert [(node["offset"], node["depth"], node["tag"], node["size"]) for node in shown["nodes"]] == [
        (0, 0, "SEQUENCE", 48),
        (2, 1, "INTEGER", 1),
        (5, 1, "OCTET STRING", 40),
        (47, 1, "[2]", 1),
    ]
    assert shown["nodes"][2]["value"] == "aa" * 32


def indefinite(encoded: bytes) -> bytes:
    """The same node with an indefinite length."""
    node = tlv.parse_one(encoded)
    return encoded[:1] + b"\x80" + node.value + b"\0\0"


def test_only_what_must_be_der_is_wrong_in_ber() -> None:
    root = der(Plan("Contoso Root", "Contoso Root", ca=True))
    whole = signed_data("1.2.840.113549.1.7.1", None, [root])
    for data in (whole, indefinite(whole), indefinite(sequence(integer(1)))):
        document = dissect(data)
        assert (document.ber, document.problems) == (data is not whole, ())
    for data, kind, offset in (
        (indefinite(root), "certificate", 0),
        (indefinite(whole) + indefinite(root), "pki", None),
    ):
        document = dissect(data)
        assert (document.kind, document.ber) == (kind, True)
        at = len(indefinite(whole)) if offset is None else offset
        assert f"BER, not DER: indefinite length at offset {at}" in document.problems


def test_a_mixture_lists_its_items() -> None:
    root = der(Plan("Contoso Root", "Contoso Root", ca=True))
    document = dissect(root + signed_data("1.2.840.113549.1.7.1", None, [root]))
    shown = json.loads(json.dumps(document.to_json()))
    assert shown["kind"] == "pki"
    assert [item["kind"] for item in shown["items"]] == ["certificate", "pkcs7"]
    assert len(document.certificates) == 2
