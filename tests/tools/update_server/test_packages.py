from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dissectors.version import Version
from tools.update_server.packages import CX700, find_packages, install, make_synthetic, synthetic_image

V = Version.parse("1.0.522.103")


def test_a_synthetic_package_depends_on_its_version_alone(tmp_path: Path) -> None:
    first = make_synthetic(tmp_path / "a", V, 3_000_000)
    second = make_synthetic(tmp_path / "b", V, 3_000_000)
    other = make_synthetic(tmp_path / "b", Version.parse("1.0.522.101"), 3_000_000)
    for name in ("CPE.nbt", "CPE.cat", "CPE.xml"):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()
        assert (first.folder / name).stat().st_mtime == (second.folder / name).stat().st_mtime
    assert (first.folder / "CPE.nbt").read_bytes() != (other.folder / "CPE.nbt").read_bytes()


def test_its_content_never_changes_between_releases() -> None:
    # Recordings and captures made with one release are compared by hash with those of the next.
    digest = hashlib.sha256(b"".join(synthetic_image(CX700, V, 1_500_000))).hexdigest()
    assert digest == "e9e0f44b71f84deae1516068d072fb93e33023c82627af08e5c73e184d4bf647"


def test_its_catalog_names_the_hash_of_the_image_and_all_say_synthetic(tmp_path: Path) -> None:
    package = make_synthetic(tmp_path, V, 5000)
    image = (package.folder / "CPE.nbt").read_bytes()
    assert len(image) == 5000
    assert hashlib.sha256(image).hexdigest().encode() in (package.folder / "CPE.cat").read_bytes()
    assert all(b"synthetic" in path.read_bytes() for path in package.folder.iterdir())


def test_it_is_written_once(tmp_path: Path) -> None:
    image = make_synthetic(tmp_path, V, 5000).folder / "CPE.nbt"
    inode = image.stat().st_mtime_ns
    image.write_bytes(b"\0" * 5000)
    make_synthetic(tmp_path, V, 5000)
    assert image.read_bytes() == b"\0" * 5000
    make_synthetic(tmp_path, V, 5001)
    assert image.stat().st_size == 5001
    assert image.stat().st_mtime_ns == inode


@pytest.mark.parametrize("size", [0, 10, 1 << 20])
def test_it_has_the_size_asked_for(size: int) -> None:
    assert sum(map(len, synthetic_image(CX700, V, size))) == size


def test_packages_are_found_by_the_layout(tmp_path: Path) -> None:
    made = make_synthetic(tmp_path, V, 10)
    other = install(tmp_path, CX700._replace(brand="LG-Nortel", model="IP8540"), V, {"a.NBT": [b"x"], "b.cat": [b"y"]})
    (tmp_path / "Logs" / "Server" / "Audit" / "imageUpdates" / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "readme.txt").write_text("x")
    assert find_packages(tmp_path) == [other, made]
    assert other.images() == [other.folder / "a.NBT"]
    assert other.catalog_of(other.images()[0]) == other.folder / "b.cat"


@pytest.mark.parametrize("part", ["", "..", "a/b", "a\\b", "C:", "nul\0"])
def test_nothing_is_written_outside_the_tree(tmp_path: Path, part: str) -> None:
    with pytest.raises(ValueError, match="not the name of a folder"):
        install(tmp_path, CX700._replace(model=part), V, {"x": [b""]})
    with pytest.raises(ValueError, match="not the name of a file"):
        install(tmp_path, CX700, V, {"../x": [b""]})
    assert list(tmp_path.iterdir()) == []
