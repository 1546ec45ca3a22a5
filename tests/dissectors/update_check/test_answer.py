from __future__ import annotations

import contextlib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.update_check import UpdateAnswer
from dissectors.update_check.answer import MAX_OFFERS
from dissectors.version import Version
from dissectors.vocabulary import MODULE_FIELDS, URL_FIELDS, Vocabulary
from dissectors.xml_body import Place
from tests.dissectors.update_check.shapes import ENCODINGS, SHAPES, TEXT, VERSIONS, Shape, answer

VOCABULARY = Vocabulary.default()
INTERNAL = "http://pool01.contoso.com/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE"
EXTERNAL = "https://ocsrp.fabrikam.com/DeviceUpdateFiles_Ext/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE"
OFFER = {
    "base_url": INTERNAL,
    "external_base_url": EXTERNAL,
    "file": "cpe.nbt",
    "signature_file": "cpe.cat",
    "version": "1.0.522.101",
    "timestamp": "13-04-2008 10:00:00",
}
OFFERS = st.lists(
    st.fixed_dictionaries(
        {
            "base_url": st.just("") | TEXT,
            "external_base_url": st.just("") | TEXT,
            "file": TEXT,
            "version": VERSIONS.map(str),
        },
        optional={"signature_file": TEXT, "timestamp": TEXT},
    ),
    max_size=3,
)


def decode(body: bytes) -> UpdateAnswer:
    return UpdateAnswer.decode(body, VOCABULARY)


def values(decoded: UpdateAnswer) -> list[dict[str, str]]:
    return [
        {name: getattr(offer, name).value for name in (*URL_FIELDS, *MODULE_FIELDS) if getattr(offer, name) is not None}
        for offer in decoded.offers
    ]


@given(SHAPES, OFFERS)
def test_all_offers_are_found_in_every_shape(shape: Shape, offers: list[dict[str, str]]) -> None:
    decoded = decode(answer(shape, offers))
    assert values(decoded) == offers
    assert decoded.is_offer == any(offer["base_url"] or offer["external_base_url"] for offer in offers)


@given(SHAPES, OFFERS)
def test_an_edit_with_the_same_values_is_the_identity(shape: Shape, offers: list[dict[str, str]]) -> None:
    body = answer(shape, offers)
    decoded = decode(body)
    fields = [getattr(offer, name) for offer in decoded.offers for name in (*URL_FIELDS, *MODULE_FIELDS)]
    assert decoded.replace({field: field.value for field in fields if field is not None}) == body
    if len(offers) == 1:
        assert decoded.with_offer(**offers[0]) == body


@given(SHAPES, OFFERS.filter(lambda offers: len(offers) == 1), TEXT, TEXT, VERSIONS)
def test_the_changed_offer_is_read_again(
    shape: Shape, offers: list[dict[str, str]], base: str, external: str, version: Version
) -> None:
    decoded = decode(answer(shape, offers))
    try:
        new = decoded.with_offer(base_url=base, external_base_url=external, version=version)
    except DissectError:
        offer = decoded.offers[0]
        assert Place.CDATA in {one.place for one in (offer.base_url, offer.external_base_url) if one}
        return
    assert values(decode(new)) == [
        {**offers[0], "base_url": base, "external_base_url": external, "version": str(version)}
    ]


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("seed", [0, 1])  # <BaseURL></BaseURL> and <BaseURL />
def test_blank_urls_can_be_filled(encoding: str, seed: int) -> None:
    blank = {**OFFER, "base_url": "", "external_base_url": ""}
    body = answer(Shape(encoding=encoding, seed=seed), [blank])
    decoded = decode(body)
    (offer,) = decoded.offers
    assert offer.empty
    assert not decoded.is_offer
    assert offer.offered_version == Version(1, 0, 522, 101)
    again = decode(decoded.with_offer(base_url=INTERNAL, external_base_url=EXTERNAL))
    assert values(again) == [OFFER]
    assert again.is_offer


@pytest.mark.parametrize(
    "kinds", [tuple(OFFER), ("base_url", "version"), ("external_base_url", "version", "timestamp")]
)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_wholly_blank_offer_can_be_filled(kinds: tuple[str, ...], seed: int) -> None:
    decoded = decode(answer(Shape(seed=seed), [dict.fromkeys(kinds, "")]))
    filled = {kind: OFFER[kind] for kind in kinds}
    assert values(decoded) == [dict.fromkeys(kinds, "")]
    assert values(decode(decoded.with_offer(**filled))) == [filled]


def test_an_empty_tag_opens_and_nothing_else_moves() -> None:
    body = b"<R>\r\n <!-- synthetic --> <BaseURL  a='1' />\t<ExternalBaseURL >\r\n</ExternalBaseURL ></R>\r\n\0"
    assert decode(body).with_offer(base_url="http://a/?x=1&y=2", external_base_url="b") == (
        b"<R>\r\n <!-- synthetic --> <BaseURL  a='1' >http://a/?x=1&amp;y=2</BaseURL>\t"
        b"<ExternalBaseURL >b</ExternalBaseURL ></R>\r\n\0"
    )


def test_the_url_tells_the_package() -> None:
    (offer,) = decode(b"<R><!-- synthetic --><BaseURL>" + INTERNAL.encode() + b"</BaseURL></R>").offers
    assert offer.package
    assert offer.package.model == "CX700"
    assert offer.offered_version == Version(1, 0, 522, 101)
    assert offer.to_json()["package"] == "/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE"


def test_other_urls_tell_none() -> None:
    (offer,) = decode(b"<R><!-- synthetic --><BaseURL>http://a/b</BaseURL></R>").offers
    assert offer.package is None
    assert offer.offered_version is None
    assert not offer.empty


