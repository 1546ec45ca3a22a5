"""A phone that says hello in the framing of SSL 2 and goes on in TLS 1.0 (RFC 5246, E.2; RFC 2246), with AES128-SHA.

No library of today begins like this.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

AES = 0x002F  # TLS_RSA_WITH_AES_128_CBC_SHA
TLS10 = 0x0301
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
SERVER_HELLO, CERTIFICATE, SERVER_HELLO_DONE, CLIENT_KEY_EXCHANGE, FINISHED = 2, 11, 14, 16, 20


def sslv2_hello(*suites: int, version: int = TLS10, challenge: bytes = bytes(16)) -> bytes:
    """A hello in the framing of SSL 2 that asks for TLS."""
    specs = b"".join(one.to_bytes(3, "big") for one in suites)
    body = b"\1" + struct.pack("!HHHH", version, len(specs), 0, len(challenge)) + specs + challenge
    return struct.pack("!H", 0x8000 | len(body)) + body


def prf(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """RFC 2246, 5."""

    def expand(kind: str, half: bytes) -> bytes:
        found, a = b"", label + seed
        while len(found) < size:
            a = hmac.digest(half, a, kind)
            found += hmac.digest(half, a + label + seed, kind)
        return found[:size]

    half = (len(secret) + 1) // 2
    pairs = zip(expand("md5", secret[:half]), expand("sha1", secret[-half:]), strict=True)
    return bytes(one ^ other for one, other in pairs)


class Direction:
    """What one end encrypts: each record begins where the last one ended."""

    def __init__(self, mac_key: bytes, key: bytes, iv: bytes) -> None:
        self._mac_key = mac_key
        self._key = algorithms.AES(key)
        self._iv = iv
        self._number = 0

    def _mac(self, kind: int, data: bytes) -> bytes:
        head = struct.pack("!QBHH", self._number, kind, TLS10, len(data))
        self._number += 1
        return hmac.digest(self._mac_key, head + data, "sha1")

    def encrypt(self, kind: int, data: bytes) -> bytes:
        plain = data + self._mac(kind, data)
        pad = 15 - len(plain) % 16
        encryptor = Cipher(self._key, modes.CBC(self._iv)).encryptor()
        sent = encryptor.update(plain + bytes([pad]) * (pad + 1))
        self._iv = sent[-16:]
        return struct.pack("!BHH", kind, TLS10, len(sent)) + sent

    def decrypt(self, kind: int, sent: bytes) -> bytes:
        plain = Cipher(self._key, modes.CBC(self._iv)).decryptor().update(sent)
        self._iv = sent[-16:]
        plain = plain[: -plain[-1] - 1]
        data, mac = plain[:-20], plain[-20:]
        assert hmac.compare_digest(mac, self._mac(kind, data))
        return data


class SslV2Phone:
    """A connection on which the handshake is over; closing it closes the socket."""

    def __init__(self, connection: socket.socket, pieces: int = 1) -> None:
        """The hello is sent in so many pieces."""
        challenge = os.urandom(16)
        hello = sslv2_hello(AES, challenge=challenge)
        self._socket = connection
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for begin in range(0, len(hello), step := -(-len(hello) // pieces)):
            self._socket.sendall(hello[begin : begin + step])
        self._stream = self._socket.makefile("rb")
        self._encrypted = False
        self._said = hello[2:]  # what both ends have said, as Finished takes it
        messages = self._messages()
        server_random, certificate = b"", None
        for kind, body in messages:
            if kind == SERVER_HELLO:
                assert body[:2] == TLS10.to_bytes(2, "big")
                server_random = body[2:34]
            elif kind == CERTIFICATE:
                certificate = x509.load_der_x509_certificate(body[6 : 6 + int.from_bytes(body[3:6], "big")])
            elif kind == SERVER_HELLO_DONE:
                break
        assert certificate is not None
        self.certificate = certificate
        key = certificate.public_key()
        assert isinstance(key, RSAPublicKey)
        secret = TLS10.to_bytes(2, "big") + os.urandom(46)
        client_random = bytes(16) + challenge
        master = prf(secret, b"master secret", client_random + server_random, 48)
        block = prf(master, b"key expansion", server_random + client_random, 104)
        self._ours = Direction(block[:20], block[40:56], block[72:88])
        self._theirs = Direction(block[20:40], block[56:72], block[88:])
        sealed = key.encrypt(secret, padding.PKCS1v15())
        exchange = self._message(CLIENT_KEY_EXCHANGE, struct.pack("!H", len(sealed)) + sealed)
        finished = self._message(FINISHED, prf(master, b"client finished", self._digest(), 12))
        self._socket.sendall(
            struct.pack("!BHH", HANDSHAKE, TLS10, len(exchange))
            + exchange
            + struct.pack("!BHHB", CHANGE_CIPHER_SPEC, TLS10, 1, 1)
            + self._ours.encrypt(HANDSHAKE, finished)
        )
        expected = prf(master, b"server finished", self._digest(), 12)
        assert next(body for kind, body in messages if kind == FINISHED) == expected

    def ask(self, request: bytes, end: bytes) -> bytes:
        """Send a request; what comes back up to and with `end`."""
        self._socket.sendall(self._ours.encrypt(DATA, request))
        found = b""
        while end not in found:
            kind, data = self._record()
            assert kind == DATA, (kind, data)
            found += data
        return found

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _digest(self) -> bytes:
        return hashlib.md5(self._said).digest() + hashlib.sha1(self._said).digest()

    def _message(self, kind: int, body: bytes) -> bytes:
        made = bytes([kind]) + len(body).to_bytes(3, "big") + body
        self._said += made
        return made

    def _record(self) -> tuple[int, bytes]:
        head = self._stream.read(5)
        assert len(head) == 5, "the connection was closed"
        kind, _, size = struct.unpack("!BHH", head)
        data = self._stream.read(size)
        if self._encrypted:
            data = self._theirs.decrypt(kind, data)
        return kind, data

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        """The handshake messages that come."""
        waiting = b""
        while True:
            while len(waiting) >= 4 and len(waiting) >= (size := 4 + int.from_bytes(waiting[1:4], "big")):
                message, waiting = waiting[:size], waiting[size:]
                self._said += message
                yield message[0], message[4:]
            kind, data = self._record()
            if kind == CHANGE_CIPHER_SPEC:
                self._encrypted = True
                continue
            assert kind == HANDSHAKE, (kind, data)
            waiting += data
