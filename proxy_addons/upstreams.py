"""Which servers may be connected to: upshim is not an open proxy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from mitmproxy.proxy import mode_specs

_HOST = re.compile(r"[\w.:%-]+")


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The servers by host and port. None means any: transparent mode goes where the phone was going."""

    allowed: frozenset[tuple[str, int]] | None = frozenset()

    @classmethod
    def of(cls, modes: Iterable[str], extra: Iterable[str]) -> Upstreams:
        """From mitmproxy's `mode` and the `upshim_upstream` option. Raises `ValueError` with one line."""
        allowed = {parse_upstream(text) for text in extra}
        for text in modes:
            mode = mode_specs.ProxyMode.parse(text)
            if isinstance(mode, mode_specs.ReverseMode | mode_specs.UpstreamMode):
                host, port = mode.address[:2]
                allowed.add((host.lower(), port))
            elif isinstance(mode, mode_specs.TransparentMode):
                if not allowed:
                    return cls(None)
            elif not allowed:
                raise ValueError(f"mode {text!r} is an open proxy: expected upshim_upstream=host:port beside it")
        return cls(frozenset(allowed))

    def allow(self, host: str, port: int) -> bool:
        """Whether this server may be connected to."""
        return self.allowed is None or (host.lower(), port) in self.allowed


def origins_of(modes: Iterable[str]) -> list[tuple[str, str, int]]:
    """Scheme, host and port of the servers that are known before a phone comes: those of reverse mode."""
    parsed = [mode_specs.ProxyMode.parse(text) for text in modes]
    reverse = [mode for mode in parsed if isinstance(mode, mode_specs.ReverseMode) and mode.scheme in {"http", "https"}]
    return [(mode.scheme, mode.address[0].lower(), mode.address[1]) for mode in reverse]


def parse_upstream(text: str) -> tuple[str, int]:
    """`host:port`, or a URL whose scheme gives the port. Raises `ValueError` with one line."""
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        port = parts.port or {"http": 80, "https": 443, "": 80}.get(parts.scheme)
    except ValueError:
        port = parts = None
    if (
        parts is None
        or not port
        or parts.username
        or parts.path.strip("/")
        or not _HOST.fullmatch(parts.hostname or "")
    ):
        raise ValueError(f"expected an upstream such as http://10.0.0.5 or 10.0.0.5:80, found {text!r}")
    return (parts.hostname or "").lower(), port
