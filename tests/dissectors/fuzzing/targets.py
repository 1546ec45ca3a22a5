"""What is fuzzed: every dissector by its public entrances, with seeds that each is good or nearly so."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import NamedTuple

import brotli  # type: ignore[import-untyped]
import zstandard

from dissectors import (
    DissectError,
    audit_log,
    auth_header,
    byteranges,
    coding,
    content_type,
    dhcp_options,
    dns_message,
    inband,
    installed_module,
    ntlm,
    sip,
    update_status,
    update_urls,
    user_agent,
    version,
    vocabulary,
)
from dissectors.cabinet import Budget, Cabinet, safe_member_names
from dissectors.certificates import Circumstances, SignedData, dissect, examine, verify
from dissectors.dhcp_message import DhcpMessage
from dissectors.file_digests import FileDigests
from dissectors.firmware import BinImage, ControlFile, Description, find_packages, find_roms, identify
from dissectors.iis_log import LogSummary, looks_like_iis_log
from dissectors.lines import text_lines
from dissectors.log_upload import LogName
from dissectors.mac_address import normal_mac
from dissectors.sip_users import mask_users
from dissectors.update_check import UpdateAnswer, UpdateCheck
from dissectors.xml_body import XmlBody
from tests.bodies import answer_body, check_body
from tests.conftest import CORPUS
from tests.dissectors.cabinet.making import TEXT, self_extractor
from tests.dissectors.certificates.building import YEAR_2020, signed_data
from tests.dissectors.firmware.building import BASE, control, pe_image
from tests.dissectors.fuzzing.seeds import (
    AUDIT,
    CABINETS,
    CERTIFICATE,
    DHCP_MESSAGE,
    DNS,
    GROUPS,
    HTTP,
    IIS,
    MESSAGES,
    MULTIPART,
    PASTE,
    ROM,
    SIP_NAMES,
    SIP_TEXT,
    SMALL_TEXTS,
    VENDOR,
    XML_WORDS,
)
from tests.dissectors.http1.script import read

OUTPUT = 1 << 20
SMALL = Budget(output=OUTPUT)
NAMES = vocabulary.Vocabulary.default()


class Target(NamedTuple):
    """`covers` names the modules and packages of dissectors/ that it enters; `words` are pieces of the format."""

    covers: tuple[str, ...]
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()


def shown(value: object) -> None:
    """What comes out must be plain JSON."""
    json.dumps(value)


def text_of(data: bytes) -> str:
    """Text for dissectors that take it."""
    return data.decode("utf-8", "replace")


def open_cabinet(data: bytes, *, native: bool) -> None:
    """Structure, contents, signature, names."""
    cabinet = Cabinet.parse(data, SMALL)
    shown(cabinet.examine(SMALL, native=native).to_json())
    assert sum(len(piece.data) for piece in cabinet.pieces(budget=SMALL, native=native)) <= OUTPUT
    list(safe_member_names(member.name for member in cabinet.members))
    if cabinet.signature is not None:
        cabinet.signature.digest("sha1")


def search_and_join(data: bytes) -> None:
    """Cabinets in a larger file, joined as if they were a set."""
    found = list(Cabinet.search(b"xx" + data, SMALL))
    if found:
        shown(Cabinet.join(found, SMALL).to_json())


def certificates(data: bytes) -> None:
    """Everything that is asked of a file of certificates."""
    document = dissect(data)
    shown(document.to_json())
    examine(document.certificates, Circumstances(YEAR_2020, "contoso.com"))
    for item in document.items:
        if isinstance(item, SignedData):
            verify(item, b"content")


def firmware(data: bytes) -> None:
    """An image, its memory, its digests."""
    shown(identify(data).to_json())
    FileDigests.of(data)
    find_roms(data)
    if data.startswith(b"B000FF"):
        memory = BinImage.parse(data).memory()
        memory.read_at(max(memory.size - 4096, 0), 4096)
    if data.startswith(b"MSCE"):
        shown(ControlFile.parse(data).to_json())


def package(data: bytes) -> None:
    """A description of an update, and paths."""
    paths = [line[:300] for line in text_of(data).splitlines()[:100]]
    shown([one.to_json() for one in find_packages([*paths, "a.xml"], {"a.xml": data})])
    Description.parse(data)


def tokens(data: bytes) -> None:
    """NTLM and SPNEGO, binary and in headers."""
    for value in (data, base64.b64encode(data)):
        with suppress(DissectError):
            ntlm.from_header("Negotiate " + text_of(value))
        with suppress(DissectError):
            ntlm.from_text("Authorization: NTLM " + text_of(value))
    shown(ntlm.from_bytes(data).to_json(secrets=True))


def dhcp(data: bytes) -> None:
    """The first octet is the option's number."""
    for vendor_class in (None, "MS-UC-Client", "CPE-OCPHONE"):
        option = dhcp_options.decode(data[0] if data else 43, data[1:], vendor_class)
        shown(option.to_json())


