from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from proxy_addons.notify import notify, watchdog_period


def test_states_reach_the_service_manager(tmp_path: Path) -> None:
    for name in (str(tmp_path / "notify"), f"@upshim-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + name[1:] if name[0] == "@" else name)
            manager.settimeout(5)
            assert notify("READY=1", {"NOTIFY_SOCKET": name})
            assert manager.recv(100) == b"READY=1"


def test_nobody_listens(tmp_path: Path) -> None:
    assert not notify("READY=1", {})
    assert not notify("READY=1", {"NOTIFY_SOCKET": "vsock:2:1"})
    assert not notify("READY=1", {"NOTIFY_SOCKET": str(tmp_path / "absent")})


@pytest.mark.parametrize(
    ("environment", "period"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "5000000"}, 2.5),
        ({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(os.getpid())}, 2.5),
        ({"WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_watchdog(environment: dict[str, str], period: float | None) -> None:
    assert watchdog_period(environment) == period
