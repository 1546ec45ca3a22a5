"""The difference between two byte strings or two header lists as edits that can be replayed and undone.

Bytes are compared in pieces of text (words, names, values, single marks), so that a version that was replaced is shown
whole. The work is bounded: what differs too much is one edit over all of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

MAX_DIFFERENCES = 200  # pieces removed or added before it is all one edit
MAX_STEPS = 1_000_000  # comparisons

_MARKS = b"<>\"'= \t\n\r\f\v"  # each is a piece of its own
_PIECES = re.compile(rb"[^<>\"'=\s]+|.", re.DOTALL)
_OF_WORDS = bytes(set(range(256)) - set(_MARKS))

T = TypeVar("T")


class EditMismatch(ValueError):
    """Edits that do not fit what they are applied to."""


class ByteEdit(NamedTuple):
    """At this offset of the original, `before` became `after`."""

    offset: int
    before: bytes
    after: bytes


def diff(original: bytes, changed: bytes) -> tuple[ByteEdit, ...]:
    """The edits, in the order of their offsets, that make `changed` of `original`."""
    if original == changed:
        return ()
    same = _same(original, changed)
    tail = _same_at_the_end(original, changed, min(len(original), len(changed)) - same)
    old = _PIECES.findall(original, same, len(original) - tail)
    new = _PIECES.findall(changed, same, len(changed) - tail)
    edits, offset, done = [], same, 0
    for start, end, new_start, new_end in replaced(old, new):
        offset += sum(map(len, old[done:start]))
        before, after = b"".join(old[start:end]), b"".join(new[new_start:new_end])
        edits.append(ByteEdit(offset, before, after))
        offset, done = offset + len(before), end
    return tuple(edits)


def _same(one: bytes, other: bytes) -> int:
    """How many bytes at the beginning are whole pieces of both, and the same in both."""
    most = 0
    wrong = min(len(one), len(other)) + 1
    while wrong - most > 1:
        middle = (most + wrong) // 2
        if one[:middle] == other[:middle]:
            most = middle
        else:
            wrong = middle
    return len(one[:most].rstrip(_OF_WORDS))  # a word may go on


def _same_at_the_end(one: bytes, other: bytes, longest: int) -> int:
    """How many bytes at the end are whole pieces of both, and the same in both; no more than `longest`."""
    most, wrong = 0, longest + 1
    while wrong - most > 1:
        middle = (most + wrong) // 2
        if one[len(one) - middle :] == other[len(other) - middle :]:
            most = middle
        else:
            wrong = middle
    return len(one[len(one) - most :].lstrip(_OF_WORDS))  # a word may have begun before


def apply(original: bytes, edits: Sequence[ByteEdit]) -> bytes:
    """Replay edits over the original. Raises `EditMismatch`."""
    parts, done = [], 0
    for edit in edits:
        if edit.offset < done or original[edit.offset : edit.offset + len(edit.before)] != edit.before:
            raise EditMismatch(f"at offset {edit.offset}: expected {edit.before[:40]!r}")
        parts += [original[done : edit.offset], edit.after]
        done = edit.offset + len(edit.before)
    return b"".join((*parts, original[done:]))


def inverse(edits: Sequence[ByteEdit]) -> tuple[ByteEdit, ...]:
    """The edits that undo these."""
    undone, shift = [], 0
    for edit in edits:
        undone.append(ByteEdit(edit.offset + shift, edit.after, edit.before))
        shift += len(edit.after) - len(edit.before)
    return tuple(undone)


def replaced(old: Sequence[T], new: Sequence[T]) -> Iterator[tuple[int, int, int, int]]:
    """The slices (start, end of old; start, end of new) that differ, in order; shortest edit script within bounds."""
    head, shorter = 0, min(len(old), len(new))
    while head < shorter and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    old_end, new_end = len(old) - tail, len(new) - tail
    if min(old_end, new_end) - head <= 0 or old_end - head == new_end - head == 1:
        if max(old_end, new_end) > head:  # nothing in common, and mostly it is one header
            yield head, old_end, head, new_end
        return
    path = _common(old[head:old_end], new[head:new_end])
    at_old, at_new = head, head
    for x, y in (*((head + x, head + y) for x, y in path), (old_end, new_end)):
        if x > at_old or y > at_new:
            yield at_old, x, at_new, y
        at_old, at_new = x + 1, y + 1


def _common(old: Sequence[T], new: Sequence[T]) -> list[tuple[int, int]]:
    """Pairs of positions of a longest common subsequence (Myers 1986); none where it would cost too much."""
    deepest = min(MAX_DIFFERENCES, len(old) + len(new))
    furthest = [-1] * (2 * deepest + 3)  # by the diagonal; the negative ones are counted from the end
    furthest[1] = 0
    trace: list[list[int]] = []
    steps, old_size, new_size = 0, len(old), len(new)
    for depth in range(deepest + 1):
        trace.append(furthest[:])
        for k in range(-depth, depth + 1, 2):
            down = k == -depth or (k != depth and furthest[k - 1] < furthest[k + 1])
            x = furthest[k + 1] if down else furthest[k - 1] + 1
            start = x
            while x < old_size and x - k < new_size and old[x] == new[x - k]:
                x += 1
            steps += x - start + 1
            furthest[k] = x
            if x >= old_size and x - k >= new_size:
                return _backtrack(trace, old_size, new_size)
        if steps > MAX_STEPS:
            break
    return []


def _backtrack(trace: list[list[int]], x: int, y: int) -> list[tuple[int, int]]:
    pairs = []
    for depth in range(len(trace) - 1, -1, -1):
        before, k = trace[depth], x - y
        down = k == -depth or (k != depth and before[k - 1] < before[k + 1])
        came_from = k + 1 if down else k - 1
        from_x = before[came_from] if depth else 0
        from_y = from_x - came_from if depth else 0
        while x > from_x and y > from_y:
            x, y = x - 1, y - 1
            pairs.append((x, y))
        x, y = from_x, from_y
    return pairs[::-1]
