"""The chain in a bag of certificates, as `certnew.p7b` and a TLS handshake hand them over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dissectors.certificates.names import Name
from dissectors.certificates.x509 import Certificate

MAX_LENGTH = 16  # a chain of more certificates than this is none


@dataclass(frozen=True, slots=True)
class Chain:
    """`path` leads from the lowest certificate towards the root; `given` is the bag as it came, `others` the rest."""

    given: tuple[Certificate, ...]
    path: tuple[Certificate, ...]
    others: tuple[Certificate, ...]


def build_chain(certificates: Sequence[Certificate]) -> Chain:
    """The longest chain, from a server's certificate if there is one; of equal ones the first. The bag holds some."""
    distinct = tuple(dict.fromkeys(certificates))
    issuers = _Issuers(distinct)
    issuing = {certificate.issuer for certificate in distinct if not certificate.self_issued}
    # Only what has issued nothing here can be the lowest; a ring of certificates has no such thing.
    starts = [certificate for certificate in distinct if certificate.subject not in issuing] or [distinct[0]]
    servers = [certificate for certificate in starts if not certificate.meaning.is_ca]
    path = max((_climb(start, issuers) for start in servers or starts), key=len)
    on_path = set(path)
    return Chain(tuple(certificates), path, tuple(c for c in distinct if c not in on_path))


def _climb(start: Certificate, issuers: _Issuers) -> tuple[Certificate, ...]:
    path = [start]
    while not path[-1].self_issued and len(path) < MAX_LENGTH:
        issuer = issuers.of(path[-1])
        if issuer is None or issuer in path:
            break
        path.append(issuer)
    return tuple(path)


class _Issuers:
    """Certificates by name and key, so that each step up is one look."""

    def __init__(self, certificates: Sequence[Certificate]) -> None:
        self._by_name: dict[Name, Certificate] = {}
        self._by_key: dict[tuple[Name, bytes | None], Certificate] = {}
        for certificate in certificates:
            self._by_name.setdefault(certificate.subject, certificate)
            self._by_key.setdefault((certificate.subject, certificate.meaning.subject_key_id), certificate)

    def of(self, certificate: Certificate) -> Certificate | None:
        """The issuer: by the key that is asked for, of unknown keys by name."""
        wanted = certificate.meaning.authority_key_id
        if not wanted:
            return self._by_name.get(certificate.issuer)
        named = self._by_key.get((certificate.issuer, wanted))
        return named or self._by_key.get((certificate.issuer, None))