def sip_text(data: bytes) -> None:
    """Messages as logged."""
    for message in islice(sip.find_messages(data), 100):
        shown(sip.to_json(message, secrets=True))
        sip.in_band(message)


def rows(data: bytes) -> None:
    """An audit log in uneven pieces."""
    for row in audit_log.read_rows(data[at : at + 97] for at in range(0, len(data), 97)):
        shown(row.to_json())
        audit_log.AuditLogName.parse("RequestHandlerAuditLog_" + text_of(data[:40]))


def iis(data: bytes) -> None:
    """An IIS log in uneven pieces."""
    looks_like_iis_log(data)
    summary = LogSummary()
    for entry in summary.read(data[at : at + 101] for at in range(0, len(data), 101)):
        shown(entry.to_json())
    shown(summary.to_json())


def http(data: bytes) -> None:
    """Both directions, whole and in pieces."""
    for role in ("request", "response"):
        whole = read(role, data)
        pieces = read(role, *(data[at : at + 7] for at in range(0, len(data), 7)))
        if not any(line.startswith(("skipped", "malformed", "lost")) for line in (*whole.lines, *pieces.lines)):
            assert (pieces.lines, pieces.bodies) == (whole.lines, whole.bodies)


def parts(data: bytes) -> None:
    """multipart/byteranges."""
    byteranges.parse_boundary("multipart/byteranges; " + text_of(data[:50]))
    reader = byteranges.MultipartReader("THIS", lambda *_: None)
    for at in range(0, len(data), 13):
        reader.feed(data[at : at + 13])


def coded(data: bytes) -> None:
    """The codings, one of them within another."""
    for codings in (("gzip",), ("deflate",), ("deflate", "gzip"), ("br",), ("zstd",)):
        with suppress(DissectError):
            assert len(coding.decode_body(data, codings, OUTPUT)) <= OUTPUT
    coding.parse_codings(text_of(data))


def checks(data: bytes) -> None:
    """A request to the update handler."""
    shown(UpdateCheck.decode(data, NAMES).to_json())


def answers(data: bytes) -> None:
    """Its answer."""
    shown(UpdateAnswer.decode(data, NAMES).to_json())


def lines(data: bytes) -> None:
    """Lines of text in any encoding."""
    for line in text_lines(data[at : at + 1000] for at in range(0, len(data), 1000)):
        assert "\n" not in line.text


def small_texts(data: bytes) -> None:
    """Header and field values: those that refuse do so with our error, the others take anything."""
    text = text_of(data)
    content_type.charset_of(text)
    normal_mac(text)
    mask_users(text)
    update_urls.classify(text)
    update_urls.is_external(text)
    for parse in (
        auth_header.parse,
        byteranges.parse_content_range,
        user_agent.UserAgent.parse,
        installed_module.InstalledModule.parse_list,
        installed_module.AnswerModule.parse_list,
        update_status.LastUpdateStatus.parse,
        update_urls.PackagePath.parse,
        version.Version.parse,
        LogName.parse,
        NAMES.extended,
    ):
        with suppress(DissectError):
            parse(text)


