"""The addon's part that has upstream asked for the files rules may send phones to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mitmproxy import ctx, http

from dissectors.update_urls import is_external
from dissectors.version import Version
from proxy_addons.packages import files_of, files_of_rules
from proxy_addons.rules import Rule, Rules
from proxy_addons.upstream_files import Origin, UpstreamFiles
from proxy_addons.upstream_tls import tls_context
from proxy_addons.upstreams import Upstreams, origins_of

Look = Callable[[Rule, Version], str | None]


class PackageWatch:
    """Asks the servers that may be connected to, and no other."""

    def __init__(self) -> None:
        self._upstreams = Upstreams()
        self._origins: list[Origin] = []
        self._expecting: object = None
        self.files = UpstreamFiles(self._may_ask, lambda: tls_context(ctx.options))

    def configure(self, upstreams: Upstreams, modes: Sequence[str]) -> None:
        """The upstreams have changed."""
        self._upstreams = upstreams
        self._origins = [Origin(*origin) for origin in origins_of(modes)]
        self._expecting = None

    def look_after(self, rules: Rules) -> None:
        """Ask for what is due; to be called every second or so."""
        if self._expecting is not rules:
            self._expecting = rules
            wanted = files_of_rules(rules.rules)
            self.files.expect((origin, files) for files in wanted for origin in self._origins)
        self.files.refresh()

    def look_for(self, request: http.Request) -> Look:
        """What to ask about a version, for the phone that sent a request."""
        origin = Origin(request.scheme, request.host.lower(), request.port)
        external = is_external(request.path)

        def look(rule: Rule, version: Version) -> str | None:
            wanted = files_of(rule, version, external=external)
            return None if wanted is None else self.files.reason(origin, wanted)

        return look

    def _may_ask(self, host: str, port: int) -> bool:
        return self._upstreams.allow(host, port)
