from __future__ import annotations

import pytest

from dissectors.sip_users import mask_users

CASES = [
    ("sip:amy@contoso.com", "sip:*@contoso.com"),
    ("SIPS:amy:secret@contoso.com;x=1", "SIPS:*@contoso.com;x=1"),
    ("sip: amy@contoso.com;opaque=app:voicemail", "sip: *@contoso.com;opaque=app:voicemail"),
    ("<sip:a@b>, <sip:c@d>", "<sip:*@b>, <sip:*@d>"),
    ("sip:pool@contoso.com;gruu;opaque=srvr:HomeServer:x", "sip:pool@contoso.com;gruu;opaque=srvr:HomeServer:x"),
    ("sip:contoso.com", "sip:contoso.com"),
    ("gossip:amy@contoso.com", "gossip:amy@contoso.com"),
    ("http://contoso.com/a@b", "http://contoso.com/a@b"),
]


@pytest.mark.parametrize(("text", "masked"), CASES)
def test_people_are_hidden_and_hosts_are_not(text: str, masked: str) -> None:
    assert mask_users(text) == masked