TARGETS: dict[str, Target] = {
    "cabinet, libmspack": Target(("cabinet", "source", "tables"), partial(open_cabinet, native=True), CABINETS),
    "cabinet, own decoders": Target(("cabinet",), partial(open_cabinet, native=False), CABINETS),
    "cabinets in files": Target(
        ("cabinet",), search_and_join, (self_extractor(*CABINETS[:2]), b"".join(CABINETS[3:])), (b"MSCF",)
    ),
    "certificates": Target(
        ("certificates",),
        certificates,
        (
            CERTIFICATE,
            signed_data("1.2.840.113549.1.7.1", None, [CERTIFICATE]),
            b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(CERTIFICATE) + b"-----END CERTIFICATE-----\n",
        ),
        (b"\x30\x80", b"\0\0", b"\x30\x84", b"\xa0", b"\x1f\xff"),
    ),
    "firmware": Target(
        ("firmware", "filetime", "file_digests"),
        firmware,
        (
            ROM,
            BinImage.build(BASE, len(ROM), [(BASE, ROM[:100]), (BASE + 100, ROM[100:])], BASE),
            control({1: (1, "x.exe")}, {1: (1,)}, {1: "%CE1%"}),
            pe_image(),
            pe_image(plus=True),
        ),
        (b"ECEC", b"B000FF\n", b"MSCF\0\0\0\0"),
    ),
    "update packages": Target(
        ("firmware",),
        package,
        (
            b"<U><DeviceType>UCPhone</DeviceType><Version>1.0.522.101</Version><UpdateType>CPE</UpdateType></U>",
            b"a/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE/CPE.nbt\nb.cat\n",
        ),
        XML_WORDS,
    ),
    "NTLM": Target(("ntlm",), tokens, MESSAGES, (b"NTLMSSP\0", b"\x60\x48\6\6+\6\1\5\5\2", b"\2\0\4\0")),
    "NTLM messages": Target(
        ("ntlm",),
        lambda data: shown(ntlm.parse(data).to_json()),
        MESSAGES,
    ),
    "DHCP options": Target(("dhcp_options",), dhcp, (b"\x2b" + VENDOR, b"\x78" + SIP_NAMES, b"\x77" + SIP_NAMES[1:])),
    "DHCP pastes": Target(
        ("dhcp_options",),
        lambda data: shown([one.to_json() for one in dhcp_options.read_paste(text_of(data)).options]),
        PASTE,
        (b"option 43 ", b"Option 120:", b" hex ", b"\n", b"Configure X ", b"0x", b"ip ", b"ext "),
    ),
    "DHCP messages": Target(
        ("dhcp_message",),
        lambda data: shown(DhcpMessage.parse(data).to_json()),
        (DHCP_MESSAGE,),
        (b"c\x82Sc", b"\x34\1\3"),
    ),
    "DNS": Target(
        ("dns_message",),
        lambda data: shown(dns_message.DnsMessage.parse(data).to_json()),
        (DNS,),
        (b"\xc0\x0c", b"\xc0"),
    ),
    "SIP": Target(
        ("sip", "sip_users", "user_agent", "auth_header"),
        sip_text,
        (SIP_TEXT,),
        (b"SIP/2.0", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"ms-diagnostics: ", b'"', b"<sip:"),
    ),
    "in-band settings": Target(("inband",), lambda data: shown(inband.parse(data).to_json()), (GROUPS,), XML_WORDS),
    "in-band dumps": Target(
        ("inband",),
        lambda data: shown(inband.parse_dump(text_of(data)).to_json()),
        (b"Group: a\nProperty[ updatesserverenabled ] = true\nProperty[x]=1\n",),
        (b"Property[", b"] = ", b"\n"),
    ),
    "audit logs": Target(
        ("audit_log", "installed_module", "mac_address"), rows, (AUDIT,), (b",", b";", b"#", b'"', b"\r\n")
    ),
    "IIS logs": Target(
        ("iis_log", "http_status", "redaction"), iis, (IIS,), (b"#Fields: ", b"#Date: ", b" ", b"+", b"\n")
    ),
    "update checks": Target(("update_check", "vocabulary", "xml_body", "frozen"), checks, (check_body(),), XML_WORDS),
    "update answers": Target(("update_check",), answers, (answer_body("http://x/y/", "1.0.522.103"),), XML_WORDS),
    "XML": Target(
        ("xml_body",),
        lambda data: XmlBody.decode(data).elements,
        (check_body(), check_body().decode().replace("utf-8", "utf-16").encode("utf-16"), GROUPS),
        (*XML_WORDS, b'encoding="utf-7"', b"\xff\xfe"),
    ),
    "HTTP/1": Target(("http1",), http, HTTP, (b"\r\n", b": ", b"Content-Length: ", b"chunked", b"HTTP/1.1 ", b"0\r\n")),
    "byte ranges": Target(("byteranges",), parts, (MULTIPART,), (b"--THIS", b"\r\n", b"Content-Range: bytes ")),
    "content codings": Target(
        ("coding", "brotli_zstd"),
        coded,
        (
            coding.encode_body(TEXT, ["gzip"]),
            coding.encode_body(bytes(1 << 22), ["deflate", "gzip"]),
            brotli.compress(TEXT + bytes(1 << 22)),
            zstandard.compress(TEXT + bytes(1 << 22)),
        ),
    ),
    "lines": Target(
        ("lines",), lines, (AUDIT, "Zeile\r\nzwei".encode("utf-16"), b"a\n" + bytes(300)), (b"\0\0\0\0", b"\n")
    ),
    "small texts": Target(
        ("content_type", "version", "update_urls", "update_status", "log_upload"),
        small_texts,
        SMALL_TEXTS,
        (b";", b",", b'"', b"=", b"/", b"\\", b" ", b"%2e%2e", b"0x", b"2009-"),
    ),
}

REAL = {
    "cabinet, libmspack": "payloads/cab/**/*.cab",
    "cabinet, own decoders": "payloads/cab/**/*.cab",
    "certificates": "der/*",
    "NTLM": "sip/*.bin",
    "NTLM messages": "sip/*.bin",
    "DHCP pastes": "dhcp/src-*",
    "SIP": "sip/*.txt",
    "IIS logs": "logs/*.log",
    "in-band dumps": "logs/ms-ucma*",
    "XML": "xml/*",
}
"""Where the corpus has seeds, where it is there."""
MAX_REAL = 4000


def seeds_of(name: str) -> tuple[bytes, ...]:
    """Those of the target, and small real files."""
    real = sorted(CORPUS.glob(REAL[name])) if name in REAL else []
    found = (path.read_bytes() for path in real if path.is_file() and path.stat().st_size <= MAX_REAL)
    return (*TARGETS[name].seeds, *found)
