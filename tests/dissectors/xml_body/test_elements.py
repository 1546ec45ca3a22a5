from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded, Unsupported
from dissectors.xml_body.elements import (
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_ELEMENTS,
    Element,
    Place,
    offsets,
    read_elements,
    unescape,
)

PIECES = st.sampled_from(
    [
        "a",
        " ",
        "\n",
        "\r\n",
        "\r",
        "\t",
        "ü",
        "😀",
        ">",
        "]",
        "&lt;",
        "&amp;",
        "&quot;",
        "&apos;",
        "&gt;",
        "&#65;",
        "&#x0041;",
        "&#13;",
        "/",
        "=",
    ]
)
RAW = st.lists(PIECES, max_size=8).map("".join)
CONTENT = st.lists(
    RAW.map(lambda raw: raw.replace("]", ""))
    | st.just("<!-- <r> -->")
    | st.just("<?p <a b='>'?>")
    | RAW.map(lambda raw: f"<![CDATA[<{raw.replace(']', '')}]]>"),
    max_size=4,
).map("".join)
DOCUMENTS = st.recursive(
    st.builds("<e x='{}' y = \"{}\"\t>{}</e >".format, RAW, RAW, CONTENT) | st.builds('<n:f n:z="{}"/>'.format, RAW),
    lambda inner: st.builds("<g>{}{}{}</g>".format, CONTENT, inner, inner),
    max_leaves=6,
).map('<r xmlns:n="u">{}</r>'.format)


def same(mine: Element, theirs: ET.Element) -> None:
    assert mine.tag.rpartition(":")[2] == theirs.tag.rpartition("}")[2]
    values = [raw.value for name, raw in mine.attributes if not name.startswith("xmlns")]
    # Literal white space at the ends is outside a value here; references to it are not.
    assert [value.strip() for value in values] == [value.strip() for value in theirs.attrib.values()]
    if mine.text is not None:
        assert len(theirs) == 0
        assert mine.text.value.strip() == "".join(theirs.itertext()).strip()


@given(DOCUMENTS)
def test_values_are_those_of_another_reader(document: str) -> None:
    parser = ET.XMLParser(target=ET.TreeBuilder())  # comments are dropped, their neighbours joined
    parser.feed(document)
    theirs = list(parser.close().iter())
    mine = read_elements(document)
    assert len(mine) == len(theirs)
    for one, other in zip(mine, theirs, strict=True):
        same(one, other)


@given(DOCUMENTS)
def test_places_hold_exactly_the_raw_values(document: str) -> None:
    for element in read_elements(document):
        for raw in [raw for _, raw in element.attributes] + ([element.text] if element.text else []):
            if raw.start is None or raw.end is None:
                continue
            text = document[raw.start : raw.end]
            if raw.place is Place.EMPTY_TAG:
                assert text == "/>"
            else:
                assert unescape(text.strip(" \t\r\n"), raw.place) == raw.value
            if raw.place.in_attribute:
                assert document[: raw.start].rstrip(" \t\r\n")[-1] in "'\""


@given(RAW, st.sampled_from([Place.TEXT, Place.CDATA, Place.QUOTED]))
def test_offsets_lead_from_values_to_raw_text(raw: str, place: Place) -> None:
    value, places = unescape(raw, place), offsets(raw, place)
    assert len(places) == len(value) + 1
    assert places == sorted(places)
    for start, end, character in zip(places, places[1:], value, strict=False):
        assert unescape(raw[start:end], place) == character


PLACES = {
    "<r> a </r>": ("a", "a", Place.TEXT),
    "<r>\n</r>": ("", "\n", Place.TEXT),
    "<r></r>": ("", "", Place.TEXT),
    "<r />": ("", "/>", Place.EMPTY_TAG),
    "<r> <![CDATA[ <a> ]]> </r>": ("<a>", "<a>", Place.CDATA),
    "<r><![CDATA[]]></r>": ("", "", Place.CDATA),
    "<r><!-- c --> a<?p?></r>": ("a", "a", Place.TEXT),
    "<r> <!-- c --></r>": ("", "", Place.TEXT),
    "<r>a<!-- c -->b</r>": ("ab", None, Place.TEXT),
    "<r>a<![CDATA[b]]></r>": ("ab", None, Place.TEXT),
}


@pytest.mark.parametrize("document", PLACES)
def test_the_place_of_text(document: str) -> None:
    text = read_elements(document)[0].text
    assert text
    held = None if text.start is None or text.end is None else document[text.start : text.end]
    assert (text.value, held, text.place) == PLACES[document]


def test_text_around_child_elements_is_no_value() -> None:
    root, child = read_elements("<r>a<b/>c</r>")
    assert root.text is None
    assert (child.parent, child.tag) == (0, "b")


REFUSED = {
    "a document type": ("<!DOCTYPE r><r/>", Unsupported),
    "a bomb": ('<!DOCTYPE r [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><r>&b;</r>', Unsupported),
    "an external entity": ('<!DOCTYPE r SYSTEM "http://127.0.0.1/x.dtd"><r>&x;</r>', Unsupported),
    "an unknown entity": ("<r>&x;</r>", DissectError),
    "depth": ("<a>" * (MAX_DEPTH + 1), LimitExceeded),
    "endless depth": ("<a>" * 200_000, LimitExceeded),
    "elements": ("<r>" + "<a/>" * MAX_ELEMENTS + "</r>", LimitExceeded),
    "attributes": ("<r " + " ".join(f"a{n}=''" for n in range(MAX_ATTRIBUTES + 1)) + "/>", LimitExceeded),
    "the same attribute twice": ("<r a='' a=''/>", DissectError),
    "a control character": ("<r>\x01</r>", DissectError),
    "a NUL": ("<r>\0</r>", DissectError),
    "no end": ("<r><a></r>", DissectError),
    "two roots": ("<r/><r/>", DissectError),
    "a reference to nothing": ("<r>&#0;</r>", DissectError),
    "nothing": ("", DissectError),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    document, error = REFUSED[name]
    with pytest.raises(error):
        read_elements(document)


def test_long_numbers_of_characters_are_read() -> None:
    text = read_elements("<r>&#" + "0" * 5000 + "65;&#x" + "0" * 5000 + "42;</r>")[0].text
    assert text
    assert text.value == "AB"
