"""Documents that differ in values alone give what parsing gives, whatever was read before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.xml_body import skeletons
from dissectors.xml_body.elements import Element, read_elements
from dissectors.xml_body.skeletons import MAX_MISSED, MAX_TEXT, elements_of
from tests.dissectors.xml_body.test_elements import DOCUMENTS

DOCUMENT = (
    '<?xml version="1.0" encoding="{}"?><!-- <n>{}</n> n="{}" --><r a="{}" b=\'{}\' c = "{}"><t>{}</t><?p <q>{}</q>?>'
    "<m>{}<e x='{}'/>{}</m><i><!-- -->{}</i><j>{}<!-- --></j><k>{}<!-- -->{}</k><c><![CDATA[{}]]></c>"
    '<d>{}<![CDATA[>{}</]]>{}</d> <n nil="{}">{}</n >\n<u>{}</u>{}</r>'
)
COUNT = DOCUMENT.count("{}")
PLAIN = st.sampled_from(["1", "CX700", "two words", "0004F2000176", "é", "a=b", "it's", '"'])
ODD = st.sampled_from(
    ["", " ", " 1", "1 ", "1\n", "\t", "a\r\nb", "\xa0", "a\u3000", "\u3000a", "\x01", "\ufffe", "\x85"]
) | st.sampled_from(
    ["&amp;", "&#65;", "&", "<", ">", "]]>", "-->", "?>", "--", "<b/>", "<b>x</b>", "</t>", 'x="y"', "x='y'"]
)
VALUES = st.lists(PLAIN | ODD, min_size=COUNT, max_size=COUNT) | st.lists(PLAIN, min_size=COUNT, max_size=COUNT)


def outcome(text: str, *, parsed: bool) -> list[Element] | tuple[object, ...]:
    try:
        return read_elements(text) if parsed else elements_of(text)[0]
    except DissectError as error:
        return type(error), error.args


@given(VALUES, st.lists(st.tuples(st.integers(0, COUNT - 1), PLAIN | ODD), max_size=6))
def test_other_values_are_read_as_by_the_parser(values: list[str], changes: list[tuple[int, str]]) -> None:
    for place, value in [(0, values[0])] * 2 + changes:
        values[place] = value
        text = DOCUMENT.format(*values)
        assert outcome(text, parsed=False) == outcome(text, parsed=True)


@given(DOCUMENTS)
def test_the_same_again(document: str) -> None:
    for _ in range(3):
        assert elements_of(document)[0] == read_elements(document)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that went through the parser."""
    texts: list[str] = []

    def read(text: str) -> list[Element]:
        texts.append(text)
        return read_elements(text)

    skeletons._skeleton.cache_clear()
    monkeypatch.setattr(skeletons, "read_elements", read)
    return texts


def test_the_third_of_a_kind_is_not_parsed(parsed: list[str]) -> None:
    documents = [f"<r s='{n}'><Serial x=\"0{n}\">{'7' * n}</Serial> <v>\n</v><w/></r>" for n in range(1, 6)]
    for document in documents:
        assert elements_of(document)[0] == read_elements(document)
    assert parsed == documents[:2]


@pytest.mark.parametrize(
    ("template", "other"),
    [
        *(("<q><a>{}</a></q>", other) for other in ("1&amp;2", "\x01", " 1", "1]]>", "\xa0", "1 ")),
        *(("<q><a b='{}'/></q>", other) for other in ("1&amp;2", "1\t2", " 1", "1 ")),
        *(('<q><a b="{}"/></q>', other) for other in ("1&amp;2", "1\t2", " 1", "1 ")),
    ],
)
def test_what_is_no_plain_value_is_parsed(parsed: list[str], template: str, other: str) -> None:
    for value in "123":
        elements_of(template.format(value))
    document = template.format(other)
    assert outcome(document, parsed=False) == outcome(document, parsed=True)
    assert parsed[2:] == [document]


ODD_DOCUMENTS = {
    "not printable": "<o><a>1\x852</a><!-- ='1' --><b c='1'/></o>",
    "white space at the end": "<o><a>1\n</a><!-- ='1' --><b c='1'/></o>",
    "a fixed piece": "<o><a>1</a><!-- ='2' --><b c='1'/></o>",
    "another quote": "<o><a>1</a><!-- ='1' --><b c=\"1\"/></o>",
}


@pytest.mark.parametrize("odd", ODD_DOCUMENTS.values(), ids=ODD_DOCUMENTS)
def test_an_odd_document_makes_no_other_forgotten(parsed: list[str], odd: str) -> None:
    usual = [f"<o><a>{number}</a><!-- ='1' --><b c='{number}'/></o>" for number in range(2 * MAX_MISSED)]
    for document in usual[:2]:
        elements_of(document)
    for document in usual[2:]:
        assert elements_of(odd)[0] == read_elements(odd)
        assert elements_of(document)[0] == read_elements(document)
    assert [document for document in parsed if document != odd] == usual[:2]


def test_a_value_with_white_space_at_the_end_is_not_learnt(parsed: list[str]) -> None:
    documents = [f"<o><a>{value}</a></o>" for value in ("1", "1\n", "2", "3", "4")]
    for document in documents:
        assert elements_of(document)[0] == read_elements(document)
    assert parsed == documents[:3]


def test_values_that_are_not_printable_change_no_shape(parsed: list[str]) -> None:
    usual, odd = "<o><a>1</a></o>", "<o><a>1\x852</a></o>"
    documents = [usual] * 2 + [odd] * (MAX_MISSED + 1) + [usual]
    shapes = [elements_of(document)[1] for document in (usual, *documents)]
    assert parsed == documents[:-1]
    assert shapes[-1] is shapes[2]


@pytest.mark.parametrize(
    "kinds",
    [
        ("<o><!-- ='1' --><a>{}</a></o>", "<o><!-- ='2' --><a>{}</a></o>", "<o><!-- ='3' --><a>{}</a></o>"),
        ("<o><a b='1'>{}</a></o>", '<o><a b="1">{}</a></o>', "<o><a b='1'>{}</a></o>"),
    ],
    ids=["a fixed piece", "another quote"],
)
def test_a_shape_that_came_out_of_use_is_learnt_again(parsed: list[str], kinds: tuple[str, str, str]) -> None:
    old, new = ([kind.format(number) for number in range(MAX_MISSED + 3)] for kind in kinds[:2])
    odd = kinds[2].format("odd")
    for document in (*old, *new[:-2], odd, *new[-2:]):
        assert outcome(document, parsed=False) == outcome(document, parsed=True)
    assert parsed == [*old[:2], *new[:-2], odd]


def test_long_documents_are_parsed(parsed: list[str]) -> None:
    document = f"<r>{'x' * MAX_TEXT}</r>"
    for _ in range(4):
        elements_of(document)
    assert len(parsed) == 4
