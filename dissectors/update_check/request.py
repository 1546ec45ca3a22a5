"""The update check a phone sends (protocol.md section 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dissectors.errors import DissectError
from dissectors.frozen import constructor
from dissectors.installed_module import InstalledModule
from dissectors.mac_address import normal_mac
from dissectors.update_check import layouts
from dissectors.update_check.device import Device, device_fields, value
from dissectors.update_check.findings import Findings, Record, list_record, module_groups, note, record
from dissectors.version import Version
from dissectors.vocabulary import DEVICE_FIELDS, Vocabulary
from dissectors.xml_body import Field, XmlBody

_IDENTITY = ("device_type", "vendor", "model")
_EVEN_BLANK = ("mac", "serial")
_MANIFEST = "urn:schemas-microsoft-com:asm."
_LIST_KINDS = ("file", "version", "timestamp")


@dataclass(frozen=True, slots=True)
class ReportedModule:
    """A module the phone says is installed."""

    file_name: Field | None = None
    version: Field | None = None
    timestamp: Field | None = None

    @property
    def installed(self) -> InstalledModule:
        """The values; blank ones are None."""
        version = Version.parse(self.version.value) if self.version and self.version.value else None
        return InstalledModule(value(self.file_name) or None, version, value(self.timestamp) or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateCheck(Device):
    """A decoded update check. `problems` names what was ambiguous; an ambiguous field has no span."""

    source: XmlBody = field(repr=False)
    modules: tuple[ReportedModule, ...]
    problems: tuple[str, ...]

    @classmethod
    def decode(cls, body: bytes, vocabulary: Vocabulary, charset: str | None = None) -> UpdateCheck:
        """Read a request body; `charset` is that of its Content-Type.

        An update check tells at least the device type, vendor or model, or has a place for MAC address or serial number
        (both may be blank, protocol.md section 1.1), and names one more known value. Anything else (a log upload, a
        manifest of a Windows component) raises `DissectError`, as do XML with a document type declaration, broken XML
        and XML over the limits.
        """
        source = XmlBody.decode(body, charset)
        _refuse_manifest(source)
        found = layouts.known(source, vocabulary)
        if found is None:
            searched = Findings.of(source, vocabulary)
            device, modules = device_fields(searched), _modules(searched)
            told = any(name in _EVEN_BLANK or (name in _IDENTITY and one.value) for name, one in device.items())
            told = told or not searched.contradicted.isdisjoint((*_EVEN_BLANK, *_IDENTITY))
            if not told or len(device) + len(searched.contradicted) + len(modules) < 2:
                known = ", ".join(device) or "none"
                raise DissectError(0, "an update check: names of a device and of what it runs", f"known names: {known}")
            layouts.learn(searched, vocabulary, device, modules)
            problems = searched.problems
        else:
            device, modules = found
            problems = list(source.problems)
        mac = device.get("mac")
        if mac and mac.value and normal_mac(mac.value) is None:
            note(problems, f"MAC address {mac.value[:40]!r} cannot be read")
        reported = [_module_of(one.get("file"), one.get("version"), one.get("timestamp")) for one in modules]
        told_of = [device.get(name) for name in DEVICE_FIELDS]  # which are the fields of `Device`, in their order
        return _check_of(*told_of, source, tuple(reported), tuple(problems))

    def replace(self, new: Mapping[Field, str]) -> bytes:
        """The body with new values for fields; every other byte stays. Raises `DissectError`."""
        return self.source.replace(new)

    def with_reported(self, version: Version, timestamp: str | None = None, *, file_name: str | None = None) -> bytes:
        """The body reporting another version (and timestamp, where given) for its module.

        `file_name` selects one of several modules. Raises `DissectError` where there is no such module or more than
        one, and where a value has no editable place.
        """
        chosen = [
            module
            for module in self.modules
            if file_name is None or (value(module.file_name) or "").casefold() == file_name.casefold()
        ]
        if len(chosen) != 1:
            which = "one module" if file_name is None else f"one module {file_name}"
            raise DissectError(0, f"{which} in the update check", str(len(chosen)))
        new: dict[Field, str] = {}
        for name, one, text in (
            ("version", chosen[0].version, str(version)),
            ("timestamp", chosen[0].timestamp, timestamp),
        ):
            if text is None:
                continue
            if one is None:
                raise DissectError(0, f"a {name} of the module", "none")
            new[one] = text
        return self.replace(new)

    def to_json(self, secrets: bool = False) -> dict[str, Any]:
        """Plain values, the fact `update-check`; the user's name only with `secrets`."""
        return {
            "fact": "update-check",
            **Device.to_json(self, secrets),
            "modules": [module.installed.to_json() for module in self.modules],
            "encoding": self.source.encoding,
            "problems": list(self.problems),
        }


_module_of, _check_of = constructor(ReportedModule), constructor(UpdateCheck)


def _refuse_manifest(source: XmlBody) -> None:
    """A manifest has names that a phone's request may have too, but says itself what it is."""
    for name, raw in source.elements[0].attributes if source.elements else ():
        if name.partition(":")[0] == "xmlns" and raw.value.startswith(_MANIFEST):
            raise DissectError(0, "an update check", "the manifest of a Windows component")


def _modules(found: Findings) -> list[Record]:
    records: list[Record] = []
    for findings in module_groups(found).values():
        one = record(found, findings, _LIST_KINDS)
        if "version" in one or "file" in one:
            records.append(one)
    for _, parts in found.lists:
        listed = list_record(found, parts, _LIST_KINDS)
        if listed is not None:
            records.append(listed)
    if len(records) == 2 and records[0].keys().isdisjoint(records[1].keys()):
        return [records[0] | records[1]]  # one file name and one version, in different elements
    return records
