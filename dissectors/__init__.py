"""Pure, sans-IO dissectors: bytes in, frozen values out, and back to bytes.

Nothing here touches a clock, a socket, a file or mitmproxy. Every parser raises `DissectError` (and nothing else) on
bad input and states its limits in constants at the top of its module.
"""

from dissectors.errors import DissectError, LimitExceeded, Unsupported

__all__ = ["DissectError", "LimitExceeded", "Unsupported"]
