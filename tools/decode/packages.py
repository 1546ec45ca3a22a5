"""A folder of update files: which devices it is for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dissectors.firmware import UpdatePackage, find_packages
from tools.decode.inputs import files_below
from tools.decode.settings import Decoded

MAX_DESCRIPTION = 1 << 20


def is_for_devices(package: UpdatePackage) -> bool:
    """Whether this is a package of the update service: other updates have catalogs and versions too."""
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
    for package in find_packages(paths, described):
        if is_for_devices(package):
            record = package.to_json()
            record["folder"] = (root / Path(package.folder).relative_to(around)).as_posix()
            record["files"] = [file | {"path": Path(file["path"]).name} for file in record["files"]]
            yield Decoded({"kind": record["kind"], "file": folder, **record})
