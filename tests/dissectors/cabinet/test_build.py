from __future__ import annotations

import datetime as dt
import hashlib
import io
import json
import mmap
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dissectors import DissectError, LimitExceeded, Unsupported
from dissectors.cabinet import Attributes, Cabinet, Compression, Link, NewFolder, NewMember
from tests.conftest import require_tool
from tests.dissectors.cabinet.making import TEXT, cabinet_of

NOISE = b"".join(hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1024))
"""32 KiB that nothing compresses."""

names = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), min_size=1, max_size=60)
contents = st.binary(max_size=200) | st.integers(0, 80_000).map(lambda size: (TEXT * 2)[:size])
moments = st.datetimes(dt.datetime(1980, 1, 1), dt.datetime(2107, 12, 31)).map(
    lambda moment: moment.replace(microsecond=0, second=moment.second // 2 * 2)
)
members = st.builds(NewMember, names, contents, moments, st.sampled_from([Attributes(0x20), Attributes(0x27)]))
folders = st.builds(NewFolder, st.lists(members, max_size=4), st.sampled_from([Compression.STORED, Compression.MSZIP]))


@settings(deadline=None)
@given(
    st.lists(folders, min_size=1, max_size=4).filter(lambda all_: any(folder.members for folder in all_)),
    st.binary(max_size=30),
    st.integers(0, 40),
    st.integers(0, 9),
)
def test_what_is_built_reads_back(built: list[NewFolder], reserve: bytes, data_reserve: int, level: int) -> None:
    data = Cabinet.build(built, set_id=77, header_reserve=reserve, data_reserve=data_reserve, level=level)
    cabinet = Cabinet.parse(data)
    wanted = [(member, index) for index, folder in enumerate(built) for member in folder.members]
    assert cabinet.size == cabinet.header.cabinet_size == len(data)
    assert (cabinet.header.set_id, cabinet.header.reserve) == (77, reserve)
    for member, (new, folder) in zip(cabinet.members, wanted, strict=True):
        assert (member.name, member.folder, member.modified) == (new.name, folder, new.modified)
        assert member.attributes & ~Attributes.UTF8_NAME == new.attributes
        assert cabinet.read(member) == new.data
    assert all(each.fault is None for each in cabinet.verify().members)


def test_equal_input_makes_equal_bytes() -> None:
    assert cabinet_of({"a": TEXT}, Compression.MSZIP) == cabinet_of({"a": TEXT}, Compression.MSZIP)


def test_mszip_uses_the_history_of_the_block_before() -> None:
    repeated = cabinet_of({"a": NOISE + NOISE[1000:]}, Compression.MSZIP)
    blocks = Cabinet.parse(repeated).folders[0].parts[0].blocks
    assert blocks[0].packed_size > 32768
    assert blocks[1].packed_size < 1000


@pytest.mark.parametrize("compression", [Compression.STORED, Compression.MSZIP])
@pytest.mark.parametrize("tool", ["cabextract", "7z"])
def test_other_programs_read_it(tmp_path: Path, tool: str, compression: Compression) -> None:
    program = require_tool(tool)
    noise = bytes(value * value % 251 for value in range(70_001))
    data = Cabinet.build([NewFolder.of({"a.txt": TEXT, "b\\c.bin": noise}, compression), NewFolder.of({"ä": b"x"})])
    path = tmp_path / "made.cab"
    path.write_bytes(data)
    command = [program, *(["--test"] if tool == "cabextract" else ["t", "-tCab"]), str(path)]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stdout


def test_incompressible_blocks_stay_within_the_mszip_limit() -> None:
    for level in range(10):
        cabinet = Cabinet.parse(cabinet_of({"a": NOISE + NOISE[::-1]}, Compression.MSZIP, level=level))
        assert max(block.packed_size for block in cabinet.folders[0].parts[0].blocks) <= 32768 + 12


@pytest.mark.parametrize(
    ("new", "error"),
    [
        (NewFolder.of({"n" * 256: b""}), LimitExceeded),
        (NewFolder.of({"": b""}), LimitExceeded),
        (NewFolder.of({"a\0b": b""}), LimitExceeded),
        (NewFolder([NewMember("a", b"", dt.datetime(1979, 12, 31))]), LimitExceeded),
        (NewFolder.of({"a": b"x"}, Compression.LZX), Unsupported),
        (NewFolder([NewMember("a", b"x")], frames=[(b"", 1)]), LimitExceeded),
    ],
)
def test_what_the_format_cannot_hold_is_refused(new: NewFolder, error: type[DissectError]) -> None:
    with pytest.raises(error):
        Cabinet.build([new])


def test_folder_reserves_of_different_length_are_refused() -> None:
    with pytest.raises(DissectError):
        Cabinet.build([NewFolder([], reserve=b"a"), NewFolder([])])


def test_a_link_that_is_too_long_is_refused() -> None:
    with pytest.raises(DissectError):
        cabinet_of({"a": b""}, previous=Link("n" * 256, ""))


@pytest.fixture(params=["bytes", "bytearray", "memoryview", "mmap", "file", "memory file"])
def handed_over(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    data = cabinet_of({"a": TEXT}, Compression.MSZIP)
    path = tmp_path / "a.cab"
    path.write_bytes(data)
    with path.open("rb") as file:
        match request.param:
            case "mmap":
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                    yield mapped
            case "file":
                yield file
            case "memory file":
                yield io.BytesIO(data)
            case kind:
                yield {"bytes": bytes, "bytearray": bytearray, "memoryview": memoryview}[kind](data)


def test_any_kind_of_input(handed_over: Any) -> None:
    cabinet = Cabinet.parse(handed_over)
    assert cabinet.read(cabinet.members[0]) == TEXT


def test_json_is_plain_and_complete() -> None:
    cabinet = Cabinet.parse(cabinet_of({"a.txt": b"hello", "..\\b": b""}, Compression.MSZIP))
    said = json.loads(json.dumps(cabinet.verify().to_json()))
    assert said["kind"] == "cab"
    assert said["folders"][0] | {"offset": 0, "packed_size": 0} == {
        "compression": "mszip",
        "window": None,
        "offset": 0,
        "blocks": 1,
        "size": 5,
        "packed_size": 0,
        "reserve": None,
    }
    assert said["members"][0] == {
        "name": "a.txt",
        "size": 5,
        "folder": 0,
        "offset": 0,
        "date": "1980-01-01T00:00:00",
        "attributes": ["archive"],
        "sha1": "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d",
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
    }
    assert said["problems"] == ["member '..\\\\b' climbs with '..'"]
    assert said["signature"] is None
