from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from captures import objects
from captures.bodies import BodyFiles
from captures.objects import ObjectJoiner, Resource

CONTENT = bytes(range(256)) * 2


def resource(size: int = len(CONTENT), target: str = "/x") -> Resource:
    return Resource("host", target, size, "etag")


@given(st.lists(st.tuples(st.integers(0, 511), st.integers(0, 200)), max_size=20))
def test_parts_in_any_order_and_overlapping(parts: list[tuple[int, int]]) -> None:
    joiner = ObjectJoiner("c", None)
    there: set[int] = set()
    for number, (start, size) in enumerate(parts):
        data = CONTENT[start : start + size]
        joiner.write(resource(), number, start, data)
        there.update(range(start, start + len(data)))
    for one in joiner.finished():
        absent = {place for first, last in one.missing for place in range(first, last + 1)}
        assert absent == set(range(len(CONTENT))) - there
        assert one.complete == (not absent)
        assert (one.sha256 == hashlib.sha256(CONTENT).hexdigest()) == one.complete
        assert not one.problems


def test_the_first_copy_stands_and_the_conflict_is_told() -> None:
    joiner = ObjectJoiner("c", None)
    joiner.write(resource(6), 0, 2, b"cd")
    joiner.write(resource(6), 1, 0, b"abXdef")
    (one,) = joiner.finished()
    assert one.sha256 == hashlib.sha256(b"abcdef").hexdigest()
    assert one.problems == ("conflict: two answers differ from byte 2 on; the one joined first stands",)


def test_objects_are_told_apart_by_validator_and_size() -> None:
    joiner = ObjectJoiner("c", None)
    joiner.write(resource(2), 0, 0, b"ab")
    joiner.write(resource(2)._replace(validator="other"), 1, 0, b"xy")
    joiner.write(resource(3), 2, 0, b"ab")
    assert [one.complete for one in joiner.finished()] == [True, True, False]


def test_parts_beyond_the_end_are_left_out() -> None:
    joiner = ObjectJoiner("c", None)
    joiner.write(resource(3), 0, 2, b"too long")
    (one,) = joiner.finished()
    assert (one.missing, one.problems) == (((0, 2),), ("parts were left out",))


def test_only_so_many_are_open_at_a_time() -> None:
    joiner = ObjectJoiner("c", None)
    for number in range(objects.MAX_OBJECTS + 5):
        joiner.write(resource(1, f"/{number}"), number, 0, b"x")
    assert len(list(joiner.finished())) == objects.MAX_OBJECTS + 5


def test_whole_objects_are_kept_by_hash(tmp_path: Path) -> None:
    joiner = ObjectJoiner("c", BodyFiles(tmp_path))
    joiner.write(resource(300_000), 0, 100_000, b"b" * 200_000)
    joiner.write(resource(300_000), 1, 0, b"a" * 100_000)
    (one,) = joiner.finished()
    assert [path.name for path in tmp_path.iterdir()] == [one.sha256]
