"""Files of TLS secrets, looked at before they are used: what tshark would pass over without a word is named here.

A key log has a line per secret, `LABEL identifier secret`, the latter two in hex (draft-ietf-tls-keylogfile; the older
`RSA` and `PMS_CLIENT_RANDOM` as NSS wrote them). It may be growing, so its last line may be unfinished.
"""

from __future__ import annotations

import re
from pathlib import Path

from captures.errors import CaptureError
from dissectors.errors import DissectError, LimitExceeded

MAX_KEYLOG = 256 << 20
MAX_KEY = 1 << 20
_SECRET = re.compile(
    rb"[A-Z][A-Z0-9_]{1,40} +(?:Session-ID:|Master-Key:)?[0-9A-Fa-f]{1,512} +[0-9A-Fa-f:A-Za-z-]{16,1024}"
)
_BAD_IN_NAMES = '"\\\r\n'  # tshark's preferences know no way around them


def check_keylog(path: Path) -> None:
    """See that every line of a key log is one. Raises `CaptureError`."""
    secrets = offset = 0
    try:
        _check_name(path)
        with path.open("rb") as file:
            for line in file:
                text = line.strip()
                if text and not text.startswith(b"#"):
                    if _SECRET.fullmatch(text):
                        secrets += 1
                    elif line.endswith(b"\n"):
                        raise DissectError(offset, "a line of a TLS key log: LABEL HEX HEX", _shown(text))
                offset += len(line)
                if offset > MAX_KEYLOG:
                    raise LimitExceeded(offset, f"a TLS key log of at most {MAX_KEYLOG} bytes", "more")
        if not secrets:
            raise DissectError(offset, "a TLS key log with at least one secret", "none")
    except (DissectError, OSError) as error:
        raise CaptureError(path, error) from error


def check_rsa_key(path: Path) -> None:
    """See that a file holds an RSA key in PEM form, without a passphrase. Raises `CaptureError`."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - only where a key is given
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    expected = "an RSA private key in PEM form without a passphrase"
    try:
        _check_name(path)
        with path.open("rb") as file:
            data = file.read(MAX_KEY + 1)
        if len(data) > MAX_KEY:
            raise LimitExceeded(0, f"{expected}, of at most {MAX_KEY} bytes", "more")
        try:
            key = load_pem_private_key(data, None)
        except TypeError:
            raise DissectError(0, expected, "a key with one") from None
        except (ValueError, UnsupportedAlgorithm):
            raise DissectError(0, expected, "something else") from None
        if not isinstance(key, RSAPrivateKey):
            raise DissectError(0, expected, "a key of another kind")
    except (DissectError, OSError) as error:
        raise CaptureError(path, error) from error


def _check_name(path: Path) -> None:
    if any(char in str(path.absolute()) for char in _BAD_IN_NAMES):
        raise DissectError(0, "a file whose name has no quotes, backslashes and line breaks", repr(path.name))


def _shown(text: bytes) -> str:
    """The start of a line, which may hold a secret: its first word."""
    return repr(text.split()[0][:16])
