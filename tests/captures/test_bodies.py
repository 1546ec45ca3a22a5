from __future__ import annotations

from pathlib import Path

import pytest

from captures.bodies import BodyFiles


@pytest.mark.parametrize("name", ["", ".", "..", "../secret", "AA", "aa\n", "a" * 64 + "/"])
def test_what_is_no_hash_names_no_body(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"of somebody else")
    files = BodyFiles(tmp_path / "bodies")
    files.folder.mkdir()
    for each in (name, str(tmp_path / "secret")):
        assert not files.has(each)
        with pytest.raises(FileNotFoundError):
            list(files.chunks(each))
    files.put("aa", b"here")
    assert files.has("aa")
    assert list(files.chunks("aa")) == [b"here"]
