"""SIP users are personal data: outputs show the host of a SIP URI and hide who it is, unless asked otherwise."""

from __future__ import annotations

import re

# A URI with opaque=srvr is a service of the pool, not a person. The bounds keep hostile text linear.
_USER = re.compile(
    r"(?<![a-z])(sips?:\s{0,2})[^@\s<>\",;]{1,256}@(?![^;\s>\"]{0,256};gruu;opaque=srvr:)", re.IGNORECASE
)


def mask_users(text: str) -> str:
    """`sip:amy@contoso.com` as `sip:*@contoso.com`, wherever it stands in a text."""
    return _USER.sub(r"\1*@", text)
