"""The answer to an update check (protocol.md section 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dissectors.errors import DissectError, LimitExceeded
from dissectors.update_check.device import Device, device_fields, value
from dissectors.update_check.findings import Finding, Findings, Record, list_record, module_groups, record
from dissectors.update_urls import PackagePath
from dissectors.version import Version
from dissectors.vocabulary import DEVICE_FIELDS, MODULE_FIELDS, URL_FIELDS, Vocabulary
from dissectors.xml_body import Field, XmlBody

MAX_OFFERS = 256


@dataclass(frozen=True, slots=True)
class Offer:
    """An update a server offers. Blank URLs are a real case: the server's addresses were never set."""

    base_url: Field | None = None
    external_base_url: Field | None = None
    file: Field | None = None
    signature_file: Field | None = None
    version: Field | None = None
    timestamp: Field | None = None

    @property
    def empty(self) -> bool:
        """True where neither URL says anything."""
        return not value(self.base_url) and not value(self.external_base_url)

    @property
    def package(self) -> PackagePath | None:
        """What the URL says about the update; None where its layout is another."""
        for url in (value(self.base_url), value(self.external_base_url)):
            try:
                return PackagePath.parse(url or "")
            except DissectError:
                continue
        return None

    @property
    def offered_version(self) -> Version | None:
        """The version as the answer names it, or as the URL does."""
        try:
            return Version.parse(value(self.version) or "")
        except DissectError:
            return self.package.version if self.package else None

    def to_json(self) -> dict[str, Any]:
        """Plain values: the fields' texts, `empty`, `package` (the path, or null) and `offered_version`."""
        return {
            **{name: value(getattr(self, name)) for name in (*URL_FIELDS, *MODULE_FIELDS)},
            "empty": self.empty,
            "package": str(self.package) if self.package else None,
            "offered_version": str(self.offered_version) if self.offered_version else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateAnswer(Device):
    """A decoded answer, with the device's fields where it echoes them. An ambiguous field has no span."""

    source: XmlBody = field(repr=False)
    offers: tuple[Offer, ...]
    problems: tuple[str, ...]

    @classmethod
    def decode(cls, body: bytes, vocabulary: Vocabulary, charset: str | None = None) -> UpdateAnswer:
        """Read an answer's body; `charset` is that of its Content-Type.

        Well-formed XML without known names has no offers. Raises `DissectError` for XML with a document type
        declaration, broken XML and XML over the limits.
        """
        source = XmlBody.decode(body, charset)
        found = Findings.of(source, vocabulary)
        device = device_fields(found)
        offers = _offers(found)
        return cls(**device, source=source, offers=offers, problems=tuple(found.problems))

    @property
    def is_offer(self) -> bool:
        """True where at least one offer has an address to fetch it from."""
        return any(not offer.empty for offer in self.offers)

    def replace(self, new: Mapping[Field, str]) -> bytes:
        """The body with new values for fields; every other byte stays. Raises `DissectError`."""
        return self.source.replace(new)

    def with_offer(
        self,
        *,
        base_url: str | None = None,
        external_base_url: str | None = None,
        version: str | Version | None = None,
        file: str | None = None,
        signature_file: str | None = None,
        timestamp: str | None = None,
    ) -> bytes:
        """The body with its one offer changed; what is None stays.

        Raises `DissectError` where the answer has no editable URL, where it has no place for a value (which is named),
        and where several offers leave it open which one is meant.
        """
        if not any(url and url.span for offer in self.offers for url in (offer.base_url, offer.external_base_url)):
            raise DissectError(0, "an answer with an editable BaseURL or ExternalBaseURL", "none")
        wanted = {
            "base_url": base_url,
            "external_base_url": external_base_url,
            "version": version,
            "file": file,
            "signature_file": signature_file,
            "timestamp": timestamp,
        }
        new: dict[Field, str] = {}
        for name, text in wanted.items():
            if text is None:
                continue
            # Of several offers all must share it: in one of them alone it may be another module's.
            places = {getattr(offer, name) for offer in self.offers}
            found = places - {None}
            if len(found) != 1 or len(places) != 1:
                raise DissectError(0, f"one place for {name} in the answer", _count(found, places))
            new[found.pop()] = str(text)
        return self.replace(new)

    def to_json(self, secrets: bool = False) -> dict[str, Any]:
        """Plain values, the fact `update-answer`; the user's name only with `secrets`."""
        return {
            "fact": "update-answer",
            **Device.to_json(self, secrets),
            "is_offer": self.is_offer,
            "offers": [offer.to_json() for offer in self.offers],
            "encoding": self.source.encoding,
            "problems": list(self.problems),
        }


def _count(found: set[Field], places: set[Field | None]) -> str:
    """How many places there are."""
    return "that of one offer of several" if len(found) == 1 and len(places) > 1 else str(len(found) or "none")


def _offers(found: Findings) -> tuple[Offer, ...]:
    urls = _url_units(found)
    modules = _offered_modules(found, urls)
    if len(modules) + len(urls) > MAX_OFFERS:
        raise LimitExceeded(0, f"at most {MAX_OFFERS} offers", "more")
    holders = _holders(found, urls)
    offers: list[Offer] = []
    used: set[int] = set()
    for group, module in modules:
        unit = _nearest(found, group, urls, holders)
        if unit is None:
            offers.append(Offer(**module))
        else:
            used.add(unit)
            offers.append(Offer(**urls[unit], **module))
    offers.extend(Offer(**unit) for group, unit in urls.items() if group not in used)
    return tuple(offers)


def _offered_modules(found: Findings, urls: dict[int, Record]) -> list[tuple[int, Record]]:
    """What an answer says about modules, by the element it describes."""
    of_devices = {finding.group for finding in found.single if finding.kind in DEVICE_FIELDS} - urls.keys()
    modules: list[tuple[int, Record]] = []
    for group, findings in module_groups(found).items():
        one = record(found, findings, MODULE_FIELDS)
        if one.keys() & {"file", "signature_file"} or (urls and "version" in one) or group in urls:
            lone = one.keys().isdisjoint({"file", "signature_file"})
            if not (lone and group in of_devices):  # a version beside a device's names is the one it runs
                modules.append((group, one))
    kinds = [kind for _, one in modules for kind in one]
    if len(urls) == 1 and len(modules) > 1 and len(kinds) == len(set(kinds)):
        # One offer with its parts in different elements.
        modules = [(modules[0][0], {kind: one for _, part in modules for kind, one in part.items()})]
    for group, parts in found.lists:
        listed = list_record(found, parts, MODULE_FIELDS)
        if listed is not None:
            modules.append((group, listed))
    return modules


def _url_units(found: Findings) -> dict[int, Record]:
    """The URLs that belong to one offer, by the element they describe."""
    by_group: dict[int, list[Finding]] = {}
    for finding in found.single:
        if finding.kind in URL_FIELDS:
            by_group.setdefault(finding.group, []).append(finding)
    everything = [finding for findings in by_group.values() for finding in findings]
    if len({finding.kind for finding in everything}) == len(everything) > 0:
        by_group = {everything[0].group: everything}  # one of each at most, wherever they stand
    return {group: record(found, findings, URL_FIELDS) for group, findings in by_group.items()}


def _holders(found: Findings, urls: dict[int, Record]) -> dict[int, int | None]:
    """For each element around URLs the unit of URLs within, None where it is not one alone."""
    holders: dict[int, int | None] = {}
    for unit in urls:
        for outer in found.ancestors(unit):
            holders[outer] = None if outer in holders else unit
    return holders


def _nearest(found: Findings, group: int, urls: dict[int, Record], holders: dict[int, int | None]) -> int | None:
    """The unit of URLs a module belongs to: the one within the closest element around both."""
    if len(urls) == 1:
        return next(iter(urls))
    for outer in found.ancestors(group):
        if outer in urls:
            return outer
        if outer in holders:
            if holders[outer] is None:
                found.problem("which URL belongs to which module cannot be told")
            return holders[outer]
    return None
