"""Update packages on disk, in the documented folder layout (protocol.md section 2.2).

`<root>/{DeviceType}/{Vendor}/{Model}/{Revision}/{Locale}/{Version}/{UpdateType}/` holds a software image (.nbt), its
security catalog (.cat) and a description (.xml). How packages get there does not matter: a copied tree, files out of a
cabinet given to `install`, or synthetic ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

from dissectors.errors import DissectError
from dissectors.version import Version
from tools.update_server.rules import DeviceKey

CX700 = DeviceKey("UCPhone", "Polycom", "CX700", "A", "ENU")

_BLOCK = 1 << 20
# Time stamps of synthetic files tell their version, so that equal packages are equal to the byte and to the second.
_SYNTHETIC_EPOCH = datetime(2008, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Package:
    """One folder of update files."""

    key: DeviceKey
    version: Version
    update_type: str
    folder: Path

    def images(self) -> list[Path]:
        """The software images, by name."""
        return sorted(path for path in self.folder.iterdir() if path.suffix.lower() == ".nbt" and path.is_file())

    def catalog_of(self, image: Path) -> Path | None:
        """The catalog that signs an image: the one of the same name, else the only one there."""
        catalogs = sorted(path for path in self.folder.iterdir() if path.suffix.lower() == ".cat")
        same = [path for path in catalogs if path.stem.lower() == image.stem.lower()]
        return same[0] if same else catalogs[0] if len(catalogs) == 1 else None


def package_folder(root: Path, key: DeviceKey, version: Version, update_type: str) -> Path:
    """Where a package lives. Raises `ValueError` where a part cannot be the name of one folder."""
    parts = (*key, str(version), update_type)
    for part in parts:
        if not part or part in (".", "..") or any(character in part for character in '/\\:\0*?"<>|'):
            raise ValueError(f"not the name of a folder: {part!r}")
    return root.joinpath(*parts)


def find_packages(root: Path) -> list[Package]:
    """Every package below `root`; folders that do not fit the layout are passed over. Raises `OSError`."""
    found = []
    for folder in _folders(root, 7):
        *key, version, update_type = folder.relative_to(root).parts
        try:
            found.append(Package(DeviceKey(*key), Version.parse(version), update_type, folder))
        except DissectError:
            continue
    return [package for package in found if package.images()]


def _folders(root: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            if depth == 1:
                yield entry
            else:
                yield from _folders(entry, depth - 1)


def install(
    root: Path,
    key: DeviceKey,
    version: Version,
    files: Mapping[str, Iterable[bytes]],
    *,
    update_type: str = "CPE",
    modified: datetime | None = None,
) -> Package:
    """Write the files of a package (name to chunks) into the tree. Raises `ValueError` for a bad name, `OSError`."""
    folder = package_folder(root, key, version, update_type)
    for name in files:
        if not name or Path(name).name != name or name in (".", ".."):
            raise ValueError(f"not the name of a file: {name!r}")
    folder.mkdir(parents=True, exist_ok=True)
    for name, chunks in files.items():
        path = folder / name
        with path.open("wb") as file:
            file.writelines(chunks)
        if modified is not None:
            os.utime(path, (modified.timestamp(), modified.timestamp()))
    return Package(key, version, update_type, folder)


def synthetic_image(key: DeviceKey, version: Version, size: int) -> Iterator[bytes]:
    """Pseudo-random bytes that depend on device and version alone, in blocks. They begin by saying what they are."""
    label = f"upshim synthetic firmware image for {key}, version {version}; it runs nowhere\n".encode()[:size]
    yield label
    left = size - len(label)
    block = 0
    while left > 0:
        data = hashlib.shake_256(f"{key} {version} {block}".encode()).digest(min(left, _BLOCK))
        yield data
        left -= len(data)
        block += 1


def make_synthetic(
    root: Path, version: Version, size: int, key: DeviceKey = CX700, update_type: str = "CPE"
) -> Package:
    """Write a synthetic package, unless it is there in this size. Raises `ValueError`, `OSError`."""
    there = Package(key, version, update_type, package_folder(root, key, version, update_type))
    image_name, catalog_name = f"{update_type}.nbt", f"{update_type}.cat"
    image = there.folder / image_name
    if (there.folder / catalog_name).is_file() and image.is_file() and image.stat().st_size == size:
        return there
    digest = hashlib.sha256()

    def image_blocks() -> Iterator[bytes]:
        for block in synthetic_image(key, version, size):
            digest.update(block)
            yield block

    def catalog() -> Iterator[bytes]:
        yield b"synthetic: made by upshim, no signature; a real security catalog is a PKCS#7 file\n"
        yield f"{image_name} sha256 {digest.hexdigest()}\n".encode()

    # In this order: the catalog knows the image's hash, and being last it tells a whole package from one cut short.
    files: dict[str, Iterable[bytes]] = {
        image_name: image_blocks(),
        f"{update_type}.xml": [_description(key, version, update_type).encode()],
        catalog_name: catalog(),
    }
    modified = _SYNTHETIC_EPOCH.replace(
        hour=version.minor % 24, minute=version.build % 60, second=version.qfe % 60, day=1 + version.major % 28
    )
    return install(root, key, version, files, update_type=update_type, modified=modified)


def _description(key: DeviceKey, version: Version, update_type: str) -> str:
    names = ("DeviceType", "Vendor", "Model", "Revision", "Locale", "UpdateType", "Version")
    values = (*key, update_type, str(version))
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n'
        "<!-- synthetic: made by upshim; the description inside a real package is not public -->\n"
        "<Update>\n"
        + "".join(f"  <{name}>{escape(value)}</{name}>\n" for name, value in zip(names, values, strict=True))
        + "</Update>\n"
    )
