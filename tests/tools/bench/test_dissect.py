from __future__ import annotations

import json
import sys

import pytest

from dissectors.cabinet import Cabinet, accelerate
from tests.conftest import require_tool
from tools.bench.cabinets import lzx_folders, payload
from tools.bench.dissect import show
from tools.bench.processes import measure
from tools.cli import main
from tools.errors import UnusableInput


def test_every_program_is_measured_on_every_cabinet(capsys: pytest.CaptureFixture[str]) -> None:
    require_tool("cabextract")
    assert main(["bench", "dissect", "--size", "2", "--rounds", "1", "--json"]) == 0
    results = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    programs = {(result["cabinet"], result["program"]) for result in results}
    for program in ("upshim decode", "upshim, library", "cabextract"):
        assert {("stored", program), ("mszip", program), ("lzx", program)} <= programs
    assert (("lzx", "upshim, library without libmspack") in programs) == accelerate.available()
    for result in results:
        assert result["peak"] > 0
        assert result["ratio"] == result["ratio_wall"] == 1 or result["program"] != "cabextract"
    show(results)  # to people
    said = capsys.readouterr().out
    assert "mszip" in said
    assert "x net" in said


def test_a_program_that_fails_is_not_measured() -> None:
    with pytest.raises(UnusableInput, match="exit 1"):
        measure([require_tool("false")])


def test_the_lzx_material_is_sound() -> None:
    content = payload(100_000)
    cabinet = Cabinet.parse(Cabinet.build(lzx_folders(content)))
    assert cabinet.read(cabinet.members[0], native=False) == content


HOLDING = """
import subprocess, sys, time
held = b"x" * (50 << 20)
if sys.argv[1:]:
    subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
else:
    time.sleep(0.5)
"""


def test_the_memory_of_a_program_is_that_of_all_its_processes() -> None:
    alone, both = (measure([sys.executable, "-c", HOLDING, *words]).peak for words in ((), (HOLDING,)))
    assert 50 << 20 < alone < 100 << 20 < both < 200 << 20
