"""Certificates: the file upshim serves from, what a port really serves, and the server's own."""

from __future__ import annotations

import socket
import ssl
import stat
import struct
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import certifi
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL, crypto

from dissectors import DissectError
from dissectors.certificates import Circumstances, dissect, examine
from dissectors.certificates.findings import ERROR, INFO
from proxy_addons.phone_identity import IdentityError, load_identity
from proxy_addons.upstream_tls import verifying
from tools.deploy import Address
from tools.doctor.result import OK, PROBLEM, WARN, Result, reason

WITHIN = 5.0  # seconds

_ADVICE = "Issue one by the CA the phones trust, for the names they use; `upshim decode FILE` shows what is in it."


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


def certificate_file(file: Path, domain: str) -> Iterator[Result]:
    """Would the proxy take the file with key and certificates, and would phones?"""
    subject = str(file)
    try:
        identity = load_identity(file)
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


def lenient() -> ssl.SSLContext:
    """Talks to whatever there is: whose certificate it is, and how old the protocol, are checks of their own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
    return context


def served_chain(host: str, port: int, name: str = "") -> bytes | None:
    """The chain a TLS server sends, in PEM, old protocol versions included; None where it speaks no TLS.

    Raises `OSError` where there is nobody.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_min_proto_version(SSL.TLS1_VERSION)
    with socket.create_connection((host, port), WITHIN) as plain:
        plain.settimeout(None)  # pyOpenSSL wants to wait by itself; the kernel's limits are set instead
        limit = struct.pack("@ll", int(WITHIN), int(WITHIN % 1 * 1_000_000))  # struct timeval
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
        chain = served_chain(host, listen.port, name)
    except OSError:
        return
    if chain:
        yield from judged("certificate", str(listen), chain, domain)


def server(upstream: Address, authorities: Path | None = None) -> Iterator[Result]:
    """Is the update server's certificate accepted, as the proxy wants it?"""
    subject = str(upstream)
    try:
        # The proxy trusts what certifi trusts, or these certificates alone.
        context = verifying(str(authorities or certifi.where()))
    except OSError as error:
        found = f"no certificates to verify by: {reason(error)}"
        yield Result("server-tls", str(authorities), PROBLEM, found, "--server-ca wants a file in PEM.")
        return
    try:
        chain = served_chain(upstream.host, upstream.port, upstream.host)
    except OSError:
        return  # told by the check of the server
    if chain is None:
        yield Result(
            "server-tls", subject, PROBLEM, "TLS cannot be agreed on", "Does the server speak TLS on this port?"
        )
        return
    try:
        with socket.create_connection((upstream.host, upstream.port), WITHIN) as plain:
            context.wrap_socket(plain, server_hostname=upstream.host).close()
    except ssl.SSLCertVerificationError as error:
        advice = "The proxy answers 502 then: give the CA's certificate with --server-ca, or mend the server's."
        yield Result("server-tls", subject, PROBLEM, f"not accepted: {error.verify_message}", advice)
    except OSError as error:
        advice = "The server may speak old versions of TLS only."
        yield Result("server-tls", subject, WARN, f"not by today's rules: {reason(error)}", advice)
    else:
        yield Result("server-tls", subject, OK, "its certificate is accepted")
