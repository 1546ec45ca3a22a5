from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded
from dissectors.firmware import find_roms, parse_rom, rom
from tests.dissectors.firmware.building import BASE, rom_image

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=20)


@given(
    st.lists(NAMES, max_size=5, unique=True),
    st.dictionaries(NAMES.map(lambda name: "f" + name), st.binary(max_size=100), max_size=5),
    st.integers(0, 64).map(lambda count: 4 * count),
)
def test_an_image_reads_as_it_was_built(modules: list[str], files: dict[str, bytes], before: int) -> None:
    data = bytes(before) + rom_image(modules, files)
    (found,) = find_roms(data)
    assert (found.offset, found.base, found.cpu, found.problems) == (before, BASE, "Thumb", ())
    assert [module.name for module in found.modules] == modules
    assert [file.name for file in found.files] == list(files)
    for file in found.files:
        assert file.offset is not None
        assert file.stored is not None
        assert data[file.offset : file.offset + file.stored] == files[file.name]


def test_sizes_are_the_documented_ones() -> None:
    assert (rom.ROMHDR.sizeof(), rom.TOC_ENTRY.sizeof(), rom.FILES_ENTRY.sizeof()) == (84, 32, 28)


def test_it_is_shown_in_plain_values() -> None:
    data = rom_image(("nk.exe",), {"initobj.dat": b"x" * 10}, stored={"initobj.dat": 7})
    shown = parse_rom(data).to_json()
    assert shown["base"] == "0x8c000000"
    assert shown["modules"][0]["modified"].startswith("2009-04-11T")
    (file,) = shown["files"]
    assert (file["size"], file["stored"], file["compressed"]) == (10, 7, True)


def test_tables_that_break_off_are_named() -> None:
    found = parse_rom(rom_image(("a.exe", "b.dll"), {"c": b""})[:-40])
    assert [module.name for module in found.modules] == ["a.exe"]
    assert found.problems == ("only 1 of 2 module entries are there", "only 0 of 1 file entries are there")


def test_a_file_whose_bytes_are_elsewhere_has_no_offset() -> None:
    found = parse_rom(rom_image((), {"c": b"abc"}, stored={"c": 1 << 30}))
    assert found.files[0].offset is None


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "marker"),
        (rom_image(base=0x1000_0000), "address of the kernel"),
        (rom_image()[:100], "ROMHDR inside"),
        (rom_image(physfirst=0x9000_0000, physlast=0x8000_0000), "ends after its start"),
    ],
)
def test_what_is_no_image_is_refused(data: bytes, expected: str) -> None:
    with pytest.raises(DissectError, match=expected):
        parse_rom(data)
    assert find_roms(data) == ()


def test_counts_are_limited() -> None:
    with pytest.raises(LimitExceeded):
        parse_rom(rom_image(nummods=rom.MAX_MODULES + 1))


def test_a_file_of_markers_is_done_with_soon() -> None:
    assert find_roms(b"ECEC" * 100_000) == ()


def test_several_regions_are_all_found() -> None:
    data = rom_image(("nk.exe",)) + rom_image(("shell.exe",), base=0x8D00_0000)
    assert [found.modules[0].name for found in find_roms(data)] == ["nk.exe", "shell.exe"]
