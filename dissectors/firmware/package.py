"""Update packages: which device a folder or a cabinet of update files is for.

Two things tell: the documented folder layout (protocol.md section 2.2), and the XML description beside the image, whose
schema is not public and which is therefore read by vocabulary. File types after protocol.md section 6.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from dissectors.errors import DissectError
from dissectors.version import Version

if TYPE_CHECKING:
    from dissectors.vocabulary import Vocabulary

MAX_VALUES = 64  # different values kept of one field
MAX_DEPTH = 32  # folders of a path that are looked at

ROLES = {".nbt": "image", ".cat": "catalog", ".xml": "description", ".cab": "cabinet"}
KEY = ("device_type", "vendor", "model", "revision", "locale", "version", "update_type")


@dataclass(frozen=True, slots=True)
class Description:
    """What an XML description says, field by field of the vocabulary: every different value, in its order."""

    values: Mapping[str, tuple[str, ...]]
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, data: bytes, vocabulary: Vocabulary | None = None) -> Description:
        """Read a description. Raises `DissectError` for what is no XML or has a document type declaration."""
        # Images of firmware have no descriptions: who reads those need not wait for all of the XML.
        from dissectors.update_check.findings import Findings  # noqa: PLC0415
        from dissectors.vocabulary import Vocabulary  # noqa: PLC0415
        from dissectors.xml_body import XmlBody  # noqa: PLC0415

        found = Findings.of(XmlBody.decode(data), vocabulary or Vocabulary.default())
        values: dict[str, dict[str, None]] = {}
        for one in found.single:
            kept = values.setdefault(one.kind, {})
            if one.field.value and len(kept) < MAX_VALUES:
                kept[one.field.value] = None
        return cls({kind: tuple(kept) for kind, kept in values.items() if kept}, tuple(found.problems))

    def only(self, kind: str) -> str | None:
        """The value of a field that has just one."""
        values = self.values.get(kind, ())
        return values[0] if len(values) == 1 else None


@dataclass(frozen=True, slots=True)
class PackageFile:
    """A file of a package; `role` is "image", "catalog", "description", "cabinet" or "other", after its extension."""

    path: str
    role: str

    def to_json(self) -> dict[str, Any]:
        """The file as plain JSON values."""
        return {"path": self.path, "role": self.role}


@dataclass(frozen=True, slots=True)
class UpdatePackage:
    """The update files of one folder, and what they are for as far as path and description tell.

    `key` holds what is known of `KEY`; `told_by` names the source of each: "path" or "description".
    """

    folder: str
    files: tuple[PackageFile, ...]
    key: Mapping[str, str] = field(default_factory=dict)
    told_by: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def version(self) -> Version | None:
        """The version, where it is known and has four parts."""
        try:
            return Version.parse(self.key.get("version", ""))
        except DissectError:
            return None

    def described(self, description: Description) -> UpdatePackage:
        """The package with what its description adds; where path and description differ, the path stays."""
        key, told_by, problems = dict(self.key), dict(self.told_by), [*self.problems, *description.problems]
        for name in KEY:
            value = description.only(name)
            if name not in key and value:
                key[name], told_by[name] = value, "description"
            elif value and value.casefold() != key[name].casefold():
                problems.append(f"the folder says {name} {key[name]}, the description {value}")
            elif name not in key and name in description.values:
                problems.append(f"the description names several: {name} {', '.join(description.values[name][:5])}")
        return replace(self, key=key, told_by=told_by, problems=tuple(problems))

    def to_json(self) -> dict[str, Any]:
        """The package as plain JSON values; what is not known is null."""
        return {
            "kind": "update-package",
            "folder": self.folder,
            **{name: self.key.get(name) for name in KEY},
            "told_by": dict(self.told_by),
            "files": [file.to_json() for file in self.files],
            "problems": list(self.problems),
        }


def find_packages(
    paths: Iterable[str], descriptions: Mapping[str, bytes] | None = None, vocabulary: Vocabulary | None = None
) -> tuple[UpdatePackage, ...]:
    """The packages among these paths (of a folder tree or of a cabinet, either separator), one for each folder.

    A folder is a package if its path fits the documented layout, or if it holds an image or a catalog. `descriptions`
    holds the bytes of XML files by path.
    """
    folders: dict[str, list[PackageFile]] = {}
    for path in paths:
        folder, _, name = path.replace("\\", "/").rpartition("/")
        extension = name[name.rfind(".") :].lower() if "." in name else ""
        folders.setdefault(folder, []).append(PackageFile(path, ROLES.get(extension, "other")))
    found = []
    for folder, files in folders.items():
        key = key_of_folder(folder)
        if not key and not {"image", "catalog"} & {file.role for file in files}:
            continue
        package = UpdatePackage(folder, tuple(files), key, dict.fromkeys(key, "path"))
        for file in files:
            data = (descriptions or {}).get(file.path)
            if data is None or file.role != "description":
                continue
            try:
                package = package.described(Description.parse(data, vocabulary))
            except DissectError as error:
                package = replace(package, problems=(*package.problems, f"{file.path}: {error}"))
        found.append(package)
    return tuple(found)


def key_of_folder(folder: str) -> dict[str, str]:
    """What a path says that ends `{DeviceType}/{Vendor}/{Model}/{Revision}/{Locale}/{Version}/{UpdateType}`."""
    parts = [part for part in folder.split("/") if part][-MAX_DEPTH:]
    if len(parts) < len(KEY):
        return {}
    tail = parts[-len(KEY) :]
    try:
        Version.parse(tail[KEY.index("version")])
    except DissectError:
        return {}
    return dict(zip(KEY, tail, strict=True))
