from __future__ import annotations

import pytest

from dissectors import DissectError
from dissectors.firmware import Description, find_packages
from dissectors.version import Version

# protocol.md section 2.1, the published example.
FOLDER = "DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE"
SYNTHETIC = b"""<?xml version="1.0"?>
<Update synthetic="true" UpdateType="CPE"><DeviceType>UCPhone</DeviceType><Brand>Polycom</Brand>
<Model>CX700</Model><Revision>A</Revision><Locale>ENU</Locale><Version>1.0.522.101</Version></Update>"""


def test_a_folder_of_the_documented_layout_says_what_it_is_for() -> None:
    (package,) = find_packages([f"{FOLDER}/CPE.nbt", f"{FOLDER}/CPE.cat", f"{FOLDER}/notes.txt"])
    assert package.version == Version(1, 0, 522, 101)
    shown = package.to_json()
    assert shown["kind"] == "update-package"
    assert [shown[name] for name in ("device_type", "vendor", "model", "revision", "locale", "update_type")] == [
        *("UCPhone", "Polycom", "CX700", "A", "ENU", "CPE")
    ]
    assert [file["role"] for file in shown["files"]] == ["image", "catalog", "other"]
    assert set(shown["told_by"].values()) == {"path"}


def test_backslashes_of_cabinets_are_folders_too() -> None:
    (package,) = find_packages([(f"{FOLDER}/CPE.nbt").replace("/", "\\")])
    assert package.key["model"] == "CX700"


def test_a_flat_package_is_told_by_its_description() -> None:
    (package,) = find_packages(["cpe.nbt", "cpe.xml"], {"cpe.xml": SYNTHETIC})
    assert package.key == {
        "device_type": "UCPhone",
        "vendor": "Polycom",
        "model": "CX700",
        "revision": "A",
        "locale": "ENU",
        "version": "1.0.522.101",
        "update_type": "CPE",
    }
    assert set(package.told_by.values()) == {"description"}
    assert package.problems == ()


def test_path_and_description_that_differ_are_told() -> None:
    wrong = SYNTHETIC.replace(b"CX700", b"CX600").replace(b"Polycom", b"POLYCOM")
    (package,) = find_packages([f"{FOLDER}/a.xml"], {f"{FOLDER}/a.xml": wrong})
    assert package.key["model"] == "CX700"
    assert package.problems == ("the folder says model CX700, the description CX600",)


def test_a_description_of_several_devices_names_them() -> None:
    two = b"<U><D><Model>CX700</Model></D><D><Model>IP8540</Model></D></U>"
    (package,) = find_packages(["a.cat", "a.xml"], {"a.xml": two})
    assert package.key == {}
    assert package.problems == ("the description names several: model CX700, IP8540",)


def test_a_broken_description_is_told_and_leaves_the_path() -> None:
    (package,) = find_packages([f"{FOLDER}/a.xml"], {f"{FOLDER}/a.xml": b"<Update>"})
    assert package.key["model"] == "CX700"
    assert package.problems[0].startswith(f"{FOLDER}/a.xml: at offset")


def test_other_folders_are_no_packages() -> None:
    assert find_packages(["readme.txt", "a/b/c.xml", "1.0.522.101/x"]) == ()
    (package,) = find_packages(["some/where/x.nbt"])
    assert package.key == {}


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", b"<a"])
def test_what_is_no_description_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        Description.parse(data)
