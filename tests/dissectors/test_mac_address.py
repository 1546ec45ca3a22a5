from __future__ import annotations

import pytest

from dissectors.mac_address import normal_mac


@pytest.mark.parametrize("text", ["0004f2000176", "00-04-F2-00-01-76", " 00:04:f2:00:01:76 ", "0004.f200.0176"])
def test_every_notation_has_one_form(text: str) -> None:
    assert normal_mac(text) == "00:04:f2:00:01:76"


@pytest.mark.parametrize("text", ["", "0004F20001", "00-04-F2-00-01-7G", "4.2E+10", "٠٠٠٤f2000176"])
def test_anything_else_is_none(text: str) -> None:
    assert normal_mac(text) is None
