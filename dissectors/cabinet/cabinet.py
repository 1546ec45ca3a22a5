"""The cabinet as its users see it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from dissectors.cabinet.authenticode import Signature, find_signature
from dissectors.cabinet.build import NewFolder, build_cabinet
from dissectors.cabinet.directory import Directory, read_directory
from dissectors.cabinet.embedded import find_cabinets
from dissectors.cabinet.limits import Budget
from dissectors.cabinet.names import name_hazards
from dissectors.cabinet.reading import MemberContent, Piece, read_pieces
from dissectors.cabinet.sets import join_directories
from dissectors.cabinet.values import Folder, Header, Member
from dissectors.errors import DissectError, LimitExceeded
from dissectors.source import Readable, Source, as_source

MAX_LISTED = 20
"""Problems of one sort told one by one."""
DEFAULT = Budget()


@dataclass(frozen=True, slots=True)
class Cabinet:
    """A cabinet, or the joined cabinets of a set.

    `offset` is its place in the file it was found in. `problems` is what a reader should know although it could be
    read; the faults of folders stand at those and are listed here too.
    """

    header: Header
    folders: tuple[Folder, ...] = field(repr=False)
    members: tuple[Member, ...] = field(repr=False)
    signature: Signature | None
    problems: tuple[str, ...]
    size: int
    offset: int = 0
    _sources: tuple[tuple[Source, Directory], ...] = field(default=(), repr=False, compare=False)

    @classmethod
    def parse(cls, data: Readable, budget: Budget = DEFAULT) -> Self:
        """The structure of the cabinet that starts at the beginning of `data`; nothing is decoded yet.

        Raises DissectError (offset, expected, found) when there is no readable directory.
        """
        source = as_source(data)
        return cls._of(source, read_directory(source, budget), 0)

    @classmethod
    def search(cls, data: Readable, budget: Budget = DEFAULT) -> Iterator[Self]:
        """The cabinets inside a larger file, such as a self-extractor, from front to back."""
        for found in find_cabinets(as_source(data), budget):
            yield cls._of(found.source, found.directory, found.offset)

    @classmethod
    def join(cls, cabinets: Iterable[Cabinet], budget: Budget = DEFAULT) -> Self:
        """The cabinets of one set, in any order, as one. Raises DissectError when they do not belong together."""
        sources = tuple(pair for cabinet in cabinets for pair in cabinet._sources)
        directory = join_directories([directory for _source, directory in sources], budget)
        size = sum(source.size for source, _directory in sources)
        return cls(
            directory.header,
            directory.folders,
            directory.members,
            None,
            (*directory.problems, *_faults(directory)),
            size,
            0,
            sources,
        )

    @staticmethod
    def build(folders: Sequence[NewFolder], **options: Any) -> bytes:
        """A new cabinet; see `build.build_cabinet` for the options."""
        return build_cabinet(folders, **options)

    @classmethod
    def _of(cls, source: Source, directory: Directory, offset: int) -> Self:
        signature, around = find_signature(source, directory.header)
        return cls(
            directory.header,
            directory.folders,
            directory.members,
            signature,
            (*directory.problems, *around, *_faults(directory)),
            source.size,
            offset,
            ((source, directory),),
        )

    @property
    def complete(self) -> bool:
        """Whether no member needs another cabinet of the set."""
        return not any(folder.starts_before or folder.goes_on for folder in self.folders)

    def pieces(
        self, members: Iterable[Member] | None = None, budget: Budget = DEFAULT, *, native: bool = True
    ) -> Iterator[Piece]:
        """The bytes of the wanted members (all by default) in one forward pass per folder, hashed on the way.

        A member's last piece has its digests, or the fault for which it ends early. `native` allows libmspack. Raises
        only LimitExceeded.
        """
        return read_pieces(self.folders, self.members if members is None else members, budget, native=native)

    def read(self, member: Member, budget: Budget = DEFAULT, *, native: bool = True) -> bytes:
        """The whole content of one member; raises its DissectError."""
        content = bytearray()
        for piece in self.pieces([member], budget, native=native):
            content += piece.data
            if piece.fault is not None:
                raise piece.fault
        return bytes(content)

    def examine(self, budget: Budget = DEFAULT, *, native: bool = True) -> Contents:
        """Decode and hash everything. Never raises: what could not be had is said per member."""
        ended: dict[int, Piece] = {}
        stop: DissectError | None = None
        try:
            for piece in self.pieces(None, budget, native=native):
                if piece.digests is not None or piece.fault is not None:
                    ended[id(piece.member)] = piece
        except LimitExceeded as error:
            stop = error
        contents = []
        for member in self.members:
            last = ended.get(id(member))
            contents.append(MemberContent(member, last and last.digests, last.fault if last else stop))
        return Contents(self, tuple(contents))

    def verify(self, budget: Budget = DEFAULT, *, native: bool = True) -> Contents:
        """`examine`, but raise the first fault."""
        contents = self.examine(budget, native=native)
        for content in contents.members:
            if content.fault is not None:
                raise content.fault
        return contents

    def to_json(self) -> dict[str, Any]:
        """The structure as plain values; `Contents.to_json` has the digests too."""
        header = self.header
        return {
            "kind": "cab",
            "size": self.size,
            "offset": self.offset,
            "version": "{}.{}".format(*header.version),
            "set_id": header.set_id,
            "set_index": header.set_index,
            "previous": header.previous._asdict() if header.previous else None,
            "next": header.next._asdict() if header.next else None,
            "reserve": header.reserve.hex() or None if self.signature is None else None,
            "folders": [folder.to_json() for folder in self.folders],
            "members": [member.to_json() for member in self.members],
            "signature": self.signature.to_json() if self.signature else None,
            "problems": list(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Contents:
    """A cabinet with every member decoded, or with the reason why not."""

    cabinet: Cabinet
    members: tuple[MemberContent, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        """The cabinet's problems and those that decoding found: each once, MAX_LISTED of them one by one."""
        faults = Counter(str(content.fault) for content in self.members if content.fault is not None)
        known = " ".join(self.cabinet.problems)
        found = [
            f"{fault} ({count} members)" if count > 1 else fault
            for fault, count in faults.items()
            if fault not in known
        ]
        more = (f"{len(found) - MAX_LISTED} more problems of members",) if len(found) > MAX_LISTED else ()
        return (*self.cabinet.problems, *found[:MAX_LISTED], *more)

    def to_json(self) -> dict[str, Any]:
        """What `decode --json` prints for a cabinet, but for the meaning of the signature."""
        members = [content.to_json() for content in self.members]
        return self.cabinet.to_json() | {"members": members, "problems": list(self.problems)}


def _faults(directory: Directory) -> Iterator[str]:
    for folder in directory.folders:
        if folder.fault is not None:
            yield f"folder {folder.index}: {folder.fault}"
    odd = [member for member in directory.members if name_hazards(member.name)]
    for member in odd[:MAX_LISTED]:
        yield f"member {member.display!r} {', '.join(name_hazards(member.name))}"
    if len(odd) > MAX_LISTED:
        yield f"{len(odd) - MAX_LISTED} more members with misleading names"
