from __future__ import annotations

import contextlib
from dataclasses import fields
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.installed_module import NOTHING_INSTALLED
from dissectors.update_check import Device, ReportedModule, UpdateCheck
from dissectors.version import ZERO, Version
from dissectors.vocabulary import DEVICE_FIELDS, Vocabulary
from dissectors.xml_body import Field, Place
from tests.dissectors.update_check.shapes import DEVICES, ENCODINGS, MODULES, SHAPES, TEXT, VERSIONS, Shape, request

VOCABULARY = Vocabulary.default()
DEVICE = {
    "device_type": "UCPhone",
    "mac": "00-04-F2-00-01-76",
    "serial": "07823-A345",
    "vendor": "Polycom",
    "model": "CX700",
    "revision": "A",
    "locale": "ENU",
    "user": "contoso\\anna",
    "last_update_status": "0x0;200",
}
MODULE = {"file": "cpe.nbt", "version": "1.0.522.73", "timestamp": "13-04-2008 10:00:00"}


def test_checks_are_made_of_their_fields_in_order() -> None:
    assert [field.name for field in fields(Device)] == list(DEVICE_FIELDS)
    assert [field.name for field in fields(UpdateCheck)] == [*DEVICE_FIELDS, "source", "modules", "problems"]
    assert [field.name for field in fields(ReportedModule)] == ["file_name", "version", "timestamp"]


def decode(body: bytes, charset: str | None = None) -> UpdateCheck:
    return UpdateCheck.decode(body, VOCABULARY, charset)


def fields_of(check: UpdateCheck) -> list[Field]:
    found = [getattr(check, name) for name in DEVICE_FIELDS]
    for module in check.modules:
        found += (module.file_name, module.version, module.timestamp)
    return [field for field in found if field is not None]


def device_values(check: UpdateCheck) -> dict[str, str]:
    return {name: getattr(check, name).value for name in DEVICE_FIELDS if getattr(check, name) is not None}


def assert_only_spans_changed(old: bytes, new: bytes, changed: list[Field]) -> None:
    """Every stretch of bytes between two changed spans is in the new body, in order, and nothing else is around."""
    spans = sorted(field.span for field in changed if field.span)
    at = 0
    for (start, _), before in zip(spans, [0, *(end for _, end in spans)], strict=False):
        kept = old[before:start]
        at = new.index(kept, at) if at else (0 if new.startswith(kept) else -1)
        assert at >= 0
        at += len(kept)
    assert new.endswith(old[spans[-1][1] :])
    assert len(new) - at >= len(old) - spans[-1][1]


@given(SHAPES, DEVICES, MODULES)
def test_all_values_are_found_in_every_shape(
    shape: Shape, device: dict[str, str], modules: list[dict[str, str]]
) -> None:
    check = decode(request(shape, device, modules))
    assert device_values(check) == device
    assert [
        {
            "file": str(m.file_name and m.file_name.value),
            "version": str(m.installed.version),
            "timestamp": m.installed.timestamp,
        }
        for m in check.modules
    ] == modules
    assert check.mac_address == "00:04:f2:00:01:76"
    assert all(field.span is not None for field in fields_of(check))


@given(SHAPES, DEVICES, MODULES)
def test_an_edit_with_the_same_values_is_the_identity(
    shape: Shape, device: dict[str, str], modules: list[dict[str, str]]
) -> None:
    body = request(shape, device, modules)
    check = decode(body)
    assert check.replace({field: field.value for field in fields_of(check)}) == body
    one = check.modules[0]
    assert one.installed.version is not None
    assert (
        check.with_reported(one.installed.version, one.installed.timestamp, file_name=one.installed.file_name) == body
    )


@given(SHAPES, DEVICES, MODULES, VERSIONS)
def test_the_reported_version_is_read_again_and_nothing_else_changes(
    shape: Shape, device: dict[str, str], modules: list[dict[str, str]], version: Version
) -> None:
    body = request(shape, device, modules)
    check = decode(body)
    for index, module in enumerate(modules):
        new = check.with_reported(version, "13-04-2009 00:00:00", file_name=module["file"])
        again = decode(new)
        assert device_values(again) == device
        assert again.modules[index].installed.version == version
        assert again.modules[index].installed.timestamp == "13-04-2009 00:00:00"
        others = [one.installed for at, one in enumerate(again.modules) if at != index]
        assert others == [one.installed for at, one in enumerate(check.modules) if at != index]
        old = check.modules[index]
        assert old.version
        assert old.timestamp
        assert_only_spans_changed(body, new, [old.version, old.timestamp])


