from __future__ import annotations

import difflib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captures import byte_edits
from captures.byte_edits import ByteEdit, EditMismatch, apply, diff, inverse, replaced

TEXT = st.lists(st.sampled_from([b"<v>", b"1.0.522.73", b"</v>", b" ", b"a", b"\0"]), max_size=20).map(b"".join)


@given(st.binary() | TEXT, st.binary() | TEXT)
def test_replayed_over_the_original_edits_give_the_change_and_inverted_the_original(old: bytes, new: bytes) -> None:
    edits = diff(old, new)
    assert apply(old, edits) == new
    assert apply(new, inverse(edits)) == old
    assert bool(edits) == (old != new)


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_no_more_is_replaced_than_another_differ_needs(old: list[int], new: list[int]) -> None:
    def cost(blocks: list[tuple[int, int, int, int]]) -> int:
        return sum(b - a + d - c for a, b, c, d in blocks)

    ours = cost(list(replaced(old, new)))
    theirs = [
        op[1:] for op in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes() if op[0] != "equal"
    ]
    assert ours <= cost(theirs)


def test_a_version_is_shown_whole_and_what_lies_between_is_left_out() -> None:
    old, new = b"<a>1.0.522.73</a><b>x</b><a>1.0.522.73</a>", b"<a>0.0.0.0</a><b>x</b><a>0.0.0.0</a>"
    assert diff(old, new) == (ByteEdit(3, b"1.0.522.73", b"0.0.0.0"), ByteEdit(28, b"1.0.522.73", b"0.0.0.0"))


def test_what_differs_too_much_is_one_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_edits, "MAX_DIFFERENCES", 2)
    assert diff(b"< a b c d >", b"< 1 b 2 d >") == (ByteEdit(2, b"a b c", b"1 b 2"),)


def test_edits_that_do_not_fit_are_refused() -> None:
    for edits in ([ByteEdit(0, b"x", b"")], [ByteEdit(1, b"b", b""), ByteEdit(0, b"a", b"")], [ByteEdit(9, b"z", b"")]):
        with pytest.raises(EditMismatch, match="at offset"):
            apply(b"abc", edits)
