from __future__ import annotations

import contextlib
import json
import os
import random

import pytest

from dissectors import DissectError
from dissectors.firmware import BinImage, identify, looks_like_firmware
from dissectors.firmware.image import entropy
from tests.dissectors.certificates.test_fuzz import mutants
from tests.dissectors.firmware.building import BASE, control, pe_image, rom_image

ROM = rom_image(("nk.exe",), {"a.txt": b"text"})
BIN = BinImage.build(BASE, len(ROM), [(BASE, ROM[:100]), (BASE + 100, ROM[100:])], BASE)
CONTROL = control({1: (1, "x.exe")}, {1: (1,)}, {1: "%CE1%"})


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (ROM, ["rom"]),
        (BIN, ["b000ff", "rom"]),
        (pe_image(), ["pe"]),
        (CONTROL, ["msce"]),
        (b"MSCF" + bytes(60), ["cab"]),
    ],
)
def test_what_is_inside_is_told(data: bytes, kinds: list[str]) -> None:
    found = identify(data)
    assert [part.kind for part in found.parts] == kinds
    assert (found.leading, found.problems) == (0, ())
    assert looks_like_firmware(data) == (kinds != ["cab"])
    shown = json.loads(json.dumps(found.to_json()))
    assert shown["kind"] == "firmware"


@pytest.mark.parametrize(("inside", "kind"), [(ROM, "rom"), (BIN, "b000ff"), (b"MSCF" + bytes(60), "cab")])
def test_it_is_found_behind_whatever_comes_first(inside: bytes, kind: str) -> None:
    before = bytes(range(1, 253)) + b"head"
    found = identify(before + inside)
    assert (found.parts[0].kind, found.parts[0].offset, found.leading) == (kind, 256, 256)


def test_the_memory_of_a_bin_image_is_looked_into() -> None:
    _, inner = identify(BIN).parts
    shown = inner.to_json()
    assert (shown["part"], shown["unpacked"], shown["modules"][0]["name"]) == ("rom", True, "nk.exe")


def test_of_the_unknown_nothing_is_invented() -> None:
    data = random.Random(1).randbytes(5000)
    found = identify(data)
    assert not found.recognised
    assert found.leading == len(data)
    assert found.to_json()["parts"] == []
    assert found.to_json()["head"] == data[:64].hex()
    assert not looks_like_firmware(data)
    assert not identify(b"").recognised


def test_entropy_in_bits_per_byte() -> None:
    assert entropy(b"") == 0
    assert entropy(bytes(1 << 20)) == 0
    assert entropy(bytes(range(256)) * 100) == 8
    assert entropy(os.urandom(1 << 16)) > 7.9


@pytest.mark.parametrize(
    "seed", [ROM, BIN, CONTROL, pe_image(), pe_image(plus=True)], ids=["rom", "bin", "msce", "pe", "pe+"]
)
def test_mutants_raise_nothing(seed: bytes) -> None:
    for mutant in mutants(seed, random.Random(len(seed)), 150):
        json.dumps(identify(mutant).to_json())
        looks_like_firmware(mutant)
        with contextlib.suppress(DissectError):
            memory = BinImage.parse(mutant).memory()
            memory.read_at(max(memory.size - 4096, 0), 4096)
