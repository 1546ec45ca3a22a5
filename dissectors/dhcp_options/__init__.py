"""The DHCP options that lead a phone to its servers: 43, 120, and 2, 15, 42, 55, 60, 119 around them.

Whole DHCP messages are scapy's business; here are the values, decoded and encoded to the octet, and the notations in
which people hand them around.
"""

from dissectors.dhcp_options.hex_text import Notation, format_hex, parse_hex
from dissectors.dhcp_options.options import (
    KNOWN,
    DhcpOption,
    DomainSearch,
    NtpServers,
    ParameterRequest,
    SipServers,
    Text,
    TimeOffset,
    decode,
)
from dissectors.dhcp_options.paste import Paste, read_paste
from dissectors.dhcp_options.vendor import CERT_PROV_PATH, CPE_OCPHONE, MS_UC_CLIENT, SubOption, VendorOptions

__all__ = [
    "CERT_PROV_PATH",
    "CPE_OCPHONE",
    "KNOWN",
    "MS_UC_CLIENT",
    "DhcpOption",
    "DomainSearch",
    "Notation",
    "NtpServers",
    "ParameterRequest",
    "Paste",
    "SipServers",
    "SubOption",
    "Text",
    "TimeOffset",
    "VendorOptions",
    "decode",
    "format_hex",
    "parse_hex",
    "read_paste",
]
