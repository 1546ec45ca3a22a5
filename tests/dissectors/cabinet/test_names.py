from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors.cabinet import display_name, name_hazards, safe_member_name, safe_member_names
from dissectors.cabinet.names import MAX_COMPONENT, decode_name

nasty = st.text(
    st.sampled_from("aA.\\/: %~\x00\x1b\u202e\ufffdßé") | st.characters(exclude_categories=[]), max_size=40
) | st.lists(st.sampled_from(["..", ".", "CON", "nul.txt", "C:", "a", "", "a" * 300, "~"]), max_size=50).map("/".join)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("plain.txt", "plain.txt"),
        ("dir\\sub/plain.txt", "dir/sub/plain.txt"),
        ("/etc/passwd", "etc/passwd"),
        ("\\\\server\\share\\x", "server/share/x"),
        ("..\\..\\x", "%2E%2E/%2E%2E/x"),
        ("a/./b", "a/%2E/b"),
        ("C:\\x", "C%3A/x"),
        ("a:stream", "a%3Astream"),
        ("con", "%63on"),
        ("Lpt1.txt", "%4Cpt1.txt"),
        ("console", "console"),
        ("end. ", "end%2E%20"),
        ("100%", "100%25"),
        ("a\x1b[2J", "a%1B[2J"),
        ("gp\u202ecod.exe", "gp%E2%80%AEcod.exe"),
        ("///", "%"),
    ],
)
def test_examples(name: str, path: str) -> None:
    assert safe_member_name(name) == path


@given(nasty)
def test_a_path_never_leaves_its_directory(name: str) -> None:
    path = safe_member_name(name)
    for pure in (PurePosixPath(path), PureWindowsPath(path)):
        assert pure.parts
        assert not pure.is_absolute()
        assert not pure.drive
        assert not pure.root
        assert ".." not in pure.parts
    assert path == display_name(path)
    assert not any(character in path for character in '\\:<>|?*"\0')
    assert all(0 < len(part.encode()) <= MAX_COMPONENT for part in path.split("/"))
    assert not any(part[-1] in ". " for part in path.split("/"))
    assert name_hazards(path) in {(), ("is not valid UTF-8",)}


@given(st.lists(nasty, max_size=12))
def test_no_two_members_share_a_path(names: list[str]) -> None:
    paths = list(safe_member_names(names))
    folded = [path.casefold() for path in paths]
    assert len(paths) == len(names)
    assert len(set(folded)) == len(folded)
    for one in folded:
        assert not any(other.startswith(one + "/") for other in folded)


def test_a_file_that_is_also_a_directory(tmp_path: Path) -> None:
    paths = list(safe_member_names(["a", "A", "a\\b", "d\\e", "d"]))
    assert paths == ["a", "%~1~A", "%~2~a%2Fb", "d/e", "%~4~d"]
    for path in paths:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"")


@pytest.mark.parametrize(
    ("name", "hazards"),
    [
        ("dir\\file.txt", ()),
        ("..\\x", ("climbs with '..'",)),
        ("a/../b", ("climbs with '..'",)),
        ("a..b", ()),
        ("/x", ("starts with a separator",)),
        ("c:x", ("starts with a drive letter",)),
        ("x:y", ("starts with a drive letter",)),
        ("xx:y", ("contains ':'",)),
        ("dir\\AUX.h", ("is a DOS device name",)),
        ("a\nb", ("contains control or invisible characters",)),
        ("a\u202eb", ("contains control or invisible characters",)),
        ("a\ufffd", ("is not valid UTF-8",)),
    ],
)
def test_hazards(name: str, hazards: tuple[str, ...]) -> None:
    assert name_hazards(name) == hazards


def test_display_obeys_nothing() -> None:
    assert display_name("a\x1b[31m\u202eü\n") == "a\\x1b[31m\\u202eü\\n"


@given(st.binary(min_size=1, max_size=255))
def test_any_bytes_are_a_name(raw: bytes) -> None:
    assert decode_name(raw, 0).encode("latin-1") == raw
    assert decode_name(raw, 0x80) == raw.decode("utf-8", "replace")
