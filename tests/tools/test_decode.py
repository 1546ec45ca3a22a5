"""The verb `decode` as its users call it."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import json
import os
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from captures.journal_file import JOURNAL
from captures.recording import Recording
from dissectors.cabinet import Cabinet, Compression, NewFolder, NewMember
from dissectors.cabinet.build import build_set
from dissectors.certificates.tlv import Tag, encode
from dissectors.firmware import BinImage
from dissectors.ntlm import Authenticate, Flags, Negotiate
from tests.bodies import answer_body, check_body
from tests.captures.test_journal import a_decision
from tests.captures.test_journal_file import add
from tests.conftest import require_tool
from tests.dissectors.cabinet.making import self_extractor
from tests.dissectors.certificates.building import Plan, integer, oid, sequence, tagged
from tests.dissectors.certificates.building import der as certificate_der
from tests.dissectors.firmware.building import BASE, rom_image
from tools.cli import main
from tools.decode.inputs import Content

Decode = Callable[..., tuple[int, list[dict[str, Any]]]]
TOKEN = Negotiate.parse(b"NTLMSSP\0\1\0\0\0\7\x82\x08\xa2" + bytes(16)).to_bytes()
TEXT = base64.b64encode(TOKEN).decode()
IIS = b"#Software: Microsoft Internet Information Services 7.5\r\n#Fields: date time c-ip cs-method sc-status\r\n"
AUDIT = (
    b"Logging DateTime,User Host Address,Device Type,Mac Address,Serial Number,Vendor,Model,Revision,Locale,"
    b"Request Modules,Response Modules,User Id\r\n"
    b"05/01/2009 10:00:00,10.1.1.1,UCPhone,00-04-F2-00-01-76,,Polycom,CX700,A,ENU,,,contoso\\secretuser\r\n"
)
SIP = b"SIP/2.0 403 Forbidden\r\nFrom: <sip:secretuser@contoso.com>;tag=1\r\nCSeq: 1 REGISTER\r\n\r\n"
HOSTILE = (
    "../../up.txt",
    "/abs.txt",
    "C:\\drive.txt",
    "..\\..\\back.txt",
    "con",
    "a\x1b[31mred.txt",
    "..",
    "up/../../x",
)


@pytest.fixture
def decode(capsys: pytest.CaptureFixture[str]) -> Decode:
    def run(*words: object) -> tuple[int, list[dict[str, Any]]]:
        code = main(["decode", "--json", *map(str, words)])
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def put(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def pem(label: str, octets: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(octets) + f"-----END {label}-----\n".encode()


def cabinet(*members: tuple[str, bytes]) -> bytes:
    return Cabinet.build([NewFolder([NewMember(name, data) for name, data in members])])


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("cab", cabinet(("a.txt", b"one"))),
        ("ntlm", TOKEN),
        ("ntlm", TEXT.encode()),
        ("ntlm", f"NTLM {TEXT}".encode()),
        ("ntlm", f"Authorization: NTLM {TEXT}\r\n".encode()),
        ("iis-log", IIS + b"2009-05-01 10:00:00 10.1.1.1 GET 200\r\n"),
        ("audit-log", AUDIT),
        ("sip", SIP),
        ("update-check", check_body()),
        ("update-check", check_body().decode().replace("utf-8", "utf-16").encode("utf-16")),
        ("update-answer", answer_body("http://x/y/", "1.0.522.103")),
        ("dhcp", b"Option 120:\r\n    0006736572766572046671646E07636F6D70616E7903636F6D00\r\n"),
        ("dhcp", b"0006736572766572046671646E07636F6D70616E7903636F6D00"),
        ("in-band", b"Property[ updatesserverenabled ] = true\n"),
    ],
)
def test_kind_is_told_by_content(decode: Decode, tmp_path: Path, kind: str, data: bytes) -> None:
    code, [record] = decode(put(tmp_path / "misleading.dat", data))
    assert (record["kind"], record["size"]) == (kind, len(data))
    assert code == bool(record["problems"])


@pytest.mark.parametrize("digits", ["010c4d532d55432d436c69656e7", "000673657276", "0600zz"])
def test_digits_are_not_taken_for_binary(decode: Decode, tmp_path: Path, digits: str) -> None:
    code, [record] = decode(put(tmp_path / "x", digits.encode()))
    assert (code, record["kind"]) == (1, "unknown")
    assert not any("certificates" in problem for problem in record["problems"])


LETTERS = {
    "windows-1251": "Телефон в переговорной комнате " * 12,
    "koi8-r": "Телефон в переговорной комнате " * 12,
    "iso-8859-5": "Телефон в переговорной комнате " * 12,
    "shift_jis": "会議室の電話機" * 20,
    "euc-jp": "会議室の電話機" * 20,
    "utf-32": "Telefon",
    "utf-32-le": "Telefon",
    "utf-32-be": "Телефон",
    "utf-16": "会議室の電話機",
}


@pytest.mark.parametrize("encoding", LETTERS)
def test_text_in_any_code_page_is_text(decode: Decode, tmp_path: Path, encoding: str) -> None:
    letters = f"<Name>{LETTERS[encoding]}</Name></"
    body = check_body().decode().replace("utf-8", encoding).replace("</", letters, 1).encode(encoding)
    assert decode(put(tmp_path / "x", body))[1][0]["kind"] == "update-check"
    lines = f"2009-05-01 10:00:00 10.1.1.1 GET 200\r\n# {LETTERS[encoding][:30]}\r\n" * 9
    log = (IIS.decode() + lines).encode(encoding)
    [record] = decode(put(tmp_path / "x", log))[1]
    assert (record["kind"], record["entries"]) == ("iis-log", 9)


def test_one_control_character_in_a_log_is_no_reason_to_refuse_it(decode: Decode, tmp_path: Path) -> None:
    lines = b"2009-05-01 10:00:00 10.1.1.1 GE\x1bT 200\r\n" + b"2009-05-01 10:00:00 10.1.1.1 GET 200\r\n" * 9
    [record] = decode(put(tmp_path / "x", IIS + lines))[1]
    assert (record["kind"], record["entries"]) == ("iis-log", 10)


def test_binary_files_are_no_text(decode: Decode, tmp_path: Path) -> None:
    # Padding of flash memory, with something printable behind it.
    for data in (b"\xff" * (1 << 16), b"\xff" * 4096 + b"B000FF" * 200, os.urandom(1000)):
        assert not Content.of("x", data, ("", "")).is_text
    words = sequence(encode(Tag(0, 12), b"words " * 300))
    assert decode(put(tmp_path / "x", words))[1][0]["kind"] == "der"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_log_without_entries_is_one(decode: Decode, tmp_path: Path, encoding: str) -> None:
    header = AUDIT.decode().splitlines()[0]
    for text in (header, f"\n{header}\r\n\r\n", f"sep=,\n{header}\n"):
        code, [record] = decode(put(tmp_path / "x", text.encode(encoding)))
        assert (code, record["kind"], record["row_count"], record["rows"]) == (0, "audit-log", 0, [])
    code, [record] = decode(put(tmp_path / "x", IIS.decode().encode(encoding)))
    assert (code, record["kind"], record["entries"]) == (0, "iis-log", 0)
    assert decode(put(tmp_path / "x", "\r\n \r\n".encode(encoding)))[1][0]["kind"] == "unknown"


def test_unknown_file_says_so(decode: Decode, tmp_path: Path) -> None:
    data = os.urandom(2000).replace(b"MSCF", b"----")
    code, [record] = decode(put(tmp_path / "x", b"\xff" + data))
    assert (code, record["kind"], len(record["sha256"])) == (1, "unknown", 64)
    assert record["entropy"] > 7
    assert record["head"] == (b"\xff" + data)[:32].hex()


def test_empty_file_is_unknown(decode: Decode, tmp_path: Path) -> None:
    code, [record] = decode(put(tmp_path / "x", b""))
    assert (code, record["kind"], record["entropy"]) == (1, "unknown", 0)


def test_missing_file_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["decode", str(tmp_path / "absent.cab")]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "absent.cab" in shown.err


def test_the_others_are_read_where_one_is_missing(decode: Decode, tmp_path: Path) -> None:
    code, [record] = decode(tmp_path / "absent", put(tmp_path / "x", TOKEN))
    assert (code, record["kind"]) == (2, "ntlm")


def test_a_recording(decode: Decode, tmp_path: Path) -> None:
    recording = Recording(tmp_path / "rec")
    add(recording, a_decision())
    recording.close()
    for name, kinds in ((".", ["xml", "xml"]), (JOURNAL, ["journal"])):
        code, records = decode(tmp_path / "rec" / name)
        assert (code, [record["kind"] for record in records]) == (0, kinds)


def test_standard_input_and_patterns(decode: Decode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(TOKEN)))
    assert decode("-")[1][0]["kind"] == "ntlm"
    put(tmp_path / "a.tok", TOKEN)
    put(tmp_path / "b.tok", TOKEN)
    assert len(decode(tmp_path / "*.tok")[1]) == 2
    assert len(decode(tmp_path)[1]) == 2
    assert decode(tmp_path / "*.none")[0] == 2


def test_users_are_shown_only_when_asked(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    iis = (
        IIS.replace(b"cs-method", b"cs-method cs-username") + b"2009-05-01 10:00:00 10.1.1.1 GET A\\secretuser 200\r\n"
    )
    audit = AUDIT.replace(b"User Id", b"User Id,User Name").replace(b"\\secretuser", b"\\secretuser,Old Secretuser")
    xml = b"<Foo><Version>1.0.0.0</Version><UserId>secretuser@contoso.com</UserId><User>secretuser</User></Foo>"
    token = Authenticate(Flags.NEGOTIATE_UNICODE, "CONTOSO", "secretuser").to_bytes()
    text = base64.b64encode(token)
    sip = SIP.replace(b"\r\n\r\n", b'\r\nAuthorization: NTLM gssapi-data="' + text + b'"\r\n\r\n')
    named = {"sip.txt": sip, "audit.log": audit, "iis.log": iis, "x.xml": xml, "token": token, "token.txt": text}
    paths = [str(put(tmp_path / name, data)) for name, data in named.items()]
    for form in ([], ["--json"]):
        main(["decode", *form, *paths])
        assert "secretuser" not in capsys.readouterr().out.lower()
        main(["decode", "--secrets", *form, *paths])
        assert capsys.readouterr().out.count("secretuser") >= len(paths) + 1  # SIP has it twice


def test_a_private_key_is_told_and_never_shown(decode: Decode, tmp_path: Path) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    secret = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    whole = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    for words in ((), ("--secrets",)):
        code, [record] = decode(put(tmp_path / "key.der", whole), *words)
        assert (code, record["kind"], record["algorithm"]) == (0, "private-key", "Ed25519")
        assert secret[:4].hex() not in json.dumps(record)
    # What is left of one is unknown, and its first bytes are most of the secret.
    for cut in (whole[:-1], base64.b64encode(whole[:-4]), base64.b64encode(whole[:-4]).decode().encode("utf-16")):
        code, [record] = decode(put(tmp_path / "key.der", cut))
        assert (code, record["kind"], record["head"]) == (1, "unknown", None)


def test_people_are_told_of_a_key_beside_a_certificate(
    decode: Decode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "pool.contoso.com")])
    start = datetime(2010, 1, 1, tzinfo=UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), 7, start, start + timedelta(9999))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    path = put(tmp_path / "both.pem", made.public_bytes(Encoding.PEM) + text)
    [record] = decode(path)[1]
    assert (record["kind"], len(record["private_keys"])) == ("certificate", 1)
    assert not any("key at" in problem for problem in record["problems"])
    main(["decode", str(path)])
    assert "key_format: SEC 1" in capsys.readouterr().out


def test_people_get_a_log_as_a_table(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = b"".join(b"2009-05-01 10:00:%02d 10.1.1.%d GET 404\r\n" % (at % 60, at) for at in range(250))
    main(["decode", str(put(tmp_path / "iis.log", IIS + lines))])
    shown = capsys.readouterr().out
    assert "Not Found" in shown
    assert sum(line.rstrip().endswith("Not Found") for line in shown.splitlines()) == 200
    assert "and 50 more" in shown


def test_people_get_nodes_as_a_tree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["decode", str(put(tmp_path / "x", b"\x30\x07\x02\x01\x05\xa1\x02\x05\0"))])
    shown = capsys.readouterr().out
    assert "     2   INTEGER, 1 bytes 05" in shown
    assert "     7     NULL, 0 bytes" in shown


def test_people_get_every_tree_of_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["decode", str(put(tmp_path / "x", pem("PUBLIC KEY", sequence(integer(5))) * 2))])
    assert capsys.readouterr().out.count("INTEGER, 1 bytes 05") == 2


def test_cabinet_behind_other_bytes_is_found(decode: Decode, tmp_path: Path) -> None:
    code, [record] = decode(put(tmp_path / "x", b"\xee" * 100 + cabinet(("a.txt", b"one"))))
    assert (code, record["kind"], record["offset"]) == (1, "cab", 100)


def test_damaged_cabinet_is_a_problem_with_its_place(decode: Decode, tmp_path: Path) -> None:
    code, [record] = decode(put(tmp_path / "x.cab", cabinet(("a.txt", b"one"))[:40]))
    assert (code, record["kind"]) == (1, "cab")
    assert "offset" in record["problems"][0]


def test_size_and_digests_are_the_file_s(decode: Decode, tmp_path: Path) -> None:
    inner = cabinet(("a.txt", b"one"))
    root = certificate_der(Plan("Contoso Root", "Contoso Root", ca=True))
    enveloped = sequence(oid("1.2.840.113549.1.7.3"), tagged(0, sequence(integer(0))))
    names = ["p1.cab", "p2.cab"]
    parts = build_set(NewFolder([NewMember("big.bin", os.urandom(50_000))]), 40_000, names)
    own: dict[str, tuple[bytes, dict[str, Any]]] = {
        "root.pem": (pem("CERTIFICATE", root), {"der_size": len(root), "der_sha1": hashlib.sha1(root).hexdigest()}),
        "root.der": (root, {"der_size": len(root), "der_sha256": hashlib.sha256(root).hexdigest()}),
        "enveloped.pem": (pem("PKCS7", enveloped), {"der_size": len(enveloped)}),
        "inside.bin": (b"\xee" * 100 + inner, {"cabinet_size": len(inner), "offset": 100}),
        "image.bin": (BinImage.build(0, 8, [(0, b"abcdefgh")], 1), {"kind": "firmware"}),
        "p1.cab": (parts[0], {"joined_in": None}),
        "p2.cab": (parts[1], {"joined_in": "p1.cab"}),
    }
    _code, records = decode(*(put(tmp_path / name, data) for name, (data, _told) in own.items()))
    assert len(records) == len(own)
    for record in records:
        data, told = own[Path(record["file"]).name]
        assert (record["size"], record["sha1"]) == (len(data), hashlib.sha1(data).hexdigest())
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        found = record | {"joined_in": record.get("joined_in") and Path(record["joined_in"]).name}
        assert {name: found[name] for name in told} == told


def test_set_given_together_is_joined(decode: Decode, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    names = ["p1.cab", "p2.cab", "p3.cab", "p4.cab"]
    parts = build_set(NewFolder([NewMember("big.bin", content)]), 40_000, names)
    paths = [put(tmp_path / name, part) for name, part in zip(names, parts, strict=False)]
    code, [whole, *others] = decode(*reversed(paths), "--extract", tmp_path / "out")
    assert (code, len(others)) == (0, len(parts) - 1)
    assert {other["joined_in"] for other in others} == {whole["file"]}
    assert next((tmp_path / "out").rglob("big.bin")).read_bytes() == content
    code, [lone] = decode(paths[1])
    assert (code, lone["members"][0].get("sha256")) == (1, None)


def test_member_inside_a_member_is_decoded_to_a_depth(decode: Decode, tmp_path: Path) -> None:
    data = TOKEN
    for _ in range(6):
        data = cabinet(("inner", data))
    record = decode(put(tmp_path / "x.cab", data), "--max-depth", 2)[1][0]
    depth = 0
    while "content" in record["members"][0]:
        record, depth = record["members"][0]["content"], depth + 1
    assert depth == 2


def test_budget_ends_a_bomb(decode: Decode, tmp_path: Path) -> None:
    code, [record] = decode(put(tmp_path / "x.cab", cabinet(("zeros", bytes(4 << 20)))), "--max-bytes", 1 << 20)
    assert code == 1
    assert "sha256" not in record["members"][0]


def test_extracted_names_stay_inside(decode: Decode, tmp_path: Path) -> None:
    path = put(tmp_path / "x.cab", cabinet(*((name, name.encode()) for name in HOSTILE)))
    out = tmp_path / "deep" / "out"
    code, [record] = decode(path, "--extract", out)
    assert code == 1  # such names are a problem
    found = {one for one in tmp_path.rglob("*") if one.is_file()} - {path}
    assert {one.read_bytes().decode() for one in found} == set(HOSTILE)
    for one in found:
        assert out in one.parents
        assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o700 for one in out.rglob("*") if one.is_dir())
    assert sorted(str(one.relative_to(out)) for one in found) == sorted(m["extracted"] for m in record["members"])


def test_links_in_the_folder_lead_nowhere(decode: Decode, tmp_path: Path) -> None:
    out, outside = tmp_path / "out", tmp_path / "outside"
    out.mkdir()
    outside.mkdir()
    (out / "dir").symlink_to(outside, target_is_directory=True)
    (out / "file").symlink_to(outside / "file")
    code, [record] = decode(put(tmp_path / "x.cab", cabinet(("dir\\a", b"1"), ("file", b"2"))), "--extract", out)
    assert code == 1
    assert len(record["problems"]) == 2
    assert not list(outside.iterdir())


def test_nothing_is_overwritten(decode: Decode, tmp_path: Path) -> None:
    path = put(tmp_path / "x.cab", cabinet(("a", b"new")))
    out = tmp_path / "out"
    out.mkdir()
    put(out / "a", b"old")
    assert decode(path, "--extract", out)[0] == 1
    assert [one.read_bytes() for one in out.iterdir()] == [b"old"]


def test_damaged_member_leaves_nothing(decode: Decode, tmp_path: Path) -> None:
    data = bytearray(cabinet(("a", os.urandom(200_000))))
    data[-100] ^= 0xFF
    assert decode(put(tmp_path / "x.cab", bytes(data)), "--extract", tmp_path / "out")[0] == 1
    assert not list((tmp_path / "out").iterdir())


def test_names_cannot_command_a_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = put(tmp_path / "x.cab", cabinet(("\x1b]0;evil\x07[red].txt", b"1")))
    main(["decode", str(path)])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red].txt" in shown


def test_folder_of_updates_is_a_package(decode: Decode, tmp_path: Path) -> None:
    folder = tmp_path / "UCPhone/Polycom/CX700/A/ENU/1.0.522.103/CPE"
    folder.mkdir(parents=True)
    put(folder / "CPE.nbt", b"B000FF")
    for given in (tmp_path, folder):
        record = decode(given)[1][0]
        assert (record["kind"], record["vendor"], record["version"]) == ("update-package", "Polycom", "1.0.522.103")


@pytest.mark.parametrize("words", [["--date", "May"], ["--max-bytes", "0"], ["--max-seconds", "nan"]])
def test_options_are_checked(decode: Decode, tmp_path: Path, words: list[str]) -> None:
    assert decode(put(tmp_path / "x", TOKEN), *words)[0] == 2


def test_images_are_taken_apart(decode: Decode, tmp_path: Path) -> None:
    files = {"a.txt": b"text", "..\\..\\up.txt": b"up", "packed.txt": b"shorter"}
    image = rom_image(("nk.exe",), files, stored={"packed.txt": 3})
    made = BinImage.build(BASE, len(image), [(BASE, image[:50]), (BASE + 50, image[50:])], BASE)
    out = tmp_path / "out"
    code, [record] = decode(put(tmp_path / "x.nbt", made), "--extract", out)
    assert (code, record["kind"]) == (0, "firmware")
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    memory = f"{BASE:08x}.nb0"
    assert found.pop(memory) == image
    assert sorted(found.values()) == [b"text", b"up"]
    bin_part, rom_part = record["parts"]
    assert bin_part["extracted"] == memory
    assert {one["name"]: one.get("extracted") in found for one in rom_part["files"]} == {
        "a.txt": True,
        "..\\..\\up.txt": True,
        "packed.txt": False,
    }


def test_an_image_of_gaps_is_no_bomb(decode: Decode, tmp_path: Path) -> None:
    made = BinImage.build(0, 1 << 31, [(4, b"abcd"), ((1 << 31) - 8, b"abcd")], 1)
    code, [record] = decode(put(tmp_path / "x", made), "--extract", tmp_path / "out")
    assert (code, not any((tmp_path / "out").iterdir())) == (1, True)
    assert "gaps" in record["problems"][0]


def test_a_file_system_without_links_is_written_to_all_the_same(
    decode: Decode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = put(tmp_path / "x.cab", cabinet(("a", b"new"), ("b", b"other")))
    out = tmp_path / "out"
    out.mkdir()
    put(out / "a", b"old")
    code, [record] = decode(path, "--extract", out)
    assert code == 1
    assert record["problems"] == ["a: not extracted: File exists"]
    assert {one.name: one.read_bytes() for one in out.iterdir()} == {"a": b"old", "b": b"other"}


@pytest.fixture(scope="module")
def signed_program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A self-extractor of two cabinets, signed as a whole by another's tool."""
    tool, openssl = require_tool("osslsigncode"), require_tool("openssl")
    folder = tmp_path_factory.mktemp("signed")
    first = Cabinet.build(
        [NewFolder.of({"CPE\\CPE.nbt": os.urandom(70_000), "readme.txt": b"text"}, Compression.MSZIP)]
    )
    put(folder / "plain.exe", self_extractor(first, cabinet(("second.txt", b"two"))))
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=Contoso Signing", "-days", "9"]
    subprocess.run(
        [openssl, *request, "-keyout", folder / "key.pem", "-out", folder / "one.pem"], check=True, capture_output=True
    )
    words = ["-h", "sha256", "-certs", "one.pem", "-key", "key.pem", "-in", "plain.exe", "-out", "signed.exe"]
    subprocess.run([tool, "sign", *words], check=True, capture_output=True, cwd=folder)
    return (folder / "signed.exe").read_bytes()


