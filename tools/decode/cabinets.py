"""Cabinets: one pass that hashes, extracts and keeps what is worth a look inside; then signature and catalogs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dissectors.cabinet import Cabinet, Contents, Member, MemberContent, Piece, safe_member_names
from dissectors.errors import DissectError, LimitExceeded
from dissectors.file_digests import FileDigests
from tools.decode.extraction import Growing, Target
from tools.decode.inputs import Content
from tools.decode.packages import MAX_DESCRIPTION, packages_among
from tools.decode.settings import MAX_MEMBER, Decoded, Settings

if TYPE_CHECKING:
    from dissectors.certificates import Catalog

MAGIC = b"MSCF"
TELLING = {"cab", "certificate", "certificates", "ctl", "firmware", "pkcs7"}
"""Kinds of members whose problems are the cabinet's."""
Inside = Callable[[Content, Settings, int], Decoded]


def open_cabinets(content: Content, settings: Settings) -> list[Cabinet]:
    """The cabinet that the file is, or those inside it; none where it is something else.

    Raises `DissectError` where the file begins as a cabinet and is none.
    """
    if content.head.startswith(MAGIC):
        return [Cabinet.parse(content.file, settings.budget)]
    found: list[Cabinet] = []
    # A file full of almost-cabinets is not worth more: those found before are told.
    with suppress(LimitExceeded):
        found.extend(Cabinet.search(content.file, settings.budget))
    return found


def decode_cabinet(cabinet: Cabinet, name: str, settings: Settings, depth: int, inside: Inside, below: str) -> Decoded:
    """The record of a cabinet; `inside` decodes its members, `below` is the folder for them in that of `--extract`."""
    reading = _Reading(cabinet, settings, depth, below, inside)
    contents = reading.run()
    record = contents.to_json()
    problems = [*record["problems"], *reading.problems]
    if cabinet.signature is not None:
        from tools.decode.pki import signature_record

        record["signature"], wrong = signature_record(cabinet.signature)
        problems += wrong
    decoded = Decoded(record)
    for position, (one, shown) in enumerate(zip(contents.members, record["members"], strict=True)):
        label = f"{name}:{one.member.display}"
        if position in reading.paths:
            shown["extracted"] = reading.paths[position]
        if one.digests is None:
            continue
        found = reading.found.get(position)
        decoded.files.append((label, found.files[0][1] if found else FileDigests.from_hex(*one.digests)))
        if found is not None:
            shown["content"] = found.record
            decoded.catalogs += ((label, catalog) for _, catalog in found.catalogs[:1])
            decoded.files += ((f"{name}:{label}", digests) for label, digests in found.files[1:])
            if found.record["kind"] in TELLING:
                problems += (f"{one.member.display}: {problem}" for problem in found.record["problems"])
    record["catalogs"] = [catalog_record(label, catalog, decoded.files) for label, catalog in decoded.catalogs]
    names = [one.member.name.replace("\\", "/") for one in contents.members]
    record["packages"] = [package.to_json() for package in packages_among(names, reading.descriptions)]
    record["problems"] = problems
    return decoded


def catalog_record(name: str, catalog: Catalog, files: Iterable[tuple[str, FileDigests]]) -> dict[str, Any]:
    """What a catalog says of files: which it lists, and how many of its entries are none of them."""
    from dissectors.certificates import prove, unmatched

    known = [(label, digests) for label, digests in files if label != name]
    lists = [proof.to_json() for label, digests in known for proof in prove(label, digests, [(name, catalog)])]
    return {
        "catalog": name,
        "entries": len(catalog.members),
        "lists": [_without(proof, "catalog", "listed") for proof in lists if proof["listed"]],
        "unmatched": unmatched(catalog, (digests for _label, digests in known)),
    }


class _Reading:
    """One forward pass over the members: each small enough is looked into as soon as it is whole, and forgotten."""

    def __init__(self, cabinet: Cabinet, settings: Settings, depth: int, below: str, inside: Inside) -> None:
        self._cabinet = cabinet
        self._settings = settings
        self._depth = depth
        self._below = below
        self._inside = inside
        self._position = {id(member): position for position, member in enumerate(cabinet.members)}
        self._buffers: dict[int, bytearray] = {}
        self._growing: dict[int, Growing] = {}
        self._names: Sequence[str] = ()
        self._target: Target | None = None
        self.found: dict[int, Decoded] = {}
        self.descriptions: dict[str, bytes] = {}
        self.paths: dict[int, str] = {}
        self.problems: list[str] = []
        # Members inside members are told of, not written.
        if settings.extract is not None and depth == 0:
            self._target = Target(settings.extract, below)
            self._names = list(safe_member_names(member.name for member in cabinet.members))

    def run(self) -> Contents:
        """Decode everything; what could not be had is said per member."""
        ended: dict[int, Piece] = {}
        stop: DissectError | None = None
        try:
            for piece in self._cabinet.pieces(None, self._settings.budget):
                position = self._position[id(piece.member)]
                self._take(position, piece)
                self._settings.progress(len(piece.data))
                if piece.digests is not None or piece.fault is not None:
                    ended[position] = piece._replace(data=memoryview(b""))
        except LimitExceeded as error:
            stop = error
        finally:
            for growing in self._growing.values():
                growing.abandon()
            if self._target is not None:
                self._target.close()
        members = []
        for position, member in enumerate(self._cabinet.members):
            last = ended.get(position)
            members.append(MemberContent(member, last and last.digests, last.fault if last else stop))
        return Contents(self._cabinet, tuple(members))

    def _take(self, position: int, piece: Piece) -> None:
        if self._depth < self._settings.depth:
            self._keep(position, piece)
        if self._target is not None:
            self._write(self._target, position, piece)

    def _keep(self, position: int, piece: Piece) -> None:
        """Members small enough are kept whole, as long as the budget lasts."""
        member = piece.member
        if position not in self._buffers:
            if not 0 < member.size <= min(MAX_MEMBER, self._settings.nested) or piece.fault is not None:
                return
            self._settings.nested -= member.size
            self._buffers[position] = bytearray()
        self._buffers[position] += piece.data
        if piece.digests is not None:
            self._look(position, Content.of(member.name, bytes(self._buffers.pop(position)), piece.digests))
        elif piece.fault is not None:
            del self._buffers[position]

    def _look(self, position: int, content: Content) -> None:
        self.found[position] = self._inside(content, self._settings, self._depth + 1)
        if content.name.lower().endswith(".xml") and content.size <= MAX_DESCRIPTION:
            self.descriptions[content.name.replace("\\", "/")] = content.whole(MAX_DESCRIPTION)

    def _write(self, target: Target, position: int, piece: Piece) -> None:
        try:
            if position not in self._growing:
                if piece.fault is not None:
                    return
                self._growing[position] = target.create(self._names[position])
            growing = self._growing[position]
            growing.write(piece.data)
            if piece.digests is None and piece.fault is None:
                return
            del self._growing[position]
            if piece.fault is not None:
                growing.abandon()
                return
            growing.finish()
        except OSError as error:
            if (broken := self._growing.pop(position, None)) is not None:
                broken.abandon()
            self._refused(piece.member, error)
        else:
            path = self._names[position]
            self.paths[position] = f"{self._below}/{path}" if self._below else path

    def _refused(self, member: Member, error: OSError) -> None:
        text = f"{member.display}: not extracted: {error.strerror}"
        if text not in self.problems[-1:]:
            self.problems.append(text)


def _without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}
