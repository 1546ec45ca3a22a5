"""Nothing of a private key is shown, whatever its form and however much of it is left."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)

from dissectors import DissectError
from dissectors.certificates import dissect, may_be_key, tlv
from tests.dissectors.certificates.building import Plan, der, integer, leaf, octets, sequence

Secrets = tuple[bytes, ...]


def number(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


RSA = rsa.generate_private_key(public_exponent=65537, key_size=1024)
CURVE = ec.generate_private_key(ec.SECP256R1())
EDWARDS = ed25519.Ed25519PrivateKey.generate()
DSA = dsa.generate_private_key(1024)
PRIME = RSA.private_numbers()
RSA_SECRETS = tuple(map(number, (PRIME.d, PRIME.p, PRIME.q, PRIME.dmp1, PRIME.dmq1, PRIME.iqmp)))
CURVE_SECRETS = (CURVE.private_numbers().private_value.to_bytes(32, "big"),)
PLAIN, LOCKED = NoEncryption(), BestAvailableEncryption(b"secret")
PKCS8, TRADITIONAL = PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL
KEYS: dict[tuple[str, str | None, bool | None], tuple[bytes, Secrets]] = {
    ("PKCS #8", "RSA", False): (RSA.private_bytes(Encoding.DER, PKCS8, PLAIN), RSA_SECRETS),
    ("PKCS #8", "EC", False): (CURVE.private_bytes(Encoding.DER, PKCS8, PLAIN), CURVE_SECRETS),
    ("PKCS #8", "Ed25519", False): (
        EDWARDS.private_bytes(Encoding.DER, PKCS8, PLAIN),
        (EDWARDS.private_bytes(Encoding.Raw, PrivateFormat.Raw, PLAIN),),
    ),
    ("PKCS #8", None, True): (RSA.private_bytes(Encoding.DER, PKCS8, LOCKED), ()),
    ("PKCS #1", "RSA", False): (RSA.private_bytes(Encoding.DER, TRADITIONAL, PLAIN), RSA_SECRETS),
    ("SEC 1", "EC", False): (CURVE.private_bytes(Encoding.DER, TRADITIONAL, PLAIN), CURVE_SECRETS),
    ("DSA", "DSA", False): (
        DSA.private_bytes(Encoding.DER, TRADITIONAL, PLAIN),
        (number(DSA.private_numbers().x),),
    ),
    ("PKCS #12", None, None): (pkcs12.serialize_key_and_certificates(b"n", RSA, None, None, PLAIN), RSA_SECRETS),
}
every_key = pytest.mark.parametrize(("told", "made"), KEYS.items(), ids=[f"{form} {of}" for form, of, _ in KEYS])


def pem(label: str, octets: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(octets) + f"-----END {label}-----\n".encode()


def discloses(shown: object, secrets: Iterable[bytes]) -> bool:
    """Whether six octets of a secret that follow one another are in it, as digits or in base64."""
    text = json.dumps(shown).lower()
    return any(secret[at : at + 6].hex() in text for secret in secrets for at in range(len(secret) - 5))


@every_key
def test_a_key_is_told_and_not_shown(told: tuple[str, str | None, bool | None], made: tuple[bytes, Secrets]) -> None:
    key, secrets = made
    forms = {"DER": key, "base64": base64.encodebytes(key), "PEM": pem("CERTIFICATE", key)}
    for form, data in forms.items():
        shown = dissect(data).to_json()
        assert (shown["kind"], shown["form"], shown["octets"]) == ("private-key", form, "not shown")
        assert (shown["key_format"], shown["algorithm"], shown["encrypted"]) == told
        assert not discloses(shown, secrets)


@every_key
def test_what_is_left_of_a_key_is_not_shown_either(
    told: tuple[str, str | None, bool | None], made: tuple[bytes, Secrets]
) -> None:
    key, secrets = made
    for size in range(8, len(key)):
        try:
            shown = dissect(key[:size]).to_json()
        except DissectError:
            # Then its first bytes would be: those of short keys are more than the frame.
            assert may_be_key(key[:size]) or size < 20 or told[2]
            assert may_be_key(base64.b64encode(key[:size])) == may_be_key(key[:size])
        else:
            assert not discloses(shown, secrets)


@every_key
def test_a_key_inside_of_something_else_is_not_shown(
    told: tuple[str, str | None, bool | None], made: tuple[bytes, Secrets]
) -> None:
    key, secrets = made
    for held in (key, octets(key), leaf(0, key, tlv.CONTEXT)):
        shown = dissect(sequence(integer(7), held, integer(8))).to_json()
        assert shown["kind"] == "der"
        assert not discloses(shown, secrets)
        assert [node["value"] for node in shown["nodes"] if node["depth"] == 1][0::2] == ["07", "08"]
    assert told[0] in json.dumps(dissect(integer(7) + key).to_json())


def test_a_key_beside_its_chain_is_told_beside_it() -> None:
    leaf_der, root = der(Plan("pool", "Contoso Root")), der(Plan("Contoso Root", "Contoso Root", ca=True))
    key = RSA.private_bytes(Encoding.DER, TRADITIONAL, PLAIN)
    chain = pem("CERTIFICATE", leaf_der) + pem("CERTIFICATE", root)
    for data in (chain + pem("RSA PRIVATE KEY", key), pem("X", key) + chain, key + leaf_der + root):
        shown = dissect(data).to_json()
        assert (shown["kind"], shown["problems"], len(shown["certificates"])) == ("certificates", [], 2)
        assert [one["key_format"] for one in shown["private_keys"]] == ["PKCS #1"]
    assert "private_keys" not in dissect(chain).to_json()


def test_a_label_is_believed_that_says_a_key() -> None:
    shown = dissect(pem("ENCRYPTED PRIVATE KEY", b"\x30\x03\x02\x01\x05") + pem("OTHER PRIVATE KEY", b"?")).to_json()
    assert (shown["kind"], shown["labels"]) == ("private-key", ["ENCRYPTED PRIVATE KEY", "OTHER PRIVATE KEY"])
    assert [(item["key_format"], item["encrypted"]) for item in shown["items"]] == [
        ("PKCS #8", True),
        ("OTHER PRIVATE KEY", None),
    ]


@pytest.mark.parametrize(
    "other",
    [
        sequence(integer(2**300), integer(2**200), integer(2**100)),  # parameters of DSA
        sequence(integer(1), octets(b"public"), leaf(2, b"x", tlv.CONTEXT)),
        sequence(sequence(leaf(tlv.OID, b"\x2b\x0e\x03\x02\x1a")), octets(bytes(20))),  # a digest with its algorithm
    ],
)
def test_other_structures_are_shown(other: bytes) -> None:
    shown = dissect(other).to_json()
    assert shown["kind"] == "der"
    assert "not shown" not in json.dumps(shown)