def test_a_signed_self_extractor_is_taken_apart(
    decode: Decode, tmp_path: Path, signed_program: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = put(tmp_path / "UCUpdates.exe", signed_program)
    code, [record] = decode(path, "--extract", tmp_path / "out")
    assert (code, record["kind"], record["problems"]) == (0, "cab", [])
    signature = record["container"]["signature"]
    assert (signature["signer"], signature["verified"]) == ("CN=Contoso Signing", True)
    [other] = record["more"]
    assert signed_program[other["offset"] :].startswith(b"MSCF")
    for whole, below in ((record, tmp_path / "out"), (other, tmp_path / "out")):
        for member in whole["members"]:
            assert hashlib.sha256((below / member["extracted"]).read_bytes()).hexdigest() == member["sha256"]
    assert [package["files"][0]["path"] for package in record["packages"]] == ["CPE/CPE.nbt"]
    main(["decode", str(path)])
    shown = capsys.readouterr().out
    assert "of a program for Windows GUI on x86" in shown
    assert "the program is signed by CN=Contoso Signing: verified" in shown


def test_a_changed_self_extractor_is_not_verified(decode: Decode, tmp_path: Path, signed_program: bytes) -> None:
    at = signed_program.index(b"PADDINGXX")
    changed = signed_program[:at] + b"p" + signed_program[at + 1 :]
    code, [record] = decode(put(tmp_path / "x.exe", changed))
    assert (code, record["container"]["signature"]["verified"]) == (1, False)
    assert "the program around it: signature: the file was changed" in record["problems"][0]