@pytest.mark.parametrize(
    "body",
    [
        b"<R><!-- synthetic --></R>",
        b"<R downloads='0' version='1.0.0.0'><!-- synthetic --><Version>1.0.522.73</Version></R>",
        b"<s:Envelope xmlns:s='x'><s:Body><!-- synthetic --><Nothing/></s:Body></s:Envelope>",
    ],
)
def test_answers_without_an_offer(body: bytes) -> None:
    decoded = decode(body)
    assert decoded.offers == ()
    assert not decoded.is_offer
    with pytest.raises(DissectError, match="editable BaseURL"):
        decoded.with_offer(base_url="http://a/")


def test_a_value_without_a_place_is_named() -> None:
    decoded = decode(b"<R><!-- synthetic --><BaseURL/></R>")
    for name in ("external_base_url", "version", "file", "signature_file", "timestamp"):
        with pytest.raises(DissectError, match=name):
            decoded.with_offer(base_url="http://a/", **{name: "1.0.522.101"})


def test_the_version_of_the_echoed_device_is_not_offered() -> None:
    decoded = decode(
        b"<R><!-- synthetic --><Phone Model='CX700' MAC='0004F2000176' Version='1.0.522.73'/>"
        b"<Update><BaseURL>a</BaseURL><Version>1.0.522.101</Version></Update></R>"
    )
    assert decoded.model
    assert decoded.mac_address == "00:04:f2:00:01:76"
    assert [str(offer.offered_version) for offer in decoded.offers] == ["1.0.522.101"]


def test_the_version_an_echoed_device_runs_is_left_alone() -> None:
    decoded = decode(
        b"<R><!-- synthetic --><Device><Model>CX700</Model><Version>1.0.522.73</Version></Device><BaseURL/></R>"
    )
    assert [offer.version for offer in decoded.offers] == [None]
    assert b"<Version>1.0.522.73</Version>" in decoded.with_offer(base_url="http://a/")


def test_a_version_that_only_one_of_several_modules_has_is_not_the_place_of_the_offered_one() -> None:
    decoded = decode(
        b"<R><!-- synthetic --><BaseURL/><File FileName='CPE.nbt' SignatureFileName='CPE.cat'/>"
        b"<File FileName='Boot.nbt' Version='1.2.3.4'/></R>"
    )
    with pytest.raises(DissectError, match="one place for version in the answer, found that of one offer of several"):
        decoded.with_offer(base_url="http://a/", version="1.0.522.101")
    assert b"1.2.3.4" in decoded.with_offer(base_url="http://a/")


def test_several_files_share_one_url() -> None:
    decoded = decode(
        b"<R><!-- synthetic --><Internal><BaseURL>a</BaseURL></Internal><External><ExternalBaseURL/></External>"
        b"<Modules>x.nbt;x.cat;1.0.522.101;t#y.nbt;y.cat;1.0.522.102;t</Modules></R>"
    )
    assert [(offer.file and offer.file.value, offer.base_url and offer.base_url.value) for offer in decoded.offers] == [
        ("x.nbt", "a"),
        ("y.nbt", "a"),
    ]
    assert b"<BaseURL>c</BaseURL>" in decoded.with_offer(base_url="c")
    with pytest.raises(DissectError, match="one place for version"):
        decoded.with_offer(version="1.0.522.103")


def test_urls_belong_to_the_nearest_module() -> None:
    update = (
        b"<Update><Urls><BaseURL>%s</BaseURL></Urls><Files><Module><FileName>%s</FileName></Module></Files></Update>"
    )
    decoded = decode(b"<R><!-- synthetic -->" + update % (b"a", b"x") + update % (b"b", b"y") + b"</R>")
    assert values(decoded) == [{"base_url": "a", "file": "x"}, {"base_url": "b", "file": "y"}]
    with pytest.raises(DissectError, match="one place for base_url"):
        decoded.with_offer(base_url="c")


def test_nil_elements_are_left_alone() -> None:
    decoded = decode(b"<R xmlns:i='x'><!-- synthetic --><BaseURL i:nil='true'/></R>")
    assert "marked nil" in decoded.problems[0]
    with pytest.raises(DissectError):
        decoded.with_offer(base_url="a")


def test_too_many_offers_are_refused() -> None:
    with pytest.raises(DissectError):
        decode(answer(Shape(), [{"base_url": "a"}] * (MAX_OFFERS + 1)))


def test_json_has_the_offers() -> None:
    facts = decode(answer(Shape(encoding="utf-16-le with mark"), [OFFER])).to_json()
    assert facts["fact"] == "update-answer"
    assert facts["is_offer"] is True
    assert facts["encoding"] == "utf-16-le with byte order mark"
    assert facts["offers"][0].items() >= OFFER.items()
    assert facts["problems"] == []


def test_damaged_answers_are_decoded_or_refused() -> None:
    random = Random(1)
    bodies = [
        answer(Shape(encoding=encoding, cdata=bool(n % 2)), [OFFER] * n) for encoding in ENCODINGS for n in (1, 2)
    ]
    decoded = 0
    for _ in range(2000):
        body = bytearray(random.choice(bodies))
        at = random.randrange(len(body))
        body[at : at + random.randrange(4)] = random.choice([b"", b"<", b"&", b"\x00", b'"', b"<a>", b"\xfe"])
        with contextlib.suppress(DissectError):
            one = decode(bytes(body))
            assert one.to_json()
            one.with_offer(base_url="http://a/")
            decoded += 1
    assert decoded > 100


def test_foreign_xml_offers_nothing(corpus: Path) -> None:
    for path in sorted((corpus / "xml").iterdir()):
        with contextlib.suppress(DissectError):
            assert decode(path.read_bytes()).offers == ()
