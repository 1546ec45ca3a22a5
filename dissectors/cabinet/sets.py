"""Cabinets of one set joined: the folder that goes on from one to the next is made whole.

Which cabinets belong together is told by set number and index alone; the names in their headers are only reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from dissectors.cabinet.directory import Directory, check_members
from dissectors.cabinet.limits import MAX_VOLUMES, Budget
from dissectors.cabinet.structures import NEXT_CABINET, PREVIOUS_CABINET
from dissectors.cabinet.values import Folder, Member
from dissectors.errors import DissectError, LimitExceeded


def join_directories(directories: Sequence[Directory], budget: Budget) -> Directory:
    """One directory of all, in the order of their indexes, whatever order they come in.

    Raises DissectError for cabinets that are no set: another set number, an index twice or missing, folders that do not
    continue each other. A set whose first or last cabinets are missing is joined as far as it goes.
    """
    volumes = sorted(directories, key=lambda each: each.header.set_index)
    if not 0 < len(volumes) <= MAX_VOLUMES:
        raise LimitExceeded(0, f"1 to {MAX_VOLUMES} cabinets", str(len(volumes)))
    for before, after in pairwise(volumes):
        check_neighbours(before, after)
    problems = [problem for volume in volumes for problem in volume.problems]
    joined = _Joined(problems, budget)
    for volume in volumes:
        joined.add(volume)
    if volumes[0].header.previous is not None:
        problems.append(f"the set is incomplete: cabinets before index {volumes[0].header.set_index} are missing")
    if volumes[-1].header.next is not None:
        problems.append(f"the set is incomplete: cabinets after index {volumes[-1].header.set_index} are missing")
    end = max(volume.end for volume in volumes)
    members = tuple(check_members(joined.folders, joined.members))
    return Directory(volumes[0].header, tuple(joined.folders), members, end, tuple(problems))


def check_neighbours(before: Directory, after: Directory) -> None:
    """Raise DissectError when the second cabinet does not follow the first."""
    if before.header.set_id != after.header.set_id:
        raise DissectError(32, f"a cabinet of set {before.header.set_id}", f"one of set {after.header.set_id}")
    expected = before.header.set_index + 1
    if after.header.set_index != expected:
        found = "it twice" if after.header.set_index < expected else f"index {after.header.set_index}"
        wanted = f"index {before.header.set_index} once" if after.header.set_index < expected else f"index {expected}"
        raise DissectError(34, f"{wanted} in set {before.header.set_id}", found)
    if not before.header.flags & NEXT_CABINET or not after.header.flags & PREVIOUS_CABINET:
        raise DissectError(30, f"indexes {before.header.set_index} and {expected} linked to each other", "no link")


class _Joined:
    """The folders and members so far."""

    def __init__(self, problems: list[str], budget: Budget) -> None:
        self.folders: list[Folder] = []
        self.members: list[Member] = []
        self.problems = problems
        self._budget = budget
        self._announced: set[tuple[int, int, int, bytes]] = set()

    def add(self, volume: Directory) -> None:
        """Append the folders and members of the next cabinet; a continued folder and its members merge."""
        where = f"cabinet {volume.header.set_index}"
        first = volume.folders[0]
        goes_on = bool(self.folders) and self.folders[-1].goes_on
        merging = goes_on and first.starts_before
        if self.folders and goes_on != first.starts_before:
            self.problems.append(f"{where}: only one side says that a folder is continued")
        if merging:
            self.folders[-1] = _merge(self.folders[-1], first, volume.header.end)
        shift = len(self.folders) - merging
        self.folders += (replace(folder, index=folder.index + shift) for folder in volume.folders[merging:])
        for member in volume.members:
            moved = replace(member, folder=member.folder + shift)
            key = (moved.folder, moved.offset, moved.size, moved.raw_name)
            if merging and member.from_previous:
                if key in self._announced:
                    continue
                self.problems.append(f"{where}: {member.display!r} was not announced before")
            if member.to_next:
                self._announced.add(key)
            self.members.append(moved)
        if sum(folder.blocks for folder in self.folders[-1:]) > self._budget.blocks:
            raise LimitExceeded(0, f"at most {self._budget.blocks} data blocks in a folder", "more")
        if len(self.members) > self._budget.members:
            raise LimitExceeded(0, f"at most {self._budget.members} members in the set", str(len(self.members)))


def _merge(last: Folder, first: Folder, offset: int) -> Folder:
    if last.type != first.type:
        raise DissectError(offset + 6, f"the {last.compression} folder to go on", first.compression)
    if last.fault is not None:
        return replace(last, goes_on=False)
    return replace(last, parts=last.parts + first.parts, fault=first.fault, goes_on=first.goes_on)
