"""Certificate files as a proxy gets them, by a CA of the phones' time."""

from __future__ import annotations

import ssl
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from tests.dissectors.certificates.building import Plan, der, key

NAME = "ucupdates-r2.contoso.com"
NOW = datetime.now(UTC)
YEAR = timedelta(days=365)
ROOT = Plan("Old CA", "Old CA", ca=True, not_before=NOW - 9 * YEAR, not_after=NOW + 9 * YEAR)
LEAF = replace(ROOT, name="Pool", issuer="Old CA", ca=False, dns_names=(NAME, "localhost"), not_after=NOW + YEAR)


def pem(plan: Plan) -> str:
    """A certificate."""
    return ssl.DER_cert_to_PEM_cert(der(plan))


def key_pem(plan: Plan, password: bytes | None = None) -> str:
    """Its private key."""
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return key(plan.name, plan.bits).private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def identity_file(path: Path, leaf: Plan = LEAF) -> Path:
    """Key, certificate and CA in one file."""
    path.write_text(key_pem(leaf) + pem(leaf) + pem(ROOT))
    path.chmod(0o600)
    return path


def server_context(path: Path, leaf: Plan = LEAF) -> ssl.SSLContext:
    """What Python serves such a certificate by, whatever it is signed with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(identity_file(path, leaf))
    return context
