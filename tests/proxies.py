"""Real proxy processes for tests: stock mitmdump with our script, and `upshim proxy`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

START_WITHIN = 30
STOP_WITHIN = 15
KINDS = ("mitmdump", "upshim")
_LISTENING = re.compile(rb"listening (?:at|on) (?:http://)?[^\s]*?:(\d+)")


class Proxy:
    """A running proxy; `log` grows while it runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.log = b""
        self.port = 0
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.log += line
            if not self.port and (match := _LISTENING.search(line)):
                self.port = int(match[1])
                self._listening.set()
        self._listening.set()

    def wait_until_listening(self) -> None:
        assert self._listening.wait(START_WITHIN), self.log.decode()
        assert self.port, self.log.decode()

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait(STOP_WITHIN)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOP_WITHIN)
        self._reader.join(STOP_WITHIN)
        return code

    def peak_memory(self) -> int:
        """The most memory the process ever held, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert match is not None
        return int(match[1]) * 1024


def command(kind: str, upstream: str, state: Path, /, **options: object) -> list[str]:
    """The command line of a proxy; options are those of the addon, without `upshim_`."""
    if kind == "upshim":
        words = [sys.executable, "-m", "tools", "proxy", "--upstream", upstream, "--listen", "127.0.0.1:0"]
        words += ["--state", str(state)]
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            for one in value if isinstance(value, list) else [value]:
                words += [flag] if one is True else [flag, str(one)]
        return words
    script = str(ROOT / "proxy_addons" / "upshim.py")
    words = [str(Path(sys.executable).with_name("mitmdump")), "-s", script, "--mode", f"reverse:{upstream}@127.0.0.1:0"]
    settings = {"confdir": state, "keep_host_header": "true", "validate_inbound_headers": "false"}
    settings |= {"connection_strategy": "lazy"}
    settings |= {f"upshim_{name}": "true" if value is True else value for name, value in options.items()}
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    return words


@contextlib.contextmanager
def running(kind: str, upstream: str, state: Path, /, **options: object) -> Iterator[Proxy]:
    """A proxy that is listening; it is gone after the block."""
    with started(command(kind, upstream, state, **options)) as proxy:
        yield proxy


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[Proxy]:
    """The same, by its command line."""
    # mitmproxy 11 leaves what it logs to a pipe in a buffer.
    own = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, env=own)
    proxy = Proxy(process)
    try:
        proxy.wait_until_listening()
        yield proxy
    finally:
        if process.poll() is None:
            proxy.kill()
        proxy._reader.join(STOP_WITHIN)
        assert process.stdout is not None
        process.stdout.close()
