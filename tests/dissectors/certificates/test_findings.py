from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes

from dissectors.certificates import Certificate, Circumstances, Finding, examine, tlv
from dissectors.certificates.chain import build_chain
from dissectors.certificates.x509 import read_certificate
from tests.dissectors.certificates.building import Plan, certificate, der

NOW = datetime(2015, 6, 1, tzinfo=UTC)
ROOT = Plan("Contoso Root", "Contoso Root", ca=True, crl=(), aia=())
ISSUING = Plan("Contoso Issuing", "Contoso Root", ca=True)
SERVER = Plan("pool01.contoso.com", "Contoso Issuing", dns_names=("pool01.contoso.com", "ucupdates-r2.contoso.com"))
PHONE = Circumstances(NOW, "contoso.com")


def chain(*plans: Plan) -> list[Certificate]:
    return [certificate(plan) for plan in plans]


def found(certificates: list[Certificate], circumstances: Circumstances = PHONE) -> dict[str, Finding]:
    return {finding.code: finding for finding in examine(certificates, circumstances) if finding.severity != "info"}


def test_a_good_chain_has_nothing_wrong() -> None:
    assert found(chain(SERVER, ISSUING, ROOT)) == {}
    words = {finding.code for finding in examine(chain(SERVER, ISSUING, ROOT), PHONE)}
    assert {"chain-root", "name-covered", "crl-location", "issuer-location"} <= words


def changed(plan: Plan, **changes: object) -> Plan:
    return Plan(**{**plan.__dict__, **changes})


@pytest.mark.parametrize(
    ("plan", "code", "severity"),
    [
        (changed(SERVER, hash=hashes.SHA256()), "sha2-signature", "error"),
        (changed(SERVER, not_after=NOW - timedelta(days=1)), "expired", "error"),
        (changed(SERVER, not_after=NOW + timedelta(days=9)), "expires-soon", "warning"),
        (changed(SERVER, not_before=NOW + timedelta(days=1)), "not-yet-valid", "error"),
        (changed(SERVER, dns_names=("pool01.contoso.com",)), "name-not-covered", "error"),
        (changed(SERVER, dns_names=("*.contoso.com",)), "name-wildcard", "warning"),
        (changed(SERVER, dns_names=()), "name-not-covered", "error"),
        (changed(SERVER, server=False), "not-for-servers", "error"),
        (changed(SERVER, crl=("ldap:///CN=x",)), "crl-location", "warning"),
        (changed(SERVER, aia=("https://pki.contoso.com/ca.crt",)), "issuer-location", "warning"),
        (changed(SERVER, curve=True), "key-type", "warning"),
    ],
)
def test_each_fault_of_the_server_certificate_has_its_finding(plan: Plan, code: str, severity: str) -> None:
    issuing = certificate(ISSUING)
    finding = found([certificate(plan), issuing, certificate(ROOT)])[code]
    assert finding.severity == severity
    assert finding.evidence["certificate"] == str(certificate(SERVER).subject)
    assert finding.words.endswith(".")
    assert finding.to_json()["code"] == code


def test_a_signature_that_does_not_fit_is_told() -> None:
    octets = der(SERVER)
    forged = read_certificate(tlv.parse_one(octets[:-1] + bytes([octets[-1] ^ 1])))
    assert found([forged, *chain(ISSUING, ROOT)])["bad-signature"].severity == "error"


def test_sha2_is_no_fault_for_later_firmware() -> None:
    modern = chain(changed(SERVER, hash=hashes.SHA256()), ISSUING, ROOT)
    assert found(modern, Circumstances(NOW, "contoso.com", sha2=True)) == {}


def test_a_root_signed_with_sha2_is_no_fault_but_told() -> None:
    certificates = chain(SERVER, ISSUING, changed(ROOT, hash=hashes.SHA256()))
    assert found(certificates) == {}
    assert [one.severity for one in examine(certificates, PHONE) if one.code == "sha2-signature"] == ["info"]


def test_a_server_that_signed_itself_with_sha2_is_only_a_warning() -> None:
    finding = found(chain(changed(SERVER, issuer=SERVER.name, hash=hashes.SHA256())))["sha2-signature"]
    assert finding.severity == "warning"


def test_a_missing_issuer_is_named_with_what_would_find_it() -> None:
    finding = found(chain(SERVER, ISSUING))["chain-incomplete"]
    issuing = certificate(ISSUING)
    assert finding.evidence["missing_issuer"] == str(certificate(ROOT).subject)
    assert finding.evidence["issuer_urls"] == ["http://pki.contoso.com/ca.crt"]
    assert issuing.meaning.authority_key_id is not None
    assert finding.evidence["authority_key_id"] == issuing.meaning.authority_key_id.hex()


def test_a_chain_of_authorities_is_not_asked_for_names() -> None:
    assert found(chain(ISSUING, ROOT)) == {}
    assert found(chain(ROOT)) == {}


def test_the_order_is_told() -> None:
    assert set(found(chain(ROOT, ISSUING, SERVER))) == {"chain-order"}


def test_strangers_and_repetitions_are_told() -> None:
    codes = {
        finding.code for finding in examine(chain(SERVER, ISSUING, ROOT, SERVER, Plan("Stranger", "Nobody")), PHONE)
    }
    assert {"chain-extra", "chain-duplicate"} <= codes


def test_an_issuer_that_is_no_authority_is_told() -> None:
    assert "issuer-not-ca" in found(chain(SERVER, changed(ISSUING, ca=False), ROOT))


@pytest.mark.parametrize(("bits", "severity"), [(1024, "info"), (4096, None)])
def test_the_size_of_a_key(bits: int, severity: str | None) -> None:
    plan = Plan(f"small {bits}", "Contoso Root", bits=bits, dns_names=("ucupdates-r2.contoso.com",))
    sizes = [finding.severity for finding in examine(chain(plan, ROOT), PHONE) if finding.code == "key-size"]
    assert sizes == ([severity] if severity else [])


def test_no_certificate_is_one_finding() -> None:
    assert [finding.code for finding in examine([], PHONE)] == ["chain-empty"]


def test_of_two_roots_of_one_name_the_one_with_the_right_key_is_taken() -> None:
    old = certificate(changed(ROOT, bits=1024))
    new = certificate(ROOT)
    built = build_chain([certificate(ISSUING), old, new])
    assert built.path[-1] == new
    assert built.others == (old,)


def test_a_ring_of_issuers_ends() -> None:
    ring = chain(Plan("A", "B", ca=True), Plan("B", "A", ca=True))
    assert "chain-incomplete" in found(ring)


def test_names_are_compared_without_case_and_final_dot() -> None:
    circumstances = Circumstances(NOW, "CONTOSO.com.", host_names=("POOL01.contoso.com.",))
    assert circumstances.names == ("ucupdates-r2.contoso.com", "pool01.contoso.com")
    assert found(chain(SERVER, ISSUING, ROOT), circumstances) == {}
