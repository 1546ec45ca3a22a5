"""A file decoded, whatever it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dissectors.cabinet import Cabinet
from dissectors.errors import DissectError
from dissectors.file_digests import FileDigests
from dissectors.source import as_source
from tools.decode.cabinets import MAGIC, decode_cabinet, open_cabinets
from tools.decode.inputs import Content
from tools.decode.kinds import MAX_TEXT, READERS
from tools.decode.settings import Decoded, Settings

if TYPE_CHECKING:
    from dissectors.certificates import Catalog

SHOWN_HEAD = 32
_OWN = ("size", "sha1", "sha256")  # of what is in a file, where it has them
# What other verbs read.
_HINTS = (
    ((b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x0a\x0d\x0d\x0a", b"snoop\0\0\0"), "a packet capture"),
    ((b"SQLite format 3\0",), "a SQLite file, perhaps a recording"),
)


def decode_file(content: Content, settings: Settings, depth: int = 0, below: str = "") -> Decoded:
    """Say what a file is and what is in it; what is wrong is in the record's `problems`."""
    try:
        found = _cabinet(content, settings, depth, below)
    except DissectError as error:
        found = Decoded({"kind": "cab", "problems": [str(error)]})
    if found is None:
        found = Decoded(_program(content, _other(content, settings)))
    found.record = file_record(content, found.record)
    found.record["problems"] = list(found.record.get("problems", []))
    if found.record["kind"] == "firmware" and settings.extract is not None and not depth:
        from tools.decode.firmware import extract_firmware

        extract_firmware(content, found.record, settings, below)
    found.files.insert(0, (content.name, FileDigests.of(content.file, *content.digests)))
    if found.record["kind"] == "ctl" and (catalog := _catalog(content)) is not None:
        found.catalogs.insert(0, (content.name, catalog))
    return found


def file_record(content: Content, record: dict[str, Any]) -> dict[str, Any]:
    """A record with name, size and digests of the file that it is about.

    What is in a file has a size and digests of its own: a certificate's (in PEM, other than the file's) are `der_size`,
    `der_sha1` and `der_sha256`, a cabinet's size is `cabinet_size`.
    """
    sha1, sha256 = content.digests
    about = {"kind": record["kind"], "file": content.name, "size": content.size, "sha1": sha1, "sha256": sha256}
    prefix = {"cab": "cabinet_", "firmware": ""}.get(record["kind"], "der_")
    return about | {(prefix if name in _OWN else "") + name: value for name, value in record.items()}


def _cabinet(content: Content, settings: Settings, depth: int, below: str) -> Decoded | None:
    if depth and not content.head.startswith((MAGIC, b"MZ")):
        return None
    cabinets = open_cabinets(content, settings)
    if not cabinets:
        return None
    return decode_cabinets(cabinets, content, settings, depth, below)


def decode_cabinets(
    cabinets: list[Cabinet], content: Content, settings: Settings, depth: int = 0, below: str = ""
) -> Decoded:
    """The record of the first cabinet; those that follow it in the same file are its `more`."""
    whole, *more = [
        decode_cabinet(cabinet, content.name, settings, depth, decode_file, _folder(below, number))
        for number, cabinet in enumerate(cabinets)
    ]
    whole.record["more"] = [other.record for other in more]
    for other in more:
        whole.files += other.files
        whole.catalogs += other.catalogs
        whole.record["problems"] += other.record["problems"]
    if cabinets[0].offset:
        whole.record["container"] = container = _program(content, _other(content, settings))
        if "signature" in container:
            whole.record["problems"] += (f"the program around it: {problem}" for problem in container["problems"])
        # Executables and images carry cabinets; any other beginning is not a cabinet's.
        if all(part["part"] == "cab" for part in container.get("parts", ())):
            whole.record["problems"].append(f"the cabinet does not begin the file but stands at {cabinets[0].offset}")
    return whole


def _program(content: Content, record: dict[str, Any]) -> dict[str, Any]:
    """The record of a program with its signature."""
    if not content.head.startswith(b"MZ") or not any(part["part"] == "pe" for part in record.get("parts", ())):
        return record
    from tools.decode.pki import program_signature

    signature, wrong = program_signature(as_source(content.file))
    return record | {"signature": signature, "problems": [*record["problems"], *wrong]}


def _folder(below: str, number: int) -> str:
    """Where the members of the second and further cabinets of one file go."""
    return below if not number else f"{below or 'cabinet'}-{number + 1}"


def _other(content: Content, settings: Settings) -> dict[str, Any]:
    failure = None
    for reader in READERS:
        try:
            record = reader(content, settings)
        except DissectError as error:
            failure = failure or f"{reader.__name__.removeprefix('read_').replace('_', ' ')}: {error}"
            continue
        if record is not None:
            return record
    return _unknown(content, failure)


def _unknown(content: Content, failure: str | None) -> dict[str, Any]:
    """What can be said of any file."""
    hint = next((words for magics, words in _HINTS if content.head.startswith(magics)), None)
    problems = [failure] if failure else []
    if hint:
        problems.append(f"this is {hint}: see `upshim exchanges`")
    return {
        "kind": "unknown",
        "entropy": round(content.firmware.entropy, 3),
        "head": None if _may_be_key(content.head) else content.head[:SHOWN_HEAD].hex(),
        "problems": problems or ["nothing in this file is recognised"],
    }


def _may_be_key(head: bytes) -> bool:
    """Whether the head begins as a private key does, in base64 too: of a short one it would hold too much."""
    if head[:1] != b"0" and not head.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n").startswith(b"M"):
        return False
    from dissectors.certificates import may_be_key

    return may_be_key(head)


def _catalog(content: Content) -> Catalog | None:
    from dissectors.certificates import dissect

    catalog = dissect(content.whole(MAX_TEXT)).catalog
    return catalog if catalog is not None and catalog.is_catalog else None
