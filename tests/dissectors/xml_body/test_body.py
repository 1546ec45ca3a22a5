from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded
from dissectors.xml_body import Edit, Field, Span, XmlBody, splice
from dissectors.xml_body.body import MAX_PARTS

CODECS = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-be", "cp1252", "shift_jis", "gbk", "big5", "ascii"]
CHARACTERS = st.text(st.characters(codec="utf-8"), max_size=20)
XML_CHARACTERS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
    | st.sampled_from("\t\n\r"),
    max_size=20,
)


def fields_of(body: XmlBody) -> list[Field]:
    found: list[Field] = []
    for element in body.elements:
        found += [body.field(raw, name) for name, raw in element.attributes]
        if element.text is not None:
            found.append(body.field(element.text, element.tag))
    return found


def document(codec: str) -> bytes:
    text = "<r a='1' b=\"&#252;\" c='' ><d>€ x</d><e/><f></f><g><![CDATA[z]]></g><h> \n</h><i>ü<!-- --></i></r>"
    return f'<?xml version="1.0" encoding="{codec}"?>{text}'.encode(codec, "xmlcharrefreplace")


@pytest.mark.parametrize("codec", CODECS)
def test_the_same_values_give_the_same_bytes(codec: str) -> None:
    octets = document(codec)
    body = XmlBody.decode(octets)
    assert body.replace({field: field.value for field in fields_of(body)}) == octets
    assert [field.value for field in fields_of(body)] == ["1", "ü", "", "€ x", "", "", "z", "", "ü"]


@given(st.sampled_from(CODECS), st.integers(0, 8), XML_CHARACTERS)
def test_new_values_are_read_again_and_the_rest_stays(codec: str, index: int, text: str) -> None:
    octets = document(codec)
    body = XmlBody.decode(octets)
    field = fields_of(body)[index]
    try:
        new = body.replace({field: text})
    except DissectError:
        assert field.name == "g"
        return
    assert [one.value for one in fields_of(XmlBody.decode(new))] == [
        text if one == field else one.value for one in fields_of(body)
    ]
    assert field.span
    assert new[: field.span.start] == octets[: field.span.start]
    assert new[len(new) - len(octets) + field.span.end :] == octets[field.span.end :]


@given(st.sampled_from(CODECS), st.lists(XML_CHARACTERS, min_size=9, max_size=9))
def test_many_values_at_once(codec: str, texts: list[str]) -> None:
    body = XmlBody.decode(document(codec))
    texts[6] = "cdata"
    again = XmlBody.decode(body.replace(dict(zip(fields_of(body), texts, strict=True))))
    assert [one.value for one in fields_of(again)] == texts


@given(CHARACTERS)
def test_characters_that_xml_lacks_are_refused(text: str) -> None:
    body = XmlBody.decode(b"<r>x</r>")
    assume(any(ord(c) < 32 and c not in "\t\n\r" for c in text) or "\ufffe" in text)
    with pytest.raises(DissectError, match="text that r can hold"):
        body.replace({fields_of(body)[0]: text})


def test_offsets_far_into_text_of_uneven_width() -> None:
    for codec in ("utf-8", "utf-16-le", "gbk", "cp1252"):
        filler = "".join("aü中"[n % 3] for n in range(5000))
        octets = f'<?xml version="1.0" encoding="{codec}"?><r><a>{filler}</a><b>old</b></r>'.encode(
            codec, "xmlcharrefreplace"
        )
        body = XmlBody.decode(octets)
        field = fields_of(body)[-1]
        assert field.span
        assert octets[field.span.start : field.span.end].decode(codec) == "old"


def test_text_that_does_not_lead_back_to_its_bytes_is_not_edited() -> None:
    # EUC-KR writes this syllable in two ways; the long one is read and would be written as the short one.
    octets = b'<?xml version="1.0" encoding="euc-kr"?><r><a>\xa4\xd4\xa4\xa1\xa4\xbf\xa4\xd4</a><b>x</b></r>'
    body = XmlBody.decode(octets)
    assert "does not lead back" in body.problems[0]
    assert [field.span for field in fields_of(body)] == [None, None]
    with pytest.raises(DissectError, match="one editable place"):
        body.replace({fields_of(body)[1]: "y"})


def test_characters_encoded_alike_are_not_confused() -> None:
    body = XmlBody.decode(b'<?xml version="1.0" encoding="shift_jis"?><r>x</r>')
    assert body.replace({fields_of(body)[0]: "¥"}).endswith(b"<r>&#165;</r>")


def test_errors_tell_the_byte() -> None:
    octets = "<r>ü€</s>".encode("utf-16-le")
    with pytest.raises(DissectError) as caught:
        XmlBody.decode(octets)
    assert octets[caught.value.offset :].decode("utf-16-le") == "s>"


def test_lists_written_as_text_have_their_parts() -> None:
    octets = b"<r> a&amp;b ; c#;\xc3\xbc</r>"
    body = XmlBody.decode(octets)
    text = body.elements[0].text
    assert text
    parts = body.part_fields(text, "r", "#;")
    assert [[part.value for part in group] for group in parts] == [["a&b", "c"], ["", "ü"]]
    spans = [part.span for group in parts for part in group if part.span]
    assert [octets[start:end].decode() for start, end in spans] == ["a&amp;b", "c", "", "ü"]
    assert body.replace({parts[0][0]: "x", parts[1][0]: "<"}) == b"<r> x ; c#&lt;;\xc3\xbc</r>"
    for text_with_separator in ("x;y", "x#y", " x"):
        with pytest.raises(DissectError):
            body.replace({parts[0][1]: text_with_separator})


def test_long_lists_are_refused() -> None:
    body = XmlBody.decode(b"<r>" + b";" * MAX_PARTS + b"</r>")
    text = body.elements[0].text
    assert text
    with pytest.raises(LimitExceeded):
        body.part_fields(text, "r", "#;")


@given(st.binary(max_size=40), st.data())
def test_splices_keep_every_other_byte(body: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=6)))
    spans = [Span(*pair) for pair in zip(cuts[::2], cuts[1::2], strict=False)]
    new = [data.draw(st.binary(max_size=4)) for _ in spans]
    expected, done = b"", 0
    for (start, end), octets in zip(spans, new, strict=True):
        expected += body[done:start] + octets
        done = end
    edits = [Edit(span, octets) for span, octets in zip(spans, new, strict=True)]
    assert splice(body, reversed(edits)) == expected + body[done:]


@pytest.mark.parametrize(
    "edits",
    [
        [Edit(Span(0, 2), b"x"), Edit(Span(1, 3), b"y")],
        [Edit(Span(1, 1), b"x"), Edit(Span(1, 1), b"y")],
        [Edit(Span(0, 9), b"x")],
        [Edit(Span(2, 1), b"x")],
    ],
)
def test_edits_that_overlap_or_lie_outside_are_refused(edits: list[Edit]) -> None:
    with pytest.raises(DissectError):
        splice(b"abcd", edits)


def test_the_same_edit_twice_is_one() -> None:
    assert splice(b"abcd", [Edit(Span(1, 2), b"x")] * 2) == b"axcd"
