"""A check of a known layout means what searching it gives, whatever was read before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.update_check import UpdateCheck, layouts
from dissectors.vocabulary import Vocabulary
from dissectors.xml_body import skeletons

VOCABULARY = Vocabulary.default()
MODULES = "<Modules><Module><FileName>{}</FileName><Version>{}</Version><Timestamp>{}</Timestamp></Module></Modules>"
TWO = "<Module><Version>{}</Version></Module><m:Module><Version i:nil='{}'>{}</Version><Name>{}</Name></m:Module>"
TEMPLATES = (
    f"<C><DeviceType>{{}}</DeviceType><MAC>{{}}</MAC><Model>{{}}</Model>{MODULES}</C>",
    "<C Version='{}'><D Model='{}' MAC='{}' UserID=''/><Module Name=\"{}\" Version=\"{}\" Date=\"\">{}</Module></C>",
    "<C><Model>{}</Model><Serial>{}</Serial><P Name='{}' Value='{}'/><Modules>{}</Modules><Firmware>{}</Firmware></C>",
    "<C><Model>{}</Model><Entry><Key>{}</Key><Value>{}</Value></Entry><File version='{}'>{}</File><MAC>{}</MAC></C>",
    f"<C><Phone MAC='{{}}' Vendor='{{}}'/>{TWO}</C>",
    "<C xmlns='{}'><Model>{}</Model><Model>{}</Model><Vendor>{}</Vendor><Version>{}</Version><File>{}</File></C>",
)
COUNT = 6
MANIFEST = "urn:schemas-microsoft-com:asm.v1"
USUAL = st.sampled_from(["UCPhone", "CX700", "1.0.522.73", "CPE.nbt", "0004F2000176", "04-05-2008 10:00:00"])
ODD = st.sampled_from(
    ["", " ", "é", "1.0", "9999999999.0.0.0", "a;1.2.3.4;t", "a;1.2.3.4;t#b", "Model", "Vendor", "Version", "true", "1"]
) | st.sampled_from(["\U000e0001" * 40, "&amp;", "<b/>", MANIFEST, "x.y"])
VALUES = st.lists(USUAL | ODD, min_size=COUNT, max_size=COUNT) | st.lists(USUAL, min_size=COUNT, max_size=COUNT)


def outcome(body: bytes, charset: str | None = None, *, searched: bool) -> tuple[object, ...]:
    """What a check is decoded to; `searched` by a vocabulary of its own, which no layout is known of."""
    try:
        check = UpdateCheck.decode(body, Vocabulary.default().extended("") if searched else VOCABULARY, charset)
    except DissectError as error:
        return type(error), error.args
    return check, check.source.elements, check.to_json(secrets=True)


@given(st.sampled_from(TEMPLATES), VALUES, st.lists(st.tuples(st.integers(0, COUNT - 1), USUAL | ODD), max_size=6))
def test_other_values_mean_what_they_mean_by_searching(
    template: str, values: list[str], changes: list[tuple[int, str]]
) -> None:
    bodies: list[bytes] = []
    for place, value in [(0, values[0]), (0, values[0]), (0, values[0]), *changes]:
        values[place] = value
        bodies.append(template.format(*values).encode())
    known = [outcome(body, searched=False) for body in bodies]
    assert known == [outcome(body, searched=True) for body in bodies]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of each check, whether its layout was known."""
    results: list[bool] = []
    known = layouts.known

    def asked(*arguments: object) -> object:
        result = known(*arguments)  # type: ignore[arg-type]
        results.append(result is not None)
        return result

    monkeypatch.setattr(layouts, "known", asked)
    return results


def test_checks_of_one_kind_are_searched_once(found: list[bool]) -> None:
    for number in range(6):
        body = f"<One><Model>CX{number}</Model><MAC>0004F200000{number}</MAC><Version>1.0.0.{number}</Version></One>"
        check = UpdateCheck.decode(body.encode(), VOCABULARY)
        assert check.to_json()["modules"][0]["version"] == f"1.0.0.{number}"
        assert check.mac_address == f"00:04:f2:00:00:0{number}"
    assert found == [False] * 3 + [True] * 3


@pytest.mark.parametrize("locale", ["E\x85U", "ENU\n", "ENU ", "&#69;NU"])
def test_a_phone_with_odd_values_has_no_other_searched(found: list[bool], locale: str) -> None:
    template = "<Odd><Model>M</Model><MAC>0004F20000{:02}</MAC><Locale>{}</Locale><Version>1.0.0.{}</Version></Odd>"
    skeletons._skeleton.cache_clear()
    values = ["ENU", "ENU", *["ENU", locale] * 20]
    bodies = [template.format(number, value, number).encode() for number, value in enumerate(values)]
    known = [outcome(body, searched=False) for body in bodies]
    assert [was for was, value in zip(found, values, strict=True) if value == "ENU"] == [False] * 3 + [True] * 19
    assert known == [outcome(body, searched=True) for body in bodies]


