"""How many phones are in which state and run which version, kept up to date with every event of a phone.

Phones say what version they run, so the versions that are told apart are limited; the rest are `other`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TypeVar

MAX_VERSIONS = 64
OTHER = "other"

Label = tuple[str, str]  # state and version
Key = TypeVar("Key")


class Census:
    """Counts phones; reading it does not depend on how many there are."""

    def __init__(self, most: int = MAX_VERSIONS) -> None:
        self._most = most
        self._phones: Counter[Label] = Counter()
        self._versions: Counter[str] = Counter()

    def move(self, before: Label | None, state: str | None, version: str = "") -> Label | None:
        """A phone that was counted as `before` is now in a state, or with None no longer known; how it is counted."""
        # Left first: a phone on its own at a version frees the place it may go on holding.
        if before is not None:
            self._leave(before)
        if state is None:
            return None
        known = version in self._versions or len(self._versions) < self._most
        label = (state, version if known else OTHER)
        self._phones[label] += 1
        if known:
            self._versions[version] += 1
        return label

    def counts(self) -> dict[Label, int]:
        """Phones by state and version. May be called from any thread."""
        return dict(self._phones)

    def _leave(self, label: Label) -> None:
        _take(self._phones, label)
        _take(self._versions, label[1])


def told_apart(rows: Iterable[tuple[str, str, int]], most: int = MAX_VERSIONS) -> dict[Label, int]:
    """Counts by state and version, the versions of fewest phones taken together."""
    found = list(rows)
    versions: Counter[str] = Counter()
    for _, version, count in found:
        versions[version] += count
    told = {version for version, _ in versions.most_common(most)}
    counts: Counter[Label] = Counter()
    for state, version, count in found:
        counts[state, version if version in told else OTHER] += count
    return dict(counts)


def _take(counter: Counter[Key], key: Key) -> None:
    if counter[key] > 1:
        counter[key] -= 1
    else:
        del counter[key]
