"""TLS connections made with Python's own TLS, without sockets, as packets: what is decrypted is known to the byte."""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.captures.wire import Packet, Talk


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A key and a certificate for it, as files."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ucupdates-r2.example.com")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    begins = datetime(2009, 1, 1, tzinfo=UTC)
    builder = builder.not_valid_before(begins).not_valid_after(begins + timedelta(days=9999))
    certificate = builder.sign(key, hashes.SHA256())
    key_file, file = folder / "key.pem", folder / "certificate.pem"
    form = serialization.PrivateFormat.TraditionalOpenSSL
    key_file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_file, file


def tls_talk(
    messages: Iterable[tuple[bool, bytes]],
    certificate: tuple[Path, Path],
    keylog: Path,
    *,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2,
    ciphers: str = "ALL:@SECLEVEL=0",
    talk: Talk | None = None,
    before: Iterable[tuple[bool, bytes]] = (),
    ending: Callable[[Talk], Talk] = Talk.close,
) -> list[Packet]:
    """The packets of a connection in which client (True) and server say these messages; secrets go to `keylog`.

    An empty message is a close_notify. What is said `before` is not encrypted; `ending` is how the connection ends.
    """
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.check_hostname = False
    client_context.verify_mode = ssl.CERT_NONE
    client_context.keylog_filename = str(keylog)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for context in (client_context, server_context):
        context.set_ciphers(ciphers)
        with warnings.catch_warnings():  # old versions are what phones speak
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = version
    server_context.load_cert_chain(certificate[1], certificate[0])
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    # What one end has written is moved through the packets into what the other end reads.
    wires = {True: ssl.MemoryBIO(), False: ssl.MemoryBIO()}
    client = client_context.wrap_bio(wires[False], up)
    server = server_context.wrap_bio(wires[True], down, server_side=True)
    talk = (talk or Talk()).open()
    for asking, data in before:
        (talk.client if asking else talk.server)(data)

    def carry() -> None:
        for asking, out in ((True, up), (False, down)):
            if data := out.read():
                (talk.client if asking else talk.server)(data)
                wires[asking].write(data)

    pending = [client, server]
    while pending:
        for end in list(pending):
            try:
                end.do_handshake()
                pending.remove(end)
            except ssl.SSLWantReadError:
                pass
            carry()
    for asking, data in messages:
        speaker = client if asking else server
        if data:
            speaker.write(data)
        else:
            with suppress(ssl.SSLError):  # it would wait for what the other end says
                speaker.unwrap()
        carry()
    return ending(talk).packets
