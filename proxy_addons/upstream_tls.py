"""How a server is verified when upshim asks it itself: by the options mitmproxy verifies it by for the phones."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any

import certifi

NAMES = {"1.0": "TLS1", "1.1": "TLS1_1", "1.2": "TLS1_2"}  # of versions, as mitmproxy calls them
# Whoever allows for anything older allows for everything OpenSSL still speaks.
OLDEST = {"TLS1_2": ssl.TLSVersion.TLSv1_2, "TLS1_3": ssl.TLSVersion.TLSv1_3}


def tls_context(options: Any) -> ssl.SSLContext:
    """A context from mitmproxy's options. Raises `OSError` where a file they name cannot be used."""
    return context_of(
        options.ssl_insecure,
        options.ssl_verify_upstream_trusted_ca,
        options.ssl_verify_upstream_trusted_confdir,
        options.tls_version_server_min,
    )


@lru_cache(4)
def context_of(insecure: bool, ca_file: str | None, ca_folder: str | None, oldest: str) -> ssl.SSLContext:
    """The same from their values; `oldest` is one of mitmproxy's `NAMES`. Raises `OSError`."""
    file, folder = (str(Path(path).expanduser()) if path else None for path in (ca_file, ca_folder))
    context = verifying(file or (None if folder else certifi.where()), folder)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if oldest not in OLDEST:
        context.set_ciphers("DEFAULT:@SECLEVEL=0")  # OpenSSL 3 speaks old versions at this level only
    context.minimum_version = OLDEST.get(oldest, ssl.TLSVersion.MINIMUM_SUPPORTED)
    return context


def verifying(ca_file: str | None, ca_folder: str | None = None) -> ssl.SSLContext:
    """A context that takes the certificates mitmproxy takes, no more and no fewer. Raises `OSError`.

    Python 3.13 is stricter with a CA (the one `openssl req -x509` makes is none to it), and takes one that is itself
    issued by another for a root. A name that stands in the subject alone is none to mitmproxy.
    """
    context = ssl.create_default_context(cafile=ca_file, capath=ca_folder)
    context.verify_flags &= ~(ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
    context.hostname_checks_common_name = False
    return context
