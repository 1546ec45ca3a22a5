"""`upshim rules stop` and `start`: the kill switch of a running proxy, by its file or by its admin listener."""

from __future__ import annotations

import argparse
import getpass
import http.client
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from proxy_addons.admin import read_token
from proxy_addons.kill_switch import make, remove, why_file
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput

WITHIN = 10.0  # seconds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How the proxy is reached; at least one of them."""
    parser.add_argument("--kill-switch", type=Path, metavar="FILE", help="the file of the proxy's own --kill-switch")
    parser.add_argument("--admin", metavar="HOST:PORT", help="the proxy's own --admin")
    parser.add_argument("--admin-token", type=Path, metavar="FILE", help="token that --admin asks for")
    parser.add_argument("--why", metavar="TEXT", default="", help="with --admin: is told as long as it is stopped")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Switch; 1 where it is then not as wanted."""
    if args.kill_switch is None and args.admin is None:
        raise UnusableInput(f"rules {args.action}: expected --kill-switch FILE or --admin HOST:PORT")
    stop = args.action == "stop"
    why = ""
    if args.kill_switch is not None:
        why = by_file(args.kill_switch, stop=stop)
    if args.admin is not None:
        said = ": ".join(filter(None, (who(), args.why)))
        told = ask(args.admin, args.admin_token, "POST", "/stop" if stop else "/start", said)
        why = str(told.get("stopped") or "")
    if args.json:
        print(json.dumps({"kind": "switch", "stopped": why or None}))
    elif args.admin is not None:
        print(
            f"stopped: {why}: nothing is rewritten from the next exchange on" if why else "started: rules are applied"
        )
    elif stop:
        print(f"stopped: {why}: a proxy with this --kill-switch rewrites nothing from its next exchange on")
    else:
        print(f"started: {args.kill_switch} is gone; a proxy may be stopped by command or signal, too: ask its --admin")
    return EXIT_OK if bool(why) == stop else EXIT_PROBLEM


def by_file(file: Path, *, stop: bool) -> str:
    """Make or remove the file; returns why everything is stopped then. Raises `UnusableInput`."""
    try:
        if stop:
            make(file)
        else:
            remove(file)
    except OSError as error:
        raise UnusableInput(f"{file}: {error.strerror}") from error
    return why_file(file)


def who() -> str:
    """Who commands it; blank where the machine does not know."""
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return ""


def ask(admin: str, token: Path | None, method: str, path: str, why: str = "") -> dict[str, Any]:
    """What an admin listener answers. Raises `UnusableInput`."""
    try:
        url = urlsplit(admin if "//" in admin else f"//{admin}")
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise UnusableInput(f"--admin: expected HOST:PORT, found {admin!r}")
    headers = {"X-Upshim-Command": "1", "X-Upshim-Why": quote(why)}
    if token is not None:
        headers["Authorization"] = f"Bearer {token_of(token)}"
    try:
        with closing(http.client.HTTPConnection(host, port, timeout=WITHIN)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(1 << 16)
        if answer.status == 401:
            raise UnusableInput(f"{admin}: a token is asked for: --admin-token FILE")
        found = json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnusableInput(f"{admin}: no answer of an upshim admin listener: {reason}") from error
    if not isinstance(found, dict):
        raise UnusableInput(f"{admin}: no answer of an upshim admin listener: {str(found)[:40]}")
    return found


def token_of(file: Path) -> str:
    """The token that an admin listener asks for. Raises `UnusableInput`."""
    try:
        return read_token(file)
    except ValueError as error:
        raise UnusableInput(str(error)) from error
