"""Certificates: the file upshim serves from, what a port really serves, and the server's own."""

from __future__ import annotations

import socket
import ssl
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from dissectors import DissectError
from dissectors.certificates import Circumstances, dissect, examine
from dissectors.certificates.findings import ERROR, INFO
from proxy_addons.phone_identity import IdentityError, load_identity
from proxy_addons.upstream_tls import NAMES, context_of
from proxy_addons.upstream_url import is_address
from tools.deploy import Address
from tools.doctor import reach
from tools.doctor.reach import STRAIGHT, Way
from tools.doctor.result import OK, PROBLEM, WARN, Result, reason

WINDOWS_CE = "1.0"  # the newest TLS it speaks

_ADVICE = "Issue one by the CA the phones trust, for the names they use; `upshim decode FILE` shows what is in it."


@dataclass(frozen=True, slots=True)
class Verifying:
    """How the proxy is told to verify the server: --server-ca, --server-insecure and --server-tls-oldest."""

    authorities: Path | None = None
    insecure: bool = False
    oldest: str = "1.2"

    def context(self) -> ssl.SSLContext:
        """Raises `OSError` where the file is none."""
        file = None if self.authorities is None else str(self.authorities)
        return context_of(self.insecure, file, None, NAMES[self.oldest])


def judged(check: str, subject: str, chain: bytes, domain: str, names: tuple[str, ...] = ()) -> Iterator[Result]:
    """What of a chain (PEM) matters to a phone, as of now."""
    try:
        document = dissect(chain)
    except DissectError as error:
        yield Result(check, subject, PROBLEM, f"cannot be read: {error}", _ADVICE)
        return
    findings = examine(document.certificates, Circumstances(datetime.now(UTC), domain, names))
    bad = [finding for finding in findings if finding.severity != INFO]
    for finding in bad:
        yield Result(check, subject, PROBLEM if finding.severity == ERROR else WARN, finding.words, _ADVICE)
    if not bad:
        first = document.certificates[0]
        yield Result(check, subject, OK, f"{first.subject}, {len(document.certificates)} certificates: fit for phones")


def certificate_file(file: Path, domain: str, oldest: str = WINDOWS_CE) -> Iterator[Result]:
    """Would the proxy take the file with key and certificates, and would phones?"""
    subject = str(file)
    try:
        identity = load_identity(file)
        identity.context(oldest)
        mode = stat.S_IMODE(file.expanduser().stat().st_mode)
    except (IdentityError, OSError) as error:
        found = f"would be refused: {reason(error).removeprefix(f'{file}: ')}"
        yield Result("certificate", subject, PROBLEM, found, "Key (without passphrase) and certificates, all PEM.")
        return
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in (identity.leaf, *identity.chain))
    yield from judged("certificate", subject, chain, domain)
    if mode & 0o077:
        yield Result("key", subject, PROBLEM, f"a private key that others may read ({mode:o})", f"chmod 600 {file}")
    else:
        yield Result("key", subject, OK, "belongs to the certificate, and nobody else may read it")
    if oldest != WINDOWS_CE:
        advice = "--tls-oldest 1.0, if there are such phones."
        yield Result("phone-tls", "", WARN, f"from TLS {oldest} on: Windows CE speaks 1.0 at most", advice)


def served_chain(server: Address, name: str = "", way: Way = STRAIGHT) -> bytes | None:
    """The chain a TLS server sends, in PEM, old protocol versions included; None where it speaks no TLS.

    Raises `OSError` where there is nobody.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(SSL.TLS1_VERSION)
    with way.connect(server) as plain:
        plain.settimeout(None)  # pyOpenSSL wants to wait by itself; the kernel's limits are set instead
        limit = struct.pack("@ll", int(reach.WITHIN), int(reach.WITHIN % 1 * 1_000_000))  # struct timeval
        for which in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            plain.setsockopt(socket.SOL_SOCKET, which, limit)
        connection = SSL.Connection(context, plain)
        if name:
            connection.set_tlsext_host_name(name.encode("idna"))
        connection.set_connect_state()
        try:
            connection.do_handshake()
        except SSL.Error:
            return None
        chain = connection.get_peer_cert_chain() or []
    return b"".join(crypto.dump_certificate(crypto.FILETYPE_PEM, one) for one in chain)


def served(listen: Address, domain: str) -> Iterator[Result]:
    """What phones are shown on a port where something listens and speaks TLS."""
    host = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)
    name = f"ucupdates-r2.{domain}" if domain else ""
    try:
        chain = served_chain(Address(host, listen.port), name)
    except OSError:
        return
    if chain:
        yield from judged("certificate", str(listen), chain, domain)


def unusable(verifying: Verifying) -> Iterator[Result]:
    """What the server cannot be verified by."""
    try:
        verifying.context()
    except OSError as error:
        found = f"no certificates to verify by: {reason(error)}"
        advice = "--server-ca wants a file in PEM."
        yield Result("server-tls", str(verifying.authorities), PROBLEM, found, advice)


def server(upstream: Address, verifying: Verifying, way: Way = STRAIGHT) -> Iterator[Result]:
    """Is the update server's TLS accepted, as the proxy is told to verify it? Raises `OSError`: see `unusable`."""
    subject = str(upstream)
    try:
        chain = served_chain(upstream, "" if is_address(upstream.host) else upstream.host, way)  # SNI holds names alone
    except OSError:
        return  # told by the check of the server
    if chain is None:
        advice = "Does the server speak TLS on this port?"
        yield Result("server-tls", subject, PROBLEM, "TLS cannot be agreed on", advice)
        return
    older = "--server-tls-oldest 1.0, where the server cannot be mended."
    try:
        with way.connect(upstream) as plain:
            verifying.context().wrap_socket(plain, server_hostname=upstream.host).close()
    except ssl.SSLCertVerificationError as error:
        authorities = "give the CA's certificate with --server-ca, or mend the server's."
        advice = f"The proxy answers 502 then: {older if 'too weak' in error.verify_message else authorities}"
        yield Result("server-tls", subject, PROBLEM, f"not accepted: {error.verify_message}", advice)
    except OSError as error:
        advice = f"The server speaks old versions of TLS only: {older}"
        yield Result("server-tls", subject, PROBLEM, f"not from TLS {verifying.oldest} on: {reason(error)}", advice)
    else:
        if verifying.insecure:
            advice = "--server-ca FILE instead of --server-insecure verifies it."
            yield Result("server-tls", subject, WARN, "its certificate is not verified", advice)
        else:
            yield Result("server-tls", subject, OK, "its certificate is accepted")
