"""A folder of update files: which devices it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tools.decode.inputs import files_below
from tools.decode.settings import Decoded

if TYPE_CHECKING:
    from dissectors.firmware import UpdatePackage

MAX_DESCRIPTION = 1 << 20
_TELLING = {".nbt", ".cat"}  # what makes files without folders a package


def packages_among(paths: Sequence[str], descriptions: Mapping[str, bytes]) -> list[UpdatePackage]:
    """The packages of the update service among these paths; see `dissectors.firmware.find_packages`."""
    if not any("/" in path or Path(path).suffix.lower() in _TELLING for path in paths):
        return []
    from dissectors.firmware import find_packages

    return [package for package in find_packages(paths, descriptions) if _is_for_devices(package)]


def _is_for_devices(package: UpdatePackage) -> bool:
    """Other updates have catalogs and versions too."""
    return bool({"device_type", "vendor", "model"} & package.key.keys()) or "image" in {
        one.role for one in package.files
    }


def folder_packages(folder: str) -> Iterator[Decoded]:
    """The update packages below a folder, which may be given at any place of the documented layout."""
    root = Path(folder)
    around = root.resolve()
    paths, described = [], {}
    for path in files_below(root):
        # The layout may begin above the folder that was named.
        full = (around / path.relative_to(root)).as_posix()
        paths.append(full)
        if path.suffix.lower() == ".xml" and path.stat().st_size <= MAX_DESCRIPTION:
            try:
                described[full] = path.read_bytes()
            except OSError:
                continue
    for package in packages_among(paths, described):
        record = package.to_json()
        record["folder"] = (root / Path(package.folder).relative_to(around)).as_posix()
        record["files"] = [file | {"path": Path(file["path"]).name} for file in record["files"]]
        yield Decoded({"kind": record["kind"], "file": folder, **record})
