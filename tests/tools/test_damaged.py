"""Damaged files of every kind through the command itself: what can be read, the problem named, or one line, exit 2."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from captures.targets import TARGETS
from tests.bodies import REPORT_ZERO
from tests.conftest import CORPUS, ROOT
from tools.cli import main

LARGEST = 60_000  # bytes of a file that are used
KINDS = tuple(TARGETS)


def corpus_files() -> list[Path]:
    folders = (CORPUS / name for name in ("pcap", "dhcp", "malformed", "flows", "har"))
    return sorted(path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file())


def damage(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, set to extremes, taken out, put in, moved about or cut off."""
    out = bytearray(data[:LARGEST])
    for _ in range(chance.choice((1, 3, 10, 40))):
        at = chance.randrange(len(out) or 1)
        match chance.randrange(6):
            case 0 | 1:
                out[at : at + 1] = chance.randbytes(1)
            case 2:
                out[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\x80"))
            case 3:
                del out[at : at + chance.randrange(1, 200)]
            case 4:
                out[at:at] = chance.randbytes(chance.randrange(1, 50))
            case 5:
                start = chance.randrange(len(out) or 1)
                out[at:at] = out[start : start + chance.randrange(1, 500)]
    if chance.random() < 0.3:
        del out[chance.randrange(len(out) or 1) :]
    return bytes(out)


def verbs(file: Path, folder: Path) -> list[list[str]]:
    rules = folder / "rules.toml"
    rules.write_text(REPORT_ZERO)
    return [
        ["exchanges", str(file)],
        ["exchanges", "--json", str(file)],
        *(["convert", str(file), str(folder / "out"), "--to", kind] for kind in KINDS),
        ["replay", str(file), "--rules", str(rules)],
        ["replay", str(file), "--rules", str(rules), "--json"],
    ]


def check(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = main(words)
    out, err = capsys.readouterr()
    assert code in {0, 1, 2}
    assert err.count("\n") == (code == 2), (words, err)
    if "--json" in words:
        for line in out.splitlines():
            json.loads(line)
    if words[0] == "convert":
        target = Path(words[2])
        assert target.exists() <= (code != 2)
        if target.exists():
            assert main(["exchanges", str(target)]) in {0, 1}
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        capsys.readouterr()


def samples(folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    """A sample capture in every format, so that there is something to damage without the corpus."""
    source = ROOT / "captures" / "samples" / "interim.pcapng"
    for kind in KINDS:
        assert main(["convert", str(source), str(folder / kind), "--to", kind]) == 0
        yield folder / kind
    zipped = folder / "zipped"
    zipped.write_bytes(gzip.compress(source.read_bytes()))
    yield zipped
    capsys.readouterr()


@pytest.mark.parametrize("seed", range(2))
def test_every_verb_over_every_format(tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int) -> None:
    chance = random.Random(seed)
    for path in list(samples(tmp_path, capsys)):
        whole = path / "store.sqlite" if path.is_dir() else path
        kept = whole.read_bytes()
        for words in verbs(path, tmp_path):
            whole.write_bytes(damage(kept, chance))
            for log in path.glob("store.sqlite-*"):
                log.unlink()
            check(words, capsys)


@pytest.mark.parametrize("seed", range(2))
def test_the_corpus_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str], corpus: Path, seed: int) -> None:
    assert corpus.is_dir()
    chance = random.Random(100 + seed)
    file = tmp_path / "in"
    for path in corpus_files():
        data = path.read_bytes()
        if data.startswith(b"\x1f\x8b") and chance.random() < 0.8:
            data = gzip.decompress(data)
        file.write_bytes(damage(data, chance))
        check(chance.choice(verbs(file, tmp_path)), capsys)


@pytest.mark.parametrize("content", [b"", b"\n", b"{", bytes(100), b"\x1f\x8b", b"1:", b"9999999999:", b"snoop\0\0\0"])
def test_what_is_next_to_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    file = tmp_path / "in"
    file.write_bytes(content)
    for words in verbs(file, tmp_path):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert f"{file}: " in err


def test_a_pipe_is_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "in")
    for words in verbs(tmp_path / "in", tmp_path):
        assert main(words) == 2
        out, err = capsys.readouterr()
        assert (out, err) == ("", f"upshim {words[0]}: {tmp_path / 'in'}: expected a file, found a pipe\n")


def test_names_of_files_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / os.fsdecode(b"od\xffd")
    shutil.copy(ROOT / "captures" / "samples" / "stuck.pcapng", file)
    for words in verbs(file, tmp_path):
        out = io.TextIOWrapper(io.BytesIO(), "ascii")
        monkeypatch.setattr(sys, "stdout", out)
        assert main(words) == 0
        out.flush()
        if words[0] == "convert":
            shutil.rmtree(words[2]) if Path(words[2]).is_dir() else Path(words[2]).unlink()
