"""Content views: what mitmproxy and mitmweb show of update checks, cabinets, certificates and NTLM logins.

mitmproxy 12 changed the interface. A view here speaks both: `prettify(data, metadata)` is the new one, the call with
keywords the old one. What a view knows of the format is a `Reading`, which knows nothing of mitmproxy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, NamedTuple, cast

from mitmproxy import contentviews

from dissectors import certificates, ntlm
from dissectors.auth_header import HEADERS
from dissectors.cabinet import Budget, Cabinet
from dissectors.errors import DissectError
from dissectors.lines import sniff_encoding
from dissectors.update_check import UpdateAnswer, UpdateCheck
from dissectors.update_urls import Resource, classify, path_of
from dissectors.vocabulary import Vocabulary
from proxy_addons.outline import outline

MAX_OUTPUT = 64 << 20
"""Bytes a cabinet may unpack to: a person is waiting, and mitmproxy does nothing else meanwhile."""
MAX_SECONDS = 2.0
SURE = 2.0  # mitmproxy's own views give at most 1

Headers = tuple[tuple[str, str], ...]


class Context(NamedTuple):
    """What is known of the message around the data."""

    headers: Headers = ()
    path: str = ""
    is_request: bool = False


class Reading(NamedTuple):
    """One view: its name, whether the data is its own, and the lines of it (which may raise `DissectError`)."""

    name: str
    fits: Callable[[bytes, Context], bool]
    lines: Callable[[bytes, Context], Iterator[str]]


def is_update_xml(data: bytes, context: Context) -> bool:
    """XML to or from the update handler."""
    encoding, mark = sniff_encoding(data[:64])
    start = data[mark : mark + 256].decode(encoding, "replace").lstrip()
    return start.startswith("<") and classify(path_of(context.path)) is Resource.UPDATE_HANDLER


def update_lines(data: bytes, context: Context) -> Iterator[str]:
    """An update check, or the answer to one."""
    kind = UpdateCheck if context.is_request else UpdateAnswer
    return outline(_without_fact(kind.decode(data, Vocabulary.default()).to_json()))


def is_cabinet(data: bytes, _: Context) -> bool:
    """By its magic number."""
    return data.startswith(b"MSCF\0\0\0\0")


def cabinet_lines(data: bytes, _: Context) -> Iterator[str]:
    """Folders and members with their digests, as far as a short while allows."""
    deadline = time.monotonic() + MAX_SECONDS
    budget = Budget(output=MAX_OUTPUT, expired=lambda: time.monotonic() > deadline)
    return outline(Cabinet.parse(data, budget).examine(budget).to_json())


def is_certificate(data: bytes, _: Context) -> bool:
    """Armour, or a SEQUENCE that fits."""
    return certificates.looks_like_armour(data)


def certificate_lines(data: bytes, _: Context) -> Iterator[str]:
    """Certificates, signatures and lists."""
    return outline(certificates.dissect(data).to_json())


def tokens(context: Context) -> Iterator[tuple[str, ntlm.Token]]:
    """The NTLM and SPNEGO tokens in the headers."""
    for name, value in context.headers:
        if name.lower() in HEADERS and value[:9].lower().startswith(("ntlm ", "negotiate")):
            try:
                yield from ((name, token) for token in ntlm.from_header(value))
            except DissectError:
                continue


def has_login(data: bytes, context: Context) -> bool:
    """A login without a body; where there is one, the view can still be chosen."""
    return not data and next(tokens(context), None) is not None


def login_lines(_: bytes, context: Context) -> Iterator[str]:
    """What the headers hold; responses are not shown."""
    found = False
    for name, token in tokens(context):
        found = True
        yield from outline({name: _without_fact(token.to_json())})
    if not found:
        raise DissectError(0, "a header with an NTLM or SPNEGO token", "none")


READINGS = (
    Reading("UC update check", is_update_xml, update_lines),
    Reading("Cabinet", is_cabinet, cabinet_lines),
    Reading("Certificates", is_certificate, certificate_lines),
    Reading("NTLM login", has_login, login_lines),
)


class UpshimView:
    """One view, in the interfaces of mitmproxy 11 and 12."""

    syntax_highlight: ClassVar[str] = "yaml"

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.name = reading.name

    def prettify(self, data: bytes, metadata: Any) -> str:
        """The text (mitmproxy 12). Raises `DissectError`, a ValueError, which mitmproxy shows."""
        return "\n".join(self._reading.lines(data, context_of(metadata.flow, metadata.http_message)))

    def __call__(self, data: bytes, **known: Any) -> tuple[str, Iterator[list[tuple[str, str]]]]:
        """Description and lines (mitmproxy 11)."""
        try:
            lines = list(self._reading.lines(data, context_of(known.get("flow"), known.get("http_message"))))
        except DissectError as error:
            lines = data.decode("utf-8", "replace").splitlines()
            return f"{self.name}: not decoded: {error}", ([("text", line)] for line in lines)
        return self.name, ([("text", line)] for line in lines)

    def render_priority(self, data: bytes, metadata: Any = None, **known: Any) -> float:
        """Far above mitmproxy's own views where the data is ours, below all of them where it is not."""
        flow = known.get("flow") or getattr(metadata, "flow", None)
        message = known.get("http_message") or getattr(metadata, "http_message", None)
        return SURE if self._reading.fits(data, context_of(flow, message)) else -1.0

    def __lt__(self, other: Any) -> bool:
        return bool(self.name < other.name)


def context_of(flow: Any, message: Any) -> Context:
    """What mitmproxy tells of the message; any of it may be missing."""
    headers = getattr(message, "headers", None)
    request = getattr(flow, "request", None)
    return Context(
        tuple(headers.items(multi=True)) if headers is not None else (),
        getattr(request, "path", "") or "",
        request is not None and message is request,
    )


def register() -> None:
    """Make the views known to mitmproxy, in place of those of a script that is loaded anew."""
    for reading in READINGS:
        view = cast(Any, UpshimView(reading))
        known: Any = contentviews
        views = getattr(known, "views", None)  # mitmproxy 11: a name may be added only once
        if isinstance(views, list):
            for old in [old for old in views if old.name == view.name]:
                known.remove(old)
        known.add(view)


def _without_fact(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "fact"}
