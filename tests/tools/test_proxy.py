from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bodies import REPORT_ZERO
from tests.conftest import ROOT
from tests.proxies import running
from tools.cli import main
from tools.errors import UnusableInput
from tools.proxy import addresses, listeners

UPSTREAM = "http://127.0.0.1:9"


QUIETLY = ("--upstream", UPSTREAM, "--listen", "127.0.0.1:0")

# A process that has loaded all of it once: each command line that it reads is run by a fork of it.
FORKING = """
import json, os, sys, tempfile
from proxy_addons import lean_import
lean_import.only_what_is_named()
import proxy_addons.launcher
from tools.cli import main

for line in sys.stdin:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            try:
                code = main(json.loads(line))
            except SystemExit as end:
                code = end.code
            except BaseException as error:
                code = 99
                sys.excepthook(type(error), error, error.__traceback__)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        print(json.dumps([code, out.read().decode(), err.read().decode()]), flush=True)
"""


@pytest.fixture(scope="module")
def forking() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", FORKING], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process


def told(forking: subprocess.Popen[str], *words: object) -> list[Any]:
    """Exit code, output and errors of a command."""
    assert forking.stdin is not None
    assert forking.stdout is not None
    print(json.dumps([str(word) for word in words]), file=forking.stdin, flush=True)
    found: list[Any] = json.loads(forking.stdout.readline())
    return found


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([], "--mode reverse needs --upstream"),
        (["--mode", "regular"], "--mode regular needs --upstream"),
        (["--upstream", UPSTREAM, "--upstream", UPSTREAM], "--mode reverse takes one --upstream"),
        (["--mode", "transparent", "--upstream", "http://nowhere.invalid"], "nowhere.invalid: "),
        (["--mode", "transparent", "--via", UPSTREAM], "--via needs --upstream"),
        (["--upstream", UPSTREAM, "--via", "socks://x"], "--via: expected http://HOST"),
        (["--upstream", "ftp://x"], "expected http://HOST"),
        (["--upstream", "http://"], "expected a server such as"),
        ([*QUIETLY, "--listen", "127.0.0.1:0"], "upshim proxy: --listen 127.0.0.1:0 is given twice"),
        ([*QUIETLY, "--listen", "[::1]:80", "--listen", "::1:80"], "upshim proxy: --listen ::1:80 is given twice"),
        (["--upstream", "http://x:99999"], "expected a server such as"),
        (["--upstream", UPSTREAM, "--listen", "here"], "--listen: expected HOST:PORT"),
        (["--upstream", UPSTREAM, "--listen", "127.0.0.1:70000"], "--listen: expected HOST:PORT"),
        (["--upstream", UPSTREAM, "--rules", "/nowhere/rules.toml"], "/nowhere/rules.toml: No such file or directory"),
        (["--upstream", UPSTREAM, "--profile", "/nowhere/p.toml"], "/nowhere/p.toml: No such file or directory"),
        (["--upstream", UPSTREAM, "--record", "/dev/null/rec"], "/dev/null/rec: cannot record here"),
        (["--upstream", UPSTREAM, "--pcap", "/tmp/x"], "--pcap needs --record"),
        (["--upstream", UPSTREAM, "--pcap-bytes", "-1"], "--pcap-bytes: expected 0 or more, found -1"),
        (["--upstream", "http://127.0.0.1:8080"], "expected the server, found what --listen names"),
        (["--upstream", "http://localhost", "--listen", "0.0.0.0:80"], "expected the server, found what --listen"),
        (["--upstream", UPSTREAM, "--listen", "192.0.2.1:8080"], "cannot listen on 192.0.2.1:8080: "),
        ([*QUIETLY, "--admin", "0.0.0.0:0"], "0.0.0.0 can be reached from outside: the admin listener needs a token"),
        ([*QUIETLY, "--admin", "[::]:0"], ":: can be reached from outside: the admin listener needs a token"),
        ([*QUIETLY, "--admin", "127.0.0.1:0", "--admin-token", "/nowhere/t"], "/nowhere/t: No such file or directory"),
        (["--upstream", UPSTREAM, "--drain", "-1"], "--drain: expected 0 or more, found -1"),
        (["--upstream", UPSTREAM, "--keep-days", "-5"], "--keep-days: expected 0 or more"),
        (["--upstream", UPSTREAM, "--health", "foo"], "--health: expected a path such as /healthz, found 'foo'"),
        ([*QUIETLY, "--body-limit", "-5"], "--body-limit: expected a number above 0, found -5"),
        ([*QUIETLY, "--admin-token", "/nowhere"], "--admin-token needs --admin"),
        ([*QUIETLY, "--keep-days", "9"], "--keep-days needs --record"),
        ([*QUIETLY, "--keep-bytes", "9"], "--keep-bytes needs --record"),
        ([*QUIETLY, "--store", "no-bodies"], "--store needs --record"),
        ([*QUIETLY, "--store-users"], "--store-users needs --record"),
        ([*QUIETLY, "--tls-oldest", "1.0"], "--tls-oldest needs --certs"),
        ([*QUIETLY, "--record", "/dev/null", "--keep-days", "1000000"], "--keep-days: expected 36500 at most"),
        ([*QUIETLY, "--state", "/dev/null"], "upshim proxy: /dev/null: expected a folder, found something else"),
        ([*QUIETLY, "--state", "/dev/null/x"], "upshim proxy: /dev/null/x: Not a directory"),
        (["--upstream", UPSTREAM, "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_2(
    words: list[str], complaint: str, tmp_path: Path, forking: subprocess.Popen[str]
) -> None:
    code, out, err = told(forking, "proxy", "--state", tmp_path, *words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert complaint in err


def test_a_port_in_use_and_bad_files(tmp_path: Path, forking: subprocess.Popen[str]) -> None:
    rules, profile, binary = tmp_path / "rules.toml", tmp_path / "profile.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"a\xff")
    (tmp_path / "words").write_text("two words")
    rules.write_text(REPORT_ZERO.replace("< 1", "below 1"))
    profile.write_text("[aliases]\nnonsense = 3\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for words, complaint in (
            (["--listen", f"127.0.0.1:{port}"], f"cannot listen on 127.0.0.1:{port}: Address already in use"),
            (["--rules", str(rules)], f"{rules}: line 15: when.version: expected a constraint"),
            (["--profile", str(profile)], f"{profile}: "),
            (["--profile", str(binary)], f"{binary}: at offset 1: expected text in UTF-8, found the byte 0xff"),
            (
                [*QUIETLY[2:], "--admin", "127.0.0.1:0", "--admin-token", str(binary)],
                f"proxy: {binary}: expected a token",
            ),
            (
                [*QUIETLY[2:], "--admin", "127.0.0.1:0", "--admin-token", str(tmp_path / "words")],
                "words: expected a token",
            ),
            (["--listen", "127.0.0.1:0", "--admin", f"127.0.0.1:{port}"], "admin listener: cannot listen on 127.0.0.1"),
        ):
            code, out, err = told(forking, "proxy", "--upstream", UPSTREAM, "--state", tmp_path / "s", *words)
            assert (code, out, err.count("\n")) == (2, "", 1), err
            assert complaint in err


def test_so_it_is_for_a_process_of_its_own(tmp_path: Path) -> None:
    for words in (["--drain", "-1"], ["--listen", "192.0.2.1:8080"]):
        command = [sys.executable, "-m", "tools", "proxy", "--upstream", UPSTREAM, "--state", str(tmp_path), *words]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1), ended.stderr


def test_it_ends_when_told_to(tmp_path: Path) -> None:
    with running("upshim", UPSTREAM, tmp_path) as proxy:
        assert proxy.stop() == 0


def test_modes() -> None:
    assert listeners("reverse", ["http://10.0.0.5/"], ["0.0.0.0:80"]) == (
        ["10.0.0.5:80"],
        ["reverse:http://10.0.0.5@0.0.0.0:80"],
    )
    assert listeners("regular", ["https://[fd00::5]"], ["[::1]:8080"]) == (["[fd00::5]:443"], ["regular@::1:8080"])
    assert listeners("transparent", [], ["0.0.0.0:8080"]) == ([], ["transparent@0.0.0.0:8080"])
    with pytest.raises(UnusableInput):
        addresses(["1.2.3.4:-1"])


def test_an_unknown_verb_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["upgrade"])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
