"""Which dissector reads a file: asked of its content, its name only as a last resort.

`READERS` is tried in order. A reader returns a record, or None where the content is nothing of its own; a DissectError
says that it is, but damaged. A dissector is imported by its reader, and only for content that may be its own: to have
all of them would take longer than most files.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import Any

from dissectors.errors import DissectError
from dissectors.lines import sniff_encoding, text_lines
from dissectors.redaction import REDACTED
from tools.decode.inputs import Content
from tools.decode.settings import Settings

MAX_TEXT = 16 << 20
MAX_PASTE = 1 << 18
MAX_PROBLEMS = 50
MAX_MESSAGES = 1000

Record = dict[str, Any]
_TOKEN = re.compile(
    r"\s*(?:(?:www|proxy)-authenticat\w+\s*:|(?:proxy-)?authorization\s*:|(?:ntlm|negotiate)\s|TlRMTVNT|YI|oY|oI)",
    re.IGNORECASE,
)
_BASE64_SEQUENCE = re.compile(rb"[\xef\xbb\xbf\xff\xfe\s]*M[A-I]")
_OPTION = re.compile(r"\boption\s{0,4}(?:43|60|120)\b", re.IGNORECASE)
_SETTING = re.compile(r"^\s*(?:Property\s*\[|<|Group\b)", re.IGNORECASE | re.MULTILINE)
_ANSWERS = re.compile("response|answer|reply|result", re.IGNORECASE)
_SIP_LINE = re.compile(rb"^(?:[A-Z]{2,32} +(?:sips?|tel):\S+ +)?SIP/2\.0", re.MULTILINE)


def text_of(data: bytes) -> str:
    """The text of a file small enough to be read whole."""
    encoding, mark = sniff_encoding(data[:64])
    return data[mark:].decode(encoding, "replace")


def read_iis_log(content: Content, settings: Settings) -> Record | None:
    """An IIS log: the summary, and the first entries."""
    if not content.may_be_log:
        return None
    from dissectors.iis_log import LogSummary, looks_like_iis_log

    if not looks_like_iis_log(content.head):
        return None
    summary = LogSummary()
    entries: list[Record] = []
    for entry in summary.read(_watched(content, settings)):
        if len(entries) < settings.rows:
            entries.append(entry.to_json(settings.secrets))
    return summary.to_json() | {"rows": entries}


def read_audit_log(content: Content, settings: Settings) -> Record | None:
    """A RequestHandlerAuditLog: counts, and the first rows."""
    if not content.may_be_log:
        return None
    from dissectors import audit_log

    rows = audit_log.read_rows(_watched(content, settings))
    try:
        first = next(rows, None)
    except DissectError:
        return None
    if first is None and not any(audit_log.is_header(line.text) for line in text_lines([content.head])):
        return None
    counts: dict[str, int] = {}
    shown: list[Record] = []
    problems: list[str] = []
    number = 0
    while first is not None:
        number += 1
        if number <= settings.rows:
            shown.append(first.to_json(settings.secrets))
        if len(problems) <= MAX_PROBLEMS:
            problems += (f"line {first.line}: {problem}" for problem in first.problems)
        device = " ".join(filter(None, (first.vendor, first.model, first.revision))) or "unnamed"
        if device in counts or len(counts) < MAX_MESSAGES:
            counts[device] = counts.get(device, 0) + 1
        first = next(rows, None)
    return {"kind": "audit-log", "row_count": number, "devices": counts, "rows": shown, "problems": problems}


def read_certificates(content: Content, settings: Settings) -> Record | None:
    """Armoured or binary certificates, signatures, catalogs and lists."""
    plain = content.head[:4096].replace(b"\0", b"")
    if plain[:1] not in {b"0", b"P"} and b"-----BEGIN " not in plain and not _BASE64_SEQUENCE.match(plain):
        return None
    if plain[:1] == b"0" and content.is_text and b"-----BEGIN " not in plain:
        return None  # digits: no SEQUENCE is without control characters
    from dissectors.certificates import looks_like_armour

    if not looks_like_armour(content.head):
        return None
    from tools.decode.pki import certificate_record

    return certificate_record(content.whole(MAX_TEXT), settings)


def read_asn1(content: Content, settings: Settings) -> Record | None:
    """Binary ASN.1 of any other kind."""
    if content.is_text or content.head[:1] != b"\x30":
        return None
    from tools.decode.pki import certificate_record

    try:
        return certificate_record(content.whole(MAX_TEXT), settings)
    except DissectError:
        return None


def read_token(content: Content, settings: Settings) -> Record | None:
    """An NTLM message or a SPNEGO token, binary or as text."""
    if content.is_text:
        return _token_in_text(content, settings)
    if content.head[:1] not in {b"N", b"\x60", b"\xa0", b"\xa1"}:
        return None
    from dissectors import ntlm

    try:
        token = ntlm.from_bytes(content.whole(MAX_PASTE))
    except DissectError:
        if content.head.startswith(b"NTLMSSP\0"):
            raise
        return None
    return {"kind": "ntlm", **_login(token.to_json(secrets=settings.secrets), settings), "problems": []}


def _token_in_text(content: Content, settings: Settings) -> Record | None:
    if content.size > MAX_PASTE or not _TOKEN.match(text := text_of(content.whole(MAX_PASTE))):
        return None
    from dissectors import ntlm

    try:
        token = ntlm.from_text(text.strip())
    except DissectError:
        if ":" in text[:40]:
            raise
        return None
    return {"kind": "ntlm", **_login(token.to_json(secrets=settings.secrets), settings), "problems": []}


def read_xml(content: Content, settings: Settings) -> Record | None:
    """An update check, its answer, in-band settings, a description of an update, or other XML."""
    if not content.is_text or not text_of(content.head[:512]).lstrip().startswith("<"):
        return None
    data = content.whole(MAX_TEXT)
    if b"provisiongrouplist" in content.head.replace(b"\0", b"").lower():
        from dissectors import inband

        return {"kind": "in-band", **_fact(inband.parse(data).to_json(secrets=settings.secrets))}
    from dissectors.firmware import Description
    from dissectors.update_check import UpdateAnswer, UpdateCheck
    from dissectors.vocabulary import Vocabulary
    from dissectors.xml_body import XmlBody

    vocabulary = Vocabulary.default()
    answer = UpdateAnswer.decode(data, vocabulary)
    if answer.is_offer:
        return {"kind": "update-answer", **_fact(answer.to_json(settings.secrets))}
    if answer.offers and (answer.mac or answer.serial):
        # Modules beside a phone's own names: the phone reports them, unless the root element says that it is an answer.
        with suppress(DissectError):
            check = UpdateCheck.decode(data, vocabulary)
            if check.modules and not _ANSWERS.search(check.source.elements[0].tag):
                return {"kind": "update-check", **_fact(check.to_json(settings.secrets))}
    if answer.offers and (answer.mac or answer.serial or answer.model):
        return {"kind": "update-answer", **_fact(answer.to_json(settings.secrets))}
    with suppress(DissectError):
        check = UpdateCheck.decode(data, vocabulary)
        # A manifest has a version and a locale too; only a phone has an address or a serial number.
        if check.mac or check.serial or (check.device_type and check.model):
            return {"kind": "update-check", **_fact(check.to_json(settings.secrets))}
    body = XmlBody.decode(data)
    described = Description.parse(data, vocabulary)
    return {
        "kind": "xml",
        "root": body.elements[0].tag if body.elements else None,
        "elements": len(body.elements),
        "encoding": body.encoding,
        "known_names": {
            name: [REDACTED] if name == "user" and not settings.secrets else list(values)
            for name, values in described.values.items()
        },
        "problems": list(body.problems),
    }


def read_sip(content: Content, settings: Settings) -> Record | None:
    """SIP messages as pasted or logged."""
    if not content.is_text or not _SIP_LINE.search(content.head):
        return None
    from dissectors import sip

    found = sip.find_messages(content.whole(MAX_TEXT))
    messages = [sip.to_json(message, secrets=settings.secrets) for message in islice(found, MAX_MESSAGES)]
    if not messages:
        return None
    problems = [f"message {number}: {text}" for number, one in enumerate(messages, 1) for text in one["problems"]]
    return {
        "kind": "sip",
        "messages": [
            _fact(message) | {"ntlm": [_login(token, settings) for token in message["ntlm"]]} for message in messages
        ],
        "more": sum(1 for _ in found),
        "problems": problems[:MAX_PROBLEMS],
    }


def read_journal(content: Content, _settings: Settings) -> Record | None:
    """The journal of a recording, told by its first line."""
    if not content.head.startswith(b"{"):
        return None
    from captures.journal import decode

    line, end, _ = content.head.partition(b"\n")
    entry = decode(line + end)
    return None if entry is None else {"kind": "journal", "shown_by": "upshim journal show", "problems": []}


def read_dhcp(content: Content, _settings: Settings) -> Record | None:
    """DHCP options in the notations that people paste."""
    if not content.is_text or content.size > MAX_PASTE:
        return None
    from dissectors import dhcp_options

    text = text_of(content.whole(MAX_PASTE))
    try:
        paste = dhcp_options.read_paste(text)
    except DissectError:
        if _OPTION.search(text):
            raise
        return None
    shown = [_fact(option.to_json()) for option in paste.options]
    problems = [f"option {option.code}: {problem}" for option in paste.options for problem in option.problems]
    return {"kind": "dhcp", "options": shown, "skipped": list(paste.skipped), "problems": problems}


def read_settings(content: Content, settings: Settings) -> Record | None:
    """In-band settings as a tool printed them."""
    if not content.is_text or not _SETTING.search(text_of(content.head)):
        return None
    from dissectors import inband

    try:
        found = inband.parse_dump(text_of(content.whole(MAX_TEXT)))
    except DissectError:
        return None
    return {"kind": "in-band", **_fact(found.to_json(secrets=settings.secrets))}


def read_firmware(content: Content, settings: Settings) -> Record | None:
    """A firmware image or what carries one."""
    if content.is_text:
        return None
    settings.progress(content.size)
    return content.firmware.to_json() if content.firmware.recognised else None


def read_uploaded_log(content: Content, _settings: Settings) -> Record | None:
    """A log whose content is not public and that only its name tells."""
    from dissectors.log_upload import LogName

    try:
        name = LogName.parse(content.name)
    except DissectError:
        return None
    if not name.content or name.form == "other" or content.is_text:
        return None
    return {"kind": "uploaded-log", **_fact(name.to_json())}


Reader = Callable[[Content, Settings], Record | None]
READERS: tuple[Reader, ...] = (
    read_token,
    read_certificates,
    read_iis_log,
    read_xml,
    read_sip,
    read_audit_log,
    read_settings,
    read_journal,
    read_dhcp,
    read_firmware,
    read_asn1,
    read_uploaded_log,
)


def _watched(content: Content, settings: Settings) -> Any:
    """The chunks of a log, its progress told and its time watched."""
    for chunk in content.chunks():
        settings.budget.check_time(0)
        settings.progress(len(chunk))
        yield chunk


def _login(token: Record, settings: Settings) -> Record:
    """An NTLM message; who logs in is a fact of an exchange, and of a file only where users are asked for."""
    shown = _fact(token)
    return shown | {"user": REDACTED} if shown.get("user") and not settings.secrets else shown


def _fact(record: Record) -> Record:
    """A fact of an exchange as a part of a file's record."""
    return {name: value for name, value in record.items() if name != "fact"}