@given(SHAPES, DEVICES, MODULES, st.data())
def test_any_text_put_into_any_field_is_read_again(
    shape: Shape, device: dict[str, str], modules: list[dict[str, str]], data: st.DataObject
) -> None:
    body = request(shape, device, modules)
    check = decode(body)
    versions = [module.version for module in check.modules]
    field = data.draw(st.sampled_from([one for one in fields_of(check) if one not in versions]))
    text = data.draw(TEXT)
    try:
        new = check.replace({field: text})
    except DissectError:
        # A CDATA section has no way to write what the encoding lacks.
        assert field.place is Place.CDATA
        return
    assert field.span is not None
    assert new[: field.span.start] == body[: field.span.start]
    assert new[len(new) - len(body) + field.span.end :] == body[field.span.end :]
    assert [one.value for one in fields_of(decode(new))] == [
        text if one == field else one.value for one in fields_of(check)
    ]


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_the_field_story_in_every_encoding(encoding: str) -> None:
    check = decode(request(Shape(encoding=encoding), DEVICE, [MODULE]))
    again = decode(check.with_reported(ZERO, NOTHING_INSTALLED.timestamp))
    assert again.modules[0].installed.nothing_installed
    assert again.modules[0].installed.file_name == "cpe.nbt"
    assert device_values(again) == DEVICE
    assert check.problems == (
        ("the XML declaration says utf-16, the bytes are 8-bit text",) if encoding == "a lie" else ()
    )


def test_json_hides_the_user() -> None:
    check = decode(request(Shape(), DEVICE, [MODULE]))
    facts = check.to_json()
    assert facts["fact"] == "update-check"
    assert facts["user"] == "<redacted>"
    assert "anna" not in str(facts)
    assert check.to_json(secrets=True)["user"] == "contoso\\anna"
    assert facts["update_status"]["http_status"] == 200
    assert facts["modules"] == [
        {**MODULE, "when": "2008-04-13T10:00:00", "nothing_installed": False},
    ]
    assert facts["encoding"] == "utf-8"
    assert "anna" not in repr(check.to_json())


def test_a_report_without_a_file_name() -> None:
    check = decode(b"<R><!-- synthetic --><Model>CX700</Model><Module>0.0.0.0;01-01-1601 00:00:00</Module></R>")
    assert [module.installed for module in check.modules] == [NOTHING_INSTALLED]
    assert b"<Module>1.0.522.103;01-01-1601 00:00:00</Module>" in check.with_reported(Version(1, 0, 522, 103))


def test_a_blank_version_can_be_filled() -> None:
    check = decode(b'<R Model="CX700"><!-- synthetic --><Module FileName="a.nbt" Version=""/></R>')
    assert check.modules[0].installed.version is None
    assert b'Version="1.0.522.73"' in check.with_reported(Version(1, 0, 522, 73))


def test_values_in_other_elements_of_one_module_belong_together() -> None:
    body = (
        b"<R Model='CX700' timestamp='sent now'><!-- synthetic --><Module><Info><Name>x</Name><File>a.nbt</File></Info>"
        b"<State><Version Timestamp='t'>1.0.522.73</Version></State></Module></R>"
    )
    installed = decode(body).modules[0].installed
    assert (installed.version, installed.timestamp) == (Version(1, 0, 522, 73), "t")


def test_flat_bodies_have_one_module() -> None:
    body = b"<R><!-- synthetic --><Model>CX700</Model><FileName>a</FileName><FWVersion>1.0.522.73</FWVersion></R>"
    (module,) = decode(body).modules
    assert (module.installed.file_name, module.installed.version) == ("a", Version(1, 0, 522, 73))


@pytest.mark.parametrize("version", ["1.0", "2", "1.0.0.0"])
def test_a_protocol_version_is_not_an_installed_one(version: str) -> None:
    body = request(Shape(), DEVICE, [MODULE]).replace(b"<Request>", b'<Request version="%s">' % version.encode())
    check = decode(body)
    assert [str(module.installed.version) for module in check.modules] == ["1.0.522.73"]
    assert b'<Request version="%s">' % version.encode() in check.with_reported(ZERO)


