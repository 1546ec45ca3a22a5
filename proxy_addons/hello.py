"""What a phone says first: TLS that can be served, TLS that cannot, HTTP, or neither.

Old phones ask for TLS in the framing of SSL 2, which OpenSSL understands and mitmproxy does not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from mitmproxy.net.tls import starts_like_tls_record
from mitmproxy.proxy.layer import CommandGenerator
from mitmproxy.proxy.layers import ClientTLSLayer
from mitmproxy.tls import ClientHello
from OpenSSL import SSL

METHODS = (b"GET ", b"HEAD ", b"POST ", b"PUT ", b"DELETE ", b"OPTIONS ")
MAX_VERDICTS = 256
MAX_RECORD = 1 << 14  # RFC 5246, 6.2.1

# Names of what Windows CE and its time offered and OpenSSL has given up (IANA's registry of cipher suites).
OLD_SUITES = {
    0x0003: "EXP-RC4-MD5",
    0x0004: "RC4-MD5",
    0x0005: "RC4-SHA",
    0x0006: "EXP-RC2-CBC-MD5",
    0x0008: "EXP-DES-CBC-SHA",
    0x0009: "DES-CBC-SHA",
    0x000A: "3DES-CBC-SHA",
    0x0012: "DHE-DSS-DES-CBC-SHA",
    0x0013: "DHE-DSS-3DES-CBC-SHA",
    0x0016: "DHE-RSA-3DES-CBC-SHA",
    0x002F: "AES128-SHA",
    0x0035: "AES256-SHA",
    0x0062: "EXP1024-DES-CBC-SHA",
    0x0064: "EXP1024-RC4-SHA",
}
NO_SUITES = (0x00FF, 0x5600)  # signals in the guise of suites
SSLV2_HELLOS = (b"\1\0\2", b"\1\3\0", b"\1\3\1", b"\1\3\2", b"\1\3\3")  # behind the length: type, version
SSLV2_HEAD = 11  # bytes before its cipher specs
VERSIONS = {0x0002: "SSL 2", 0x0300: "SSL 3.0", 0x0301: "TLS 1.0", 0x0302: "TLS 1.1", 0x0303: "TLS 1.2"}


def is_sslv2(data: bytes) -> bool:
    """Whether this is a hello in the framing of SSL 2 (RFC 5246, E.2), whatever version it asks for."""
    return len(data) >= 5 and data[0] & 0x80 != 0 and data[2:5] in SSLV2_HELLOS


def is_tls(data: bytes) -> bool:
    """Whether this begins as a record with a ClientHello."""
    begun = starts_like_tls_record(data) and int.from_bytes(data[3:5], "big") <= MAX_RECORD
    return begun and data[5:6] in {b"", b"\1"}


def may_become_tls(data: bytes) -> bool:
    """Whether these are fewer bytes than tell TLS, or SSL 2, from anything else, and could be its first."""
    if len(data) < 5 and data[:1] >= b"\x80":
        return any(begin.startswith(data[2:]) for begin in SSLV2_HELLOS)
    return 0 < len(data) < 3 and b"\x16\x03".startswith(data[:2])


def may_become_more(data: bytes) -> bool:
    """Whether too little has come to say what it is: part of a method's name, or of the head of a TLS record."""
    return any(method.startswith(data) for method in METHODS) or may_become_tls(data)


def looks_like_http(data: bytes) -> bool:
    """Whether a first line begins as one of HTTP."""
    word, space, _ = data[:32].partition(b" ")
    return bool(space) and 3 <= len(word) <= 20 and word.replace(b"-", b"").replace(b"_", b"").isalpha()


def suite_names(suites: Iterable[int]) -> str:
    """Cipher suites for people."""
    found = [OLD_SUITES.get(one, f"0x{one:04x}") for one in suites if one not in NO_SUITES]
    return ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")


@dataclass(frozen=True, slots=True)
class Offered:
    """What matters of a hello: the newest version a phone offers, for people, and its cipher suites."""

    newest: str
    suites: tuple[int, ...]

    @classmethod
    def of(cls, hello: ClientHello) -> Offered:
        """From one in the framing of TLS."""
        version = int.from_bytes(hello.raw_bytes(wrap_in_record=False)[:2], "big")
        return cls(version_name(version), tuple(hello.cipher_suites))

    @classmethod
    def of_sslv2(cls, hello: bytes) -> Offered:
        """From one in the framing of SSL 2, whole; its specs of three bytes hold suites of TLS behind a zero."""
        specs = hello[SSLV2_HEAD : sslv2_specs_end(hello)]
        each = [int.from_bytes(specs[begin : begin + 3], "big") for begin in range(0, len(specs), 3)]
        return cls(version_name(int.from_bytes(hello[3:5], "big")), tuple(one for one in each if one <= 0xFFFF))


def version_name(version: int) -> str:
    """A protocol version for people."""
    return VERSIONS.get(version, f"version 0x{version:04x}")


def sslv2_size(hello: bytes) -> int:
    """Bytes of a hello in the framing of SSL 2, by its first two."""
    return 2 + (int.from_bytes(hello[:2], "big") & 0x7FFF)


def sslv2_specs_end(hello: bytes) -> int:
    """Where its session's identity begins, or the challenge, which differ every time."""
    return SSLV2_HEAD + int.from_bytes(hello[5:7], "big")


def can_do(ciphers: bytes) -> bool:
    """Whether OpenSSL has any of these."""
    try:
        SSL.Context(SSL.TLS_SERVER_METHOD).set_cipher_list(ciphers)
    except SSL.Error:
        return False
    return True


class Verdicts:
    """Whether OpenSSL can serve a hello, by having it answer one; remembered by what matters of it."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context
        self._known: dict[bytes, bool] = {}

    def can_serve(self, hello: bytes) -> bool:
        """`hello` is the record (or records) with the ClientHello."""
        # The random and the session's identity differ every time; who repeats the rest repeats the verdict.
        if is_sslv2(hello):
            key = hello[: sslv2_specs_end(hello)]
        else:
            session = hello[43:44] or b"\0"
            key = hello[:11] + hello[44 + session[0] :]
        key = hashlib.sha256(key).digest()  # a hello may be long
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._try(hello)
            if len(self._known) >= MAX_VERDICTS:
                self._known.clear()
            self._known[key] = verdict
        return verdict

    def _try(self, hello: bytes) -> bool:
        connection = SSL.Connection(self._context, None)
        connection.set_accept_state()
        connection.bio_write(hello)
        try:
            connection.do_handshake()
        except SSL.WantReadError:
            return True
        except SSL.Error:
            return False
        return True


class SslV2ClientTls(ClientTLSLayer):
    """mitmproxy's layer for TLS with a phone whose hello it cannot read, and OpenSSL can."""

    def receive_handshake_data(self, data: bytes) -> CommandGenerator[tuple[bool, str | None]]:
        """Begin with the first bytes; what a hello could have said of names and protocols this one does not."""
        if not self.client_hello_parsed:
            self.client_hello_parsed = True
            yield from self.start_tls()
            if not self.conn.connected:
                return False, "connection closed early"
        return (yield from super().receive_handshake_data(data))
