"""Cabinets of one set given together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePath

from dissectors.cabinet import Cabinet
from tools.decode.inputs import Content

Volume = tuple[Content, Cabinet]


def is_volume(cabinet: Cabinet) -> bool:
    """Whether the cabinet says that it is one of several."""
    return cabinet.header.previous is not None or cabinet.header.next is not None


def group(volumes: Sequence[Volume]) -> list[list[Volume]]:
    """The sets: same folder, same number, and each named by the header of the one before where numbers repeat."""
    by_number: dict[tuple[object, int], list[Volume]] = defaultdict(list)
    for content, cabinet in volumes:
        folder = content.path.parent if content.path else None
        by_number[folder, cabinet.header.set_id].append((content, cabinet))
    sets = []
    for alike in by_number.values():
        alike.sort(key=lambda volume: volume[1].header.set_index)
        indexes = [cabinet.header.set_index for _content, cabinet in alike]
        sets += [alike] if len(set(indexes)) == len(indexes) and _contiguous(indexes) else _chains(alike)
    return sets


def _contiguous(indexes: list[int]) -> bool:
    return indexes[-1] - indexes[0] == len(indexes) - 1


def _chains(volumes: list[Volume]) -> list[list[Volume]]:
    """Follow the names in the headers from each volume that none of the others precedes."""
    chains: list[list[Volume]] = []
    for content, cabinet in volumes:
        for chain in chains:
            last = chain[-1][1].header
            named = last.next is not None and _name(last.next.cabinet) == _name(content.name)
            if last.set_index + 1 == cabinet.header.set_index and named:
                chain.append((content, cabinet))
                break
        else:
            chains.append([(content, cabinet)])
    return chains


def _name(path: str) -> str:
    return PurePath(path.replace("\\", "/")).name.casefold()
