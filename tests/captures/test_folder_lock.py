from __future__ import annotations

import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from captures.folder_lock import LOCK, WANTED, FolderLock


def test_who_comes_later_waits_for_room_and_who_stays_is_alone_again(tmp_path: Path) -> None:
    with closing(FolderLock(tmp_path)) as one:
        assert one.alone
        assert not one.wanted
        two = FolderLock(tmp_path)
        assert (two.alone, two.shared) == (False, False)
        two.look()
        assert not two.shared, "the one that is alone has not looked yet"
        assert one.wanted
        one.look()
        assert (one.alone, one.shared) == (False, True)
        two.look()
        assert (two.alone, two.shared) == (False, True)
        one.look()
        assert (one.alone, one.shared) == (False, True)
        two.close()
        one.look()
        assert (one.alone, one.shared) == (True, False)
        assert not one.wanted


def test_a_third_comes_in_at_once_where_there_are_two(tmp_path: Path) -> None:
    with closing(FolderLock(tmp_path)) as one, closing(FolderLock(tmp_path)) as two:
        one.look()
        two.look()
        with closing(FolderLock(tmp_path)) as three:
            assert three.shared


def test_a_process_that_inherits_the_lock_holds_it_to_its_end(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    heir = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE, pass_fds=[lock.descriptor]
    )
    lock.close()
    with closing(FolderLock(tmp_path)) as next_one:
        assert not next_one.alone
        assert not next_one.shared
        heir.communicate()
        next_one.look()
        assert next_one.alone
        assert not (tmp_path / WANTED).exists()


def test_nobody_else_may_open_it(tmp_path: Path) -> None:
    with closing(FolderLock(tmp_path)), closing(FolderLock(tmp_path)):
        for name in (LOCK, WANTED):
            assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