@pytest.mark.parametrize(
    ("template", "usual", "other"),
    [
        ("<V1><MAC>12</MAC><Model>M</Model><FileName>f</FileName><Version>{}</Version></V1>", "1.2.3.4", "1.0"),
        ("<V2><MAC>12</MAC><Model>M</Model><FileName>f</FileName><Version v='{}'/></V2>", "1.2.3.4", "f;1.2.3.4;t"),
        ("<V3><MAC>12</MAC><Model>M</Model><Firmware>{}</Firmware></V3>", "1.2.3.4", "CPE.nbt"),
        ("<V4><MAC>12</MAC><Model>M</Model><Firmware>{}</Firmware></V4>", "none", "1.2.3.4"),
        ("<V5><MAC>12</MAC><Model>M</Model><Modules>{}</Modules></V5>", "none", "f;1.2.3.4;t"),
        ("<V6><MAC>12</MAC><Vendor>V</Vendor><Model>M</Model><Model>{}</Model></V6>", "N", "M"),
        ("<L1><MAC>12</MAC><Model>M</Model><Firmware>{}</Firmware></L1>", "CPE.nbt", "CPE.nbt;1.0.522.73;t"),
        ("<L2><MAC>12</MAC><Model>M</Model><Modules>{}</Modules></L2>", "none", "a;b"),
        ("<L4 xmlns='{}'><MAC>12</MAC><Model>M</Model><Version>1.0.0.1</Version></L4>", "x", MANIFEST),
        ("<N1><MAC>12</MAC><Model>M</Model><P Name='{}' Value='12'/></N1>", "Serial", "Vendor"),
        ("<N2><MAC>12</MAC><Model>M</Model><P><Key>{}</Key><Value>12</Value></P></N2>", "Serial", "Vendor"),
        ("<N5><MAC>12</MAC><Model>M</Model><P><Key a=''>{}</Key><Value a=''>12</Value></P></N5>", "Serial", "Vendor"),
        ("<N3><MAC>12</MAC><Model>M</Model><Item Key='{}'>12</Item></N3>", "Serial", "Vendor"),
        ("<N4><MAC>12</MAC><Model>M</Model><Vendor i:nil='{}'>12</Vendor></N4>", "0", "1"),
    ],
)
def test_a_value_that_tells_what_is_meant_is_looked_at(template: str, usual: str, other: str) -> None:
    bodies = [template.format(value).encode() for value in (usual, usual, usual, usual, other)]
    assert [outcome(body, searched=False) for body in bodies] == [outcome(body, searched=True) for body in bodies]


@pytest.mark.parametrize(
    ("mac", "charset"),
    [(b"12", "utf-16"), (b"12", "nonsense"), (b"\xff\xfe", None)],
    ids=["utf-16", "nonsense", "bytes"],
)
def test_what_is_wrong_with_the_encoding_is_told(mac: bytes, charset: str | None) -> None:
    body = b"<L3><MAC>12</MAC><Model>M</Model><Version>1.0.0.1</Version></L3>"
    for _ in range(4):
        outcome(body, searched=False)
    other = body.replace(b"12", mac)
    assert outcome(other, charset, searched=False) == outcome(other, charset, searched=True)
    assert UpdateCheck.decode(other, VOCABULARY, charset).source.problems


def test_fields_without_bytes_of_their_own_are_not_mixed_up() -> None:
    module = b"<Module><FileName>%b</FileName><Version>%b</Version></Module>"
    # Two codes of this encoding are one character, so the text does not lead back to these bytes.
    template = b"<L5><MAC>12</MAC><Model>M\x87\x90</Model>" + 2 * module + b"</L5>"
    alike, other = (b"f", b"1.0.0.1") * 2, (b"g", b"1.0.0.1", b"h", b"1.0.0.2")
    bodies = [template % values for values in (alike, alike, alike, alike, other)]
    known = [outcome(body, "windows-31j", searched=False) for body in bodies]
    assert known == [outcome(body, "windows-31j", searched=True) for body in bodies]


def test_another_vocabulary_has_a_layout_of_its_own() -> None:
    body = b"<Own><Model>M</Model><MAC>0004F2000176</MAC><Asset>12</Asset></Own>"
    other = VOCABULARY.extended('[aliases]\nserial = ["Asset"]')
    for vocabulary, serial in [(VOCABULARY, None), (other, "12")] * 3:
        for _ in range(4):
            assert UpdateCheck.decode(body, vocabulary).to_json()["serial"] == serial
