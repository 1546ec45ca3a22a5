"""Update-check bodies for tests. Their XML is ours: synthetic, one of many shapes the real one may have."""

from __future__ import annotations

from tools.cx700_rules import OBSERVE, THEN

IDENTITY = {"DeviceType": "UCPhone", "Vendor": "Polycom", "Model": "CX700", "Revision": "A", "Locale": "ENU"}
STUCK = "1.0.522.73"
INTERIM = "1.0.522.103"
CHECK_TARGET = "/RequestHandler/ucdevice.upx"


def check_body(version: str = STUCK, mac: str = "0004F2000176", **identity: str) -> bytes:
    """An update check; keyword arguments replace parts of the identity."""
    fields = "".join(f"<{name}>{text}</{name}>" for name, text in {**IDENTITY, **identity}.items())
    module = f'<Module FileName="CPE.nbt" Version="{version}" Timestamp="04-05-2008 10:00:00"/>'
    return (
        f'<?xml version="1.0" encoding="utf-8"?><!-- synthetic --><Check><MacAddress>{mac}</MacAddress>'
        f"<SerialNumber>07823-A345</SerialNumber>{fields}<Modules>{module}</Modules></Check>"
    ).encode()


def answer_body(url: str = "", version: str = "") -> bytes:
    """An answer; without a URL it offers nothing, in the documented form of blank addresses."""
    return (
        f'<?xml version="1.0" encoding="utf-8"?><!-- synthetic --><Answer><Update><BaseURL>{url}</BaseURL>'
        f'<ExternalBaseURL></ExternalBaseURL><File FileName="CPE.nbt" SignatureFileName="CPE.cat" Version="{version}"/>'
        "</Update></Answer>"
    ).encode()


# The demo's rules: when.version "< 1.0.522.101" of one path, what is done then still to be said.
RULES = OBSERVE.replace("cx700-interim", "stuck")
REPORT_ZERO = RULES + THEN["report"]
OFFER_NEXT = RULES + 'then.offer = "next"\ncheck_files = false\n'
