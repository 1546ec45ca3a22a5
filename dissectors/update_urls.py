"""The URLs of the Device Update Service (protocol.md sections 1, 2.2 and 14).

What a request is, is told by its path alone: the host may be an IP literal, `ucupdates-r2.<domain>`, the pool or a
reverse proxy.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

from dissectors.errors import DissectError
from dissectors.version import Version


class Resource(enum.Enum):
    """What a request target asks for."""

    UPDATE_HANDLER = "update-handler"  # update checks, and log uploads: not every POST to it is a check
    FIRMWARE_FILE = "firmware-file"
    CERT_PROVISIONING = "cert-provisioning"
    CERT_CHAIN = "cert-chain"
    OTHER = "other"


MAX_REMEMBERED = 500  # characters

_PATTERNS = (
    (re.compile(r"/RequestHandler(Ext)?/ucdevice\.upx", re.IGNORECASE), Resource.UPDATE_HANDLER),
    (re.compile(r"/RequestHandler(Ext)?/Files/.*", re.IGNORECASE), Resource.FIRMWARE_FILE),
    (re.compile(r"/DeviceUpdateFiles_(Int|Ext)/.*", re.IGNORECASE), Resource.FIRMWARE_FILE),
    (re.compile(r"/CertProv/.*", re.IGNORECASE), Resource.CERT_PROVISIONING),
    (re.compile(r"/certsrv/certnew\.p7b", re.IGNORECASE), Resource.CERT_CHAIN),
)
_FILES_ROOT = re.compile(r"/(RequestHandler(?:Ext)?/Files|DeviceUpdateFiles_(?:Int|Ext))/(.*)", re.IGNORECASE)


def path_of(target: str) -> str:
    """The path of a request target in origin or absolute form, without its query."""
    if target.startswith("/"):
        return target.partition("?")[0]
    try:
        return urlsplit(target).path
    except ValueError:
        return target


def classify(target: str) -> Resource:
    """What a request target asks for."""
    return _remembered(target) if len(target) <= MAX_REMEMBERED else _classify(target)


def _classify(target: str) -> Resource:
    path = path_of(target)
    return next((kind for pattern, kind in _PATTERNS if pattern.fullmatch(path)), Resource.OTHER)


_remembered = lru_cache(maxsize=1024)(_classify)  # phones ask for the same few targets


def is_external(target: str) -> bool:
    """Whether a request target is one of those for phones outside of the firewall."""
    return path_of(target).lower().startswith(("/requesthandlerext/", "/deviceupdatefiles_ext/"))


@dataclass(frozen=True, slots=True)
class PackagePath:
    """The documented folder layout of an update (section 2.2).

    `<root>/{DeviceType}/{Vendor}/{Model}/{Revision}/{Locale}/{Version}/{UpdateType}[/file]`.
    """

    root: str
    device_type: str
    vendor: str
    model: str
    revision: str
    locale: str
    version: Version
    update_type: str
    file_name: str = ""

    @classmethod
    def parse(cls, url: str) -> PackagePath:
        """Read a download URL or its path. Raises `DissectError` where the layout does not fit."""
        match = _FILES_ROOT.search(path_of(url))
        if match is None:
            raise DissectError(0, "a path below DeviceUpdateFiles_* or RequestHandler*/Files", repr(url[:80]))
        parts = [unquote(part) for part in match[2].strip("/").split("/")]
        if not 7 <= len(parts) <= 8:
            raise DissectError(0, "DeviceType/Vendor/Model/Revision/Locale/Version/UpdateType", repr(match[2][:80]))
        device_type, vendor, model, revision, locale, version, *rest = parts
        return cls(match[1], device_type, vendor, model, revision, locale, Version.parse(version), *rest)

    def __str__(self) -> str:
        parts = (
            self.root,
            self.device_type,
            self.vendor,
            self.model,
            self.revision,
            self.locale,
            str(self.version),
            self.update_type,
            self.file_name,
        )
        return "/" + "/".join(quote(part, safe="/" if part is self.root else "") for part in parts if part)
