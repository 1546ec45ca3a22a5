"""The check a phone sends and what it reads out of an answer. The request's XML is upshim's own: `synthetic`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from xml.sax.saxutils import escape

from dissectors.content_type import charset_of
from dissectors.installed_module import InstalledModule
from dissectors.update_check import UpdateAnswer
from dissectors.version import Version
from dissectors.vocabulary import Vocabulary
from dissectors.xml_body import Field
from tools.ucphone.identity import PhoneIdentity

CONTENT_TYPE = "text/xml; charset=utf-8"
_LABEL = "synthetic: upshim's own XML. What a real phone sends is not public; the names are those of the audit log"


class OfferedFile(NamedTuple):
    """A file offered; `folder` is blank where the server has no URL for it."""

    folder: str
    file_name: str
    signature_file_name: str
    version: Version
    timestamp: str | None

    def url(self, name: str) -> str:
        """Where a file of the offer is."""
        return f"{self.folder.rstrip('/')}/{name}"


def write_check(identity: PhoneIdentity, modules: Iterable[InstalledModule], status: str = "") -> bytes:
    """The body of an update check, in UTF-8; a last update status that is blank is left out."""
    device = {
        "DeviceType": identity.device_type,
        "MACAddress": identity.mac,
        "SerialNumber": identity.serial,
        "Vendor": identity.vendor,
        "Model": identity.model,
        "Revision": identity.revision,
        "Locale": identity.locale,
        "UserID": identity.user,
    }
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<!-- {_LABEL} -->", "<UpdateCheck>"]
    lines += [f"  <{name}>{escape(value)}</{name}>" for name, value in device.items()]
    if status:
        lines.append(f"  <LastUpdateStatus>{escape(status)}</LastUpdateStatus>")
    lines.append("  <Modules>")
    for module in modules:
        version = "" if module.version is None else str(module.version)
        lines += [
            "    <Module>",
            f"      <FileName>{escape(module.file_name or '')}</FileName>",
            f"      <Version>{version}</Version>",
            f"      <Timestamp>{escape(module.timestamp or '')}</Timestamp>",
            "    </Module>",
        ]
    return "\r\n".join([*lines, "  </Modules>", "</UpdateCheck>", ""]).encode()


def read_answer(body: bytes, content_type: str, *, external: bool) -> list[OfferedFile]:
    """The files offered, those without a version or file name left out. Raises `DissectError`."""
    answer = UpdateAnswer.decode(body, Vocabulary.default(), charset_of(content_type))
    found = []
    for offer in answer.offers:
        version, name = offer.offered_version, _text(offer.file)
        if version is not None and name:
            folder = _text(offer.external_base_url if external else offer.base_url)
            found.append(
                OfferedFile(folder, name, _text(offer.signature_file), version, _text(offer.timestamp) or None)
            )
    return found


def _text(one: Field | None) -> str:
    return one.value.strip() if one else ""
