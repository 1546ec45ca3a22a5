"""NTLM messages and the SPNEGO tokens around them ([MS-NLMP], RFC 4178), as HTTP and SIP headers carry them.

What matters here is who logged in, exactly as the phone wrote it: `domain\\user`, `domain.local\\user` and
`user@domain` are three different logins to the servers of that time. Responses are kept out of every output unless
they are asked for.
"""

from dissectors.ntlm.av_pairs import AvId, AvPair
from dissectors.ntlm.flags import Flags
from dissectors.ntlm.layout import OsVersion
from dissectors.ntlm.login import Form, Login
from dissectors.ntlm.messages import Authenticate, Challenge, Message, Negotiate, parse
from dissectors.ntlm.token import Token, from_bytes, from_credentials, from_header, from_text

__all__ = [
    "Authenticate",
    "AvId",
    "AvPair",
    "Challenge",
    "Flags",
    "Form",
    "Login",
    "Message",
    "Negotiate",
    "OsVersion",
    "Token",
    "from_bytes",
    "from_credentials",
    "from_header",
    "from_text",
    "parse",
]
