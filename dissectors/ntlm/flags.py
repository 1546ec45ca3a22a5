"""NegotiateFlags ([MS-NLMP] 2.2.2.5)."""

from __future__ import annotations

import enum


class Flags(enum.IntFlag, boundary=enum.KEEP):
    """Names as in the specification, without `NTLMSSP_`; bits it leaves unnamed are kept."""

    NEGOTIATE_UNICODE = 0x0000_0001
    NEGOTIATE_OEM = 0x0000_0002
    REQUEST_TARGET = 0x0000_0004
    NEGOTIATE_SIGN = 0x0000_0010
    NEGOTIATE_SEAL = 0x0000_0020
    NEGOTIATE_DATAGRAM = 0x0000_0040
    NEGOTIATE_LM_KEY = 0x0000_0080
    NEGOTIATE_NTLM = 0x0000_0200
    NEGOTIATE_ANONYMOUS = 0x0000_0800
    NEGOTIATE_OEM_DOMAIN_SUPPLIED = 0x0000_1000
    NEGOTIATE_OEM_WORKSTATION_SUPPLIED = 0x0000_2000
    NEGOTIATE_ALWAYS_SIGN = 0x0000_8000
    TARGET_TYPE_DOMAIN = 0x0001_0000
    TARGET_TYPE_SERVER = 0x0002_0000
    NEGOTIATE_EXTENDED_SESSIONSECURITY = 0x0008_0000
    NEGOTIATE_IDENTIFY = 0x0010_0000
    REQUEST_NON_NT_SESSION_KEY = 0x0040_0000
    NEGOTIATE_TARGET_INFO = 0x0080_0000
    NEGOTIATE_VERSION = 0x0200_0000
    NEGOTIATE_128 = 0x2000_0000
    NEGOTIATE_KEY_EXCH = 0x4000_0000
    NEGOTIATE_56 = 0x8000_0000

    def to_json(self) -> dict[str, object]:
        """`raw` number, `names` from the highest bit down (as the specification lists them), `unknown` bits."""
        unknown = int(self)
        for flag in Flags:
            unknown &= ~int(flag)
        names = [f"NTLMSSP_{flag.name}" for flag in sorted(Flags, reverse=True) if flag in self]
        return {"raw": int(self), "names": names, "unknown": unknown}
