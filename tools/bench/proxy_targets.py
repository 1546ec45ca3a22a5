"""The programs that the bench of the proxy compares, each started on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tools.bench import checks
from tools.deploy import Address, render
from tools.errors import UnusableInput
from tools.ports import free_port

START_WITHIN = 30.0
STOP_WITHIN = 10.0
SETTLES_WITHIN, SETTLED_FOR, SETTLED_BELOW = 20.0, 0.2, 0.05  # seconds, seconds, share of a core

BACKEND = """\
daemon off;
worker_processes 1;
error_log stderr crit;
pid {folder}/backend.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  sendfile on; keepalive_requests 1000000000;
  types {{ text/xml xml; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    root {folder}/www;
    # A file is no answer to POST as far as nginx is concerned.
    location = {check} {{ error_page 405 =200 /answer.xml; return 405; }}
  }}
}}
"""
FRONT = """\
daemon off;
worker_processes 1;
error_log stderr crit;
pid {folder}/front.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/f1; proxy_temp_path {folder}/f2; fastcgi_temp_path {folder}/f3;
  uwsgi_temp_path {folder}/f4; scgi_temp_path {folder}/f5;
  keepalive_requests 1000000000;
  upstream server {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;
    proxy_max_temp_file_size 0; proxy_buffers 4 64k; proxy_busy_buffers_size 128k;
    location / {{ proxy_pass http://server; }}
  }}
}}
"""
HAPROXY = """\
global
    maxconn 1024
    tune.pipesize 524288
defaults
    mode http
    option splice-response
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend phones
    bind 127.0.0.1:{port}
    default_backend server
backend server
    server direct 127.0.0.1:{upstream}
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Something to put load on; without processes it is not installed. The first of them is listened for."""

    name: str
    port: int = 0
    processes: tuple[subprocess.Popen[bytes], ...] = ()
    mixed: bool = False  # whether few of its phones are wanted by the rules

    @property
    def installed(self) -> bool:
        """Whether there is anything to measure."""
        return bool(self.port)


class Usage:
    """CPU time and memory of processes and what they started, from /proc."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]]) -> None:
        self.pids = [pid for process in processes for pid in family(process.pid)]

    def cpu(self) -> float:
        """Seconds of CPU, user and system, so far."""
        ticks = 0
        for pid in self.pids:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self, name: str = "VmRSS") -> int:
        """Resident bytes, all processes together; `VmHWM` for the peak."""
        return sum(status(pid, name) for pid in self.pids)

    def settle(self) -> float:
        """Wait until they do next to nothing any more, or for long enough; the seconds it took."""
        began, used = time.monotonic(), self.cpu()
        while (took := time.monotonic() - began) < SETTLES_WITHIN:
            time.sleep(SETTLED_FOR)
            before, used = used, self.cpu()
            if used - before <= SETTLED_FOR * SETTLED_BELOW:
                break
        return took


def family(pid: int) -> list[int]:
    """A process, those it has started, and so on; any of its threads may have started one."""
    found = [pid]
    with contextlib.suppress(OSError):  # a thread that has ended meanwhile
        for told in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [one for child in told.read_text().split() for one in family(int(child))]
    return found


def status(pid: int, name: str) -> int:
    """A number of bytes from the status of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def program(name: str) -> str | None:
    """Where a program is."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def for_this_user(text: str) -> str:
    """A configuration of HAProxy where it is started by somebody who cannot go on as another user."""
    return text if os.geteuid() == 0 else text.replace("    user haproxy\n    group haproxy\n", "")


