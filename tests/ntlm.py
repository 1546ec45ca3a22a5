"""A server that demands NTLM of every connection, and checks it: by pyspnego, which is nothing of ours."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import spnego

from tests.servers import Received, message

USER, PASSWORD = "contoso\\phone1", "Pa55-w0rd"
_OFFERED = re.compile(rb"\r\nAuthorization: (NTLM|Negotiate) ([A-Za-z0-9+/=]+)\r\n", re.IGNORECASE)


class NtlmServer:
    """Answers `body` on connections that have logged in, and 401 on all others. `logins` are the users that did."""

    def __init__(self, body: bytes, scheme: str = "NTLM") -> None:
        self.body = body
        self.scheme = scheme
        self.logins: list[str] = []
        self._under_way: dict[int, spnego.ContextProxy] = {}
        self._known: set[int] = set()

    def __call__(self, request: Received) -> Iterator[bytes]:
        """Answer one request."""
        token = None
        if request.connection not in self._known and (offered := _OFFERED.search(request.head)):
            token = self._step(request.connection, base64.b64decode(offered[2]))
        if request.connection in self._known:
            yield message(self.body, "Content-Type: text/xml")
        else:
            challenge = self.scheme + (f" {base64.b64encode(token).decode()}" if token else "")
            yield message(b"", f"WWW-Authenticate: {challenge}", status="401 Unauthorized")

    def _step(self, connection: int, token: bytes) -> bytes | None:
        context = self._under_way.get(connection)
        if context is None:
            context = self._under_way[connection] = spnego.server(protocol=self.scheme.lower(), options=_OPTIONS)
        try:
            answer = context.step(token)
        except Exception:  # noqa: BLE001 - a wrong password, or the end of a login begun on another connection
            del self._under_way[connection]
            return None
        if context.complete:
            self._known.add(connection)
            self.logins.append(context.client_principal or "")
        return answer


_OPTIONS = spnego.NegotiateOptions.use_ntlm


@contextmanager
def accounts(folder: Path) -> Iterator[None]:
    """The server's only user, while the block lasts."""
    file = folder / "ntlm-users"
    domain, user = USER.split("\\")
    file.write_text(f"{domain}:{user}:{PASSWORD}\n")
    before = os.environ.get("NTLM_USER_FILE")
    os.environ["NTLM_USER_FILE"] = str(file)
    try:
        yield
    finally:
        if before is None:
            del os.environ["NTLM_USER_FILE"]
        else:
            os.environ["NTLM_USER_FILE"] = before