def test_duplicates_are_named_and_left_alone() -> None:
    body = (
        b"<R><!-- synthetic --><Model>CX700</Model><Phone><Model>cx700 </Model></Phone><SerialNumber>1</SerialNumber>"
        b"<MAC/><MAC>0004F2000176</MAC><MacAddress>00-04-f2-00-01-76</MacAddress>"
        b"<Module Version='1.0.522.73' FileVersion='1.0.522.73'/></R>"
    )
    check = decode(body)
    assert check.model
    assert check.mac_address == "00:04:f2:00:01:76"
    assert (check.model.value, check.model.span) == ("CX700", None)
    assert [problem.partition(" (")[0] for problem in check.problems] == [
        "mac is there 3 times",
        "model is there 2 times",
        "version is there 2 times",
    ]
    with pytest.raises(DissectError):
        check.replace({check.model: "CX500"})
    with pytest.raises(DissectError):
        check.with_reported(ZERO)


TOLD_ONCE = ("DeviceType", "MAC", "SerialNumber", "Vendor", "Model", "Revision", "Locale", "UserID")


@pytest.mark.parametrize("kind", TOLD_ONCE)
def test_what_is_told_twice_and_not_alike_is_not_believed(kind: str) -> None:
    one, other = ("0004F2000176", "0004F2000199") if kind == "MAC" else ("one", "other")
    twice = f"<{kind}>{one}</{kind}><Paired><{kind}>{other}</{kind}></Paired>"
    model = "<Model>CX700</Model>" if kind in {"Revision", "Locale", "UserID"} else ""
    check = decode(f"<R><!-- synthetic -->{model}{twice}<Firmware>1.2.3.4</Firmware></R>".encode())
    assert told(check) == ({"model": "CX700"} if model else {}) | {"modules": ["1.2.3.4"]}
    assert any("none of them is believed" in problem for problem in check.problems)
    assert not any("other" in problem for problem in check.problems), "who signs in is not for a message"


def told(check: UpdateCheck) -> dict[str, object]:
    """What a check tells."""
    shown = check.to_json(secrets=True)
    known = {name: shown[name] for name in (*DEVICE_FIELDS, "mac_address") if shown[name] is not None}
    return known | {"modules": [module["version"] for module in shown["modules"]]}


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ("<FirmwareVersion>1.0.522.73</FirmwareVersion><Bootloader><Version>1.0.0.1</Version></Bootloader>", 2),
        ("<Firmware>1.0.522.73</Firmware><Bootloader Version='1.0.0.1'/>", 2),
        ("<Version>2.0.0.0</Version><Modules><Module Version='1.0.522.73'/></Modules>", 1),
    ],
)
def test_a_version_that_says_what_it_is_of_is_not_the_protocols(versions: str, found: int) -> None:
    check = decode(f"<R Model='CX700' Revision='A'><!-- synthetic -->{versions}</R>".encode())
    assert len(check.modules) == found
    if found > 1:
        with pytest.raises(DissectError, match="one module"):
            check.with_reported(ZERO)


def test_a_version_alone_in_the_tag_of_the_document_is_that_of_the_document() -> None:
    inside = b"<!-- synthetic --><Model>CX700</Model><Revision>A</Revision></Check>"
    check = decode(b'<Check Version="1.0.0.0">' + inside)
    assert check.modules == ()
    assert check.problems == ("version '1.0.0.0' is taken for that of the document",)
    both = decode(b'<Check Version="1.0.522.73" MAC="0004F2000176">' + inside)
    assert b'Version="0.0.0.0" MAC' in both.with_reported(ZERO)


def test_the_module_has_to_be_told_among_several() -> None:
    check = decode(request(Shape(), DEVICE, [MODULE, {**MODULE, "file": "other.nbt"}]))
    with pytest.raises(DissectError, match="one module"):
        check.with_reported(ZERO)
    with pytest.raises(DissectError, match=r"one module nothing\.nbt"):
        check.with_reported(ZERO, file_name="nothing.nbt")
    assert decode(check.with_reported(ZERO, file_name="OTHER.nbt")).modules[1].installed.version == ZERO


