from __future__ import annotations

import json
import random
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded, Unsupported, inband
from dissectors.inband.group_list import MAX_DEPTH
from dissectors.inband.settings import MAX_SETTINGS

NAMES = st.from_regex(r"[a-z][A-Za-z0-9]{0,20}", fullmatch=True).filter(
    lambda name: name.lower() not in ("property", "provisiongroup", "provisioninggroup")
)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp")), max_size=20).map(
    lambda text: text.replace("￾", "").replace("￿", "")
)
SETTINGS = st.lists(st.tuples(NAMES, VALUES), min_size=1, max_size=8)
CLOSE = "</provisionGroup></provisionGroupList>"


def synthetic(settings: list[tuple[str, str]], *, as_properties: bool = False) -> str:
    if as_properties:
        body = "".join(f"<property name={quoteattr(name)}>{escape(value)}</property>" for name, value in settings)
        body = f"<propertyEntryList>{body}</propertyEntryList>"
    else:
        body = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in settings)
    return (
        '<provisionGroupList xmlns="http://schemas.microsoft.com/2006/09/sip/provisiongrouplist-notification">'
        f'<provisionGroup name="ServerConfiguration">{body}{CLOSE}'
    )


@given(SETTINGS, st.booleans(), st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]))
def test_settings_are_found_in_every_form(settings: list[tuple[str, str]], as_properties: bool, codec: str) -> None:
    found = inband.parse(synthetic(settings, as_properties=as_properties).encode(codec))
    assert [(setting.name, setting.value) for setting in found.settings] == settings
    assert {setting.group for setting in found.settings} == {"ServerConfiguration"}
    assert found.complete


@given(SETTINGS)
def test_printed_settings_are_found(settings: list[tuple[str, str]]) -> None:
    for form in ("Property[ {} ] = {}", "{} = {}", "  {} : {}"):
        text = "ServerConfiguration:\n" + "\n".join(form.format(*pair) for pair in settings)
        assert [(one.name, one.value) for one in inband.parse_dump(text).settings] == settings


def test_the_dump_of_microsoft_s_sample(corpus: Path) -> None:
    found = inband.parse((corpus / "logs/ms-ucma-inband-provisioning.txt").read_bytes())
    assert found.updates_enabled is True
    assert found.internal_url == "https://tk5ucdfpl01.exchange.contoso.com:443/RequestHandler/ucdevice.upx"
    assert found.external_url == "https://lslm84.meet.contoso.com:443/RequestHandlerExt/ucdevice.upx"
    shown = found.to_json()
    assert shown["logging"] == {"level": "Medium", "user_logging": True}
    assert shown["phone"]["ucMinPinLength"] == "6"
    assert "adamb" not in json.dumps(shown)
    assert "adamb" in json.dumps(found.to_json(secrets=True))


def test_a_list_that_breaks_off_gives_what_is_there() -> None:
    whole = synthetic([("updatesServerEnabled", "false"), ("updatesServerInternalUrl", "http://a/"), ("c", "d")])
    for size in range(whole.index("<updatesServerInternalUrl"), len(whole)):
        found = inband.parse(whole[:size].encode())
        assert not found.complete
        assert found.updates_enabled is False
        assert any("breaks off" in problem for problem in found.problems)


def test_what_keeps_a_phone_from_its_updates_is_told() -> None:
    settings = [
        ("updatesServerEnabled", "False"),
        ("updatesServerInternalUrl", ""),
        ("updatesServerExternalUrl", "https://x/y"),
    ]
    problems = inband.parse(synthetic(settings).encode()).problems
    assert [any(word in problem for problem in problems) for word in ("is false", "is blank", "ucdevice.upx")] == [
        True
    ] * 3


def test_groups_asked_for_have_no_settings() -> None:
    asked = (
        b'<provisioningGroupList xmlns="http://schemas.microsoft.com/2006/09/sip/provisioninggrouplist">'
        b'<provisioningGroup name="ServerConfiguration"/><provisioningGroup name="endpointConfiguration"/>'
        b"</provisioningGroupList>"
    )
    found = inband.parse(asked)
    assert found.groups == ("ServerConfiguration", "endpointConfiguration")
    assert found.settings == ()
    assert found.complete


@pytest.mark.parametrize(
    "body",
    [
        b'<!DOCTYPE x [<!ENTITY a "b">]><provisionGroupList>&a;</provisionGroupList>',
        b'<!DOCTYPE provisionGroupList SYSTEM "http://127.0.0.1/x"><provisionGroupList/>',
    ],
)
def test_document_types_are_refused(body: bytes) -> None:
    with pytest.raises(Unsupported, match="document type"):
        inband.parse(body)


def test_hostile_files_of_others_raise_nothing_else(corpus: Path) -> None:
    for path in sorted((corpus / "xml").iterdir()):
        with pytest.raises(DissectError):
            inband.parse_group_list(path.read_bytes())


WRONG = [b"", b"hello", b"<", b"<a/>", b"<provisionGroupList", b"\xff\xfe<", b"\0\0\0", b"Group:\n"]


@pytest.mark.parametrize("data", WRONG)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        inband.parse(data)


def test_limits() -> None:
    with pytest.raises(LimitExceeded, match="settings"):
        inband.parse(synthetic([("a", "b")] * (MAX_SETTINGS + 1)).encode())
    with pytest.raises(LimitExceeded, match="settings"):
        inband.parse_dump("a = b\n" * (MAX_SETTINGS + 1))
    with pytest.raises(LimitExceeded, match="deep"):
        inband.parse(b"<provisionGroupList>" + b"<a>" * MAX_DEPTH)


def test_noise_raises_nothing_else() -> None:
    rng = random.Random(2006)
    whole = synthetic([("updatesServerEnabled", "true"), ("a", "&amp;x")], as_properties=True).encode()
    for _ in range(3000):
        broken = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.choice(b'<>"&;/\0 x\xff' + bytes([rng.randrange(256)]))
        try:
            json.dumps(inband.parse(bytes(broken)).to_json()).encode()
        except DissectError:
            continue