class Starter:
    """Starts programs and ends them all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, port: int, *command: str) -> subprocess.Popen[bytes]:
        """Start a program and wait until it listens. Raises `UnusableInput`."""
        with (self.folder / "said").open("ab") as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self._running.append(process)
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return process
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    told = (self.folder / "said").read_text(errors="replace").strip().splitlines()[-1:]
                    raise UnusableInput(f"{command[0]} does not listen: {' '.join(told)}") from None
                time.sleep(0.02)

    def stop(self) -> None:
        """End them all, the last first."""
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_WITHIN)

    def nginx(self, name: str, text: str, **places: object) -> tuple[int, subprocess.Popen[bytes]] | None:
        """An nginx with this configuration; None where it is not installed."""
        nginx = program("nginx")
        if nginx is None:
            return None
        port, path = free_port(), self.folder / f"{name}.conf"
        path.write_text(text.format(folder=self.folder, port=port, **places))
        return port, self.start(port, nginx, "-e", "stderr", "-p", str(self.folder), "-c", str(path))

    def haproxy(self, name: str, port: int, text: str) -> Target:
        """A HAProxy with this configuration."""
        haproxy = program("haproxy")
        if haproxy is None:
            return Target(name)
        path = self.folder / f"haproxy-{port}.cfg"
        path.write_text(for_this_user(text))
        return Target(name, port, (self.start(port, haproxy, "-db", "-f", str(path)),))

    def mitmdump(self, name: str, upstream: int, *options: str) -> Target:
        """A mitmdump in front of the server."""
        mitmdump = Path(sys.executable).with_name("mitmdump")
        if not mitmdump.exists():
            return Target(name)
        port, state = free_port(), self.folder / f"mitmdump-{len(self._running)}"
        words = [str(mitmdump), "--mode", f"reverse:http://127.0.0.1:{upstream}@127.0.0.1:{port}"]
        return Target(name, port, (self.start(port, *words, "--set", f"confdir={state}", *options),))

    def upshim(self, name: str, upstream: int, *options: str) -> Target:
        """An `upshim proxy` in front of the server."""
        port, state = free_port(), self.folder / f"upshim-{len(self._running)}"
        words = [sys.executable, "-m", "tools", "proxy", "--upstream", f"http://127.0.0.1:{upstream}"]
        words += ["--listen", f"127.0.0.1:{port}", "--state", str(state)]
        return Target(name, port, (self.start(port, *words, *options),))

    def recording_upshim(self, name: str, upstream: int) -> Target:
        """One with rules and a recording of its own."""
        folder = self.folder / f"rec-{len(self._running)}"
        return self.upshim(name, upstream, "--rules", str(self.folder / "rules.toml"), "--record", str(folder))


@contextlib.contextmanager
def backend(folder: Path, megabytes: int) -> Iterator[tuple[Starter, int, str]]:
    """A server that answers checks and has one file; whatever is started with its starter ends with it."""
    folder.chmod(0o755)  # nginx reads files as another user
    firmware = folder / "www" / checks.FIRMWARE_TARGET.lstrip("/")
    firmware.parent.mkdir(parents=True)
    with firmware.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1_000_000))
    (folder / "www" / "answer.xml").write_bytes(checks.ANSWER)
    (folder / "rules.toml").write_text(checks.RULES)
    starter = Starter(folder)
    try:
        found = starter.nginx("backend", BACKEND, check=checks.TARGET)
        if found is not None:
            yield starter, found[0], "nginx"
        else:
            port = free_port()
            starter.start(port, sys.executable, "-m", "tools.bench.proxy_backend", str(port), str(firmware))
            yield starter, port, "own"
    finally:
        starter.stop()


def targets(starter: Starter, upstream: int) -> Iterator[Target]:
    """Everything that is compared, started."""
    yield Target("direct", upstream)
    found = starter.nginx("front", FRONT, upstream=upstream)
    yield Target("nginx") if found is None else Target("nginx", found[0], (found[1],))
    port = free_port()
    yield starter.haproxy("HAProxy", port, HAPROXY.format(port=port, upstream=upstream))
    yield starter.mitmdump("mitmdump", upstream)
    script = Path(__file__).with_name("naive_rewrite.py")
    yield starter.mitmdump("mitmdump + naive script", upstream, "-s", str(script))
    yield starter.upshim("upshim, observing", upstream)
    yield starter.recording_upshim("upshim, rules and recording", upstream)
    yield replace(starter.recording_upshim("upshim, mixed fleet", upstream), mixed=True)
    name = "HAProxy + 2 upshims"
    if program("haproxy") is None:
        yield Target(name)
        return
    shims = [starter.recording_upshim("", upstream) for _ in range(2)]
    port = free_port()
    text = render(
        "haproxy",
        f"http://127.0.0.1:{upstream}",
        [Address("127.0.0.1", shim.port) for shim in shims],
        [Address("127.0.0.1", port)],
    )
    # All phones of the bench have one address, and would meet the same shim.
    front = starter.haproxy(name, port, text.replace("balance source", "balance leastconn"))
    yield replace(front, processes=(*front.processes, *(process for shim in shims for process in shim.processes)))
