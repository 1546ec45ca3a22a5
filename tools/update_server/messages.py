"""Requests read, answers and audit rows written. The answers' XML is upshim's own and says `synthetic`."""

from __future__ import annotations

import enum
import re
from datetime import datetime
from xml.sax.saxutils import escape

from dissectors.audit_log import AuditRow
from dissectors.content_type import charset_of
from dissectors.installed_module import AnswerModule, InstalledModule
from dissectors.update_check import UpdateCheck
from dissectors.vocabulary import Vocabulary
from dissectors.xml_body import Field
from tools.update_server.rules import DeviceKey
from tools.update_server.service import Answer, Check, Offer

_LABEL = (
    "synthetic: upshim's own XML. What the real service answers is not public; "
    "of these names only BaseURL and ExternalBaseURL are published"
)
# What would break a row, or a module within it: control characters and the two separators.
_UNWRITABLE = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")
_SEPARATORS = re.compile(r"[;#]")


class NoOffer(enum.Enum):
    """How an answer without an offer looks: both are possible, the real one is not public."""

    ABSENT = "absent"  # no Update element
    BLANK = "blank"  # one, its elements blank


def read_check(body: bytes, content_type: str) -> Check:
    """What the service needs of a request. Raises `DissectError` where it is not an update check."""
    check = UpdateCheck.decode(body, Vocabulary.default(), charset_of(content_type))
    modules = tuple(module.installed for module in check.modules)
    key = DeviceKey(
        *(_text(one) for one in (check.device_type, check.vendor, check.model, check.revision, check.locale))
    )
    return Check(key, _text(check.mac), _text(check.serial), modules, _text(check.user))


def write_answer(answer: Answer, no_offer: NoOffer = NoOffer.ABSENT) -> bytes:
    """The body of an answer, in UTF-8."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', f"<!-- {_LABEL} -->", "<UpdateAnswer>"]
    for offer in answer.offers:
        lines += _update(offer)
    if not answer.offers and no_offer is NoOffer.BLANK:
        lines += _update(None)
    return "\r\n".join([*lines, "</UpdateAnswer>", ""]).encode()


def _update(offer: Offer | None) -> list[str]:
    values = {
        "BaseURL": offer.internal_url if offer else "",
        "ExternalBaseURL": offer.external_url if offer else "",
        "FileName": offer.file_name if offer else "",
        "SignatureFileName": offer.signature_file_name if offer else "",
        "Version": str(offer.version) if offer else "",
        "Timestamp": offer.timestamp if offer else "",
    }
    return ["  <Update>", *(f"    <{name}>{escape(value)}</{name}>" for name, value in values.items()), "  </Update>"]


def audit_row(check: Check, answer: Answer, address: str, now: datetime) -> AuditRow:
    """The row that tells of one check. Characters a row cannot hold are written as `_`."""
    device_type, vendor, model, revision, locale = map(_line, check.key)
    return AuditRow(
        logged=(now.astimezone() if now.tzinfo else now).strftime("%Y-%m-%d %H:%M:%S"),
        user_host_address=address,
        device_type=device_type,
        mac=_line(check.mac),
        serial=_line(check.serial),
        vendor=vendor,
        model=model,
        revision=revision,
        locale=locale,
        request_modules=tuple(
            InstalledModule(_part(module.file_name), module.version, _part(module.timestamp))
            for module in check.modules
        ),
        response_modules=tuple(
            AnswerModule(
                _part(offer.file_name), _part(offer.signature_file_name), offer.version, _part(offer.timestamp)
            )
            for offer in answer.offers
        ),
        user_id=_line(check.user),
    )


def _text(one: Field | None) -> str:
    return one.value.strip() if one else ""


def _line(text: str) -> str:
    return _UNWRITABLE.sub("_", text).strip()


def _part(text: str | None) -> str | None:
    return _SEPARATORS.sub("_", _line(text or "")) or None