def test_a_missing_timestamp_is_not_invented() -> None:
    check = decode(b"<R Model='CX700'><!-- synthetic --><Module Name='a' Version='1.0.522.73'/></R>")
    with pytest.raises(DissectError, match="timestamp"):
        check.with_reported(ZERO, "01-01-1601 00:00:00")
    assert b"Version='0.0.0.0'" in check.with_reported(ZERO)


def test_a_profile_makes_unknown_names_known() -> None:
    body = b"<R><!-- synthetic --><Geraet>CX700</Geraet><Stand>1.0.522.73</Stand></R>"
    with pytest.raises(DissectError, match="an update check"):
        decode(body)
    profile = VOCABULARY.extended("[aliases]\nmodel = ['Geraet']\nversion = ['Stand']\n")
    assert UpdateCheck.decode(body, profile).modules[0].installed.version == Version(1, 0, 522, 73)


NO_CHECKS = {
    "a log upload": b"MZ\x90\x00 this is a dump",
    "nothing": b"",
    "other XML": b"<log><!-- synthetic --><entry>x</entry></log>",
    "one name is not enough": b"<R><!-- synthetic --><Model>CX700</Model></R>",
    "no device": b"<R><!-- synthetic --><User>anna</User><Version>1.0.522.73</Version></R>",
    "blank names": b"<R><!-- synthetic --><Model/><Vendor></Vendor><Version>1.0.522.73</Version></R>",
    "a component's manifest": (
        b'<assembly xmlns="urn:schemas-microsoft-com:asm.v3"><!-- synthetic --><driver vendor="Contoso" '
        b'model="x" serial="1"/><assemblyIdentity name="y" version="6.0.1.2" language="neutral"/></assembly>'
    ),
    "a document type": b"<!DOCTYPE r><R><!-- synthetic --><Model>CX700</Model><Serial>1</Serial></R>",
    "too many names": b"<R>" + b"<Model>x</Model>" * 3000 + b"</R>",
}


def test_a_phone_that_tells_neither_address_nor_serial_number_has_a_place_for_them() -> None:
    body = b"<R><!-- synthetic --><MACAddress/><SerialNumber></SerialNumber><Version>1.0.522.73</Version></R>"
    check = decode(body)
    assert check.mac is not None
    assert (check.mac.value, check.mac_address) == ("", None)
    assert check.modules[0].installed.version == Version(1, 0, 522, 73)


@pytest.mark.parametrize("body", NO_CHECKS.values(), ids=NO_CHECKS)
def test_what_is_no_update_check_is_refused(body: bytes) -> None:
    with pytest.raises(DissectError):
        decode(body)


def test_charsets_of_the_header_are_believed_where_nothing_is_declared() -> None:
    body = "<R><!-- synthetic --><Model>CX700</Model><User>Jürgen</User></R>".encode("cp1252")
    told, guessed = decode(body, "windows-1252"), decode(body)
    assert told.user == guessed.user
    assert told.user
    assert told.user.value == "Jürgen"
    assert told.problems == ()
    assert "not to be trusted" in guessed.problems[0]
    assert guessed.replace({told.user: "é"}) == body.replace(b"J\xfcrgen", b"&#233;")


def test_damaged_bodies_are_decoded_or_refused() -> None:
    random = Random(20080722)
    bodies = [
        request(Shape(encoding=encoding, module=module), DEVICE, [MODULE, {**MODULE, "file": "b"}])
        for encoding in sorted(ENCODINGS)
        for module in ("elements", "text")
    ]
    decoded = 0
    for _ in range(3000):
        body = bytearray(random.choice(bodies))
        for _ in range(random.randrange(1, 4)):
            at = random.randrange(len(body))
            body[at : at + random.randrange(3)] = random.choice(
                [b"", b"<", b"&", b"\x00", b"'", b"]]>", b"\xff", b";", b"/>"]
            )
        with contextlib.suppress(DissectError):
            check = decode(bytes(body))
            assert check.to_json()
            with contextlib.suppress(DissectError):
                decode(check.with_reported(ZERO, file_name="b"))
            decoded += 1
    assert decoded > 100


def test_foreign_and_hostile_xml_is_no_update_check(corpus: Path) -> None:
    for path in sorted((corpus / "xml").iterdir()):
        with pytest.raises(DissectError):
            decode(path.read_bytes())
