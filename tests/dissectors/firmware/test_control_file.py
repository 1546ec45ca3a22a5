from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.firmware import ControlFile
from dissectors.firmware.control_file import DIRECTORY, HEADER, MAX_PATH, STRING
from tests.dissectors.firmware.building import control

TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=1, max_size=12)
FILES = {1: (1, "phone.exe"), 2: (2, "a.wav"), 3: (0, "loose")}


def test_it_says_what_is_installed_where() -> None:
    found = ControlFile.parse(control(FILES, {1: (1, 2), 2: (1,)}, {1: "%CE1%", 2: "Phone"}))
    assert (found.app_name, found.provider, found.architecture) == ("Phone", "Contoso", "StrongARM")
    assert found.unsupported == ("HPC", "JORDAN")
    assert [(file.number, file.path) for file in found.files] == [
        (1, "%CE1%\\Phone\\phone.exe"),
        (2, "%CE1%\\a.wav"),
        (3, "loose"),
    ]
    shown = found.to_json()
    assert (shown["min_version"], shown["max_version"]) == ("4.0.0", "5.99.3758096384")
    assert shown["files"][0] == {"member": "001", "path": "%CE1%\\Phone\\phone.exe"}
    assert found.problems == ()


@given(st.dictionaries(st.integers(1, 999), TEXT, max_size=6))
def test_every_file_reads_as_it_was_built(names: dict[int, str]) -> None:
    data = control({number: (1, name) for number, name in names.items()}, {1: (1,)}, {1: "%CE2%"})
    assert {file.number: file.path for file in ControlFile.parse(data).files} == {
        number: f"%CE2%\\{name}" for number, name in names.items()
    }


def test_the_published_examples_read_as_published() -> None:
    # cabextract's description of the format.
    assert STRING.parse(bytes.fromhex("04000900536f66747761726500")).text == b"Software\0"
    assert DIRECTORY.parse(bytes.fromhex("01000a0001000200030004000000")).length == 10
    assert HEADER.sizeof() == 100


def test_sections_that_break_off_are_named() -> None:
    whole = control(FILES, {1: (1, 2), 2: (1,)}, {1: "%CE1%", 2: "Phone"})
    found = ControlFile.parse(whole[:-3])
    assert len(found.files) == 2
    assert len(found.problems) == 2


@pytest.mark.parametrize("data", [b"", b"MSCE", b"MSCE" + bytes(95), b"MSCF" + bytes(96)])
def test_what_is_no_control_file_is_refused(data: bytes) -> None:
    with pytest.raises(DissectError):
        ControlFile.parse(data)


def test_strings_used_over_and_over_do_not_add_up() -> None:
    bomb = control(dict.fromkeys(range(1, 500), (1, "x")), {1: [1] * 30_000}, {1: "A" * 60_000}, files_count=499)
    found = ControlFile.parse(bomb)
    assert max(len(file.path) for file in found.files) <= MAX_PATH
