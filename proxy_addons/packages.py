"""The files of a waypoint: where they are kept, and what they must look like before a phone is sent to them.

The layout is documented (protocol.md section 2.2), the files' names are not: an image and its catalog are taken to be
named like the update type, `CPE.nbt` and `CPE.cat`, unless a rule names them. How large they are is not documented
either; the bounds are wide, and there to tell firmware from an error page or a file cut short.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote

from dissectors.update_urls import PackagePath, path_of
from dissectors.version import Version
from proxy_addons.phone import UpgradePath
from proxy_addons.rules import Rule

IMAGE_SIZES = range(64 << 10, (1 << 30) + 1)  # bytes
CATALOG_SIZES = range(100, (1 << 20) + 1)


@dataclass(frozen=True, slots=True)
class PackageFiles:
    """An image and its catalog, by the path of the folder they are in, as it stands in a URL."""

    folder: str
    image: str
    catalog: str

    def targets(self) -> tuple[tuple[str, range], ...]:
        """What to ask for, and the sizes that are plausible."""
        return tuple(
            (f"{self.folder}/{quote(name, safe='')}", sizes)
            for name, sizes in ((self.image, IMAGE_SIZES), (self.catalog, CATALOG_SIZES))
        )


def package_path(path: UpgradePath, version: Version, *, external: bool) -> PackagePath:
    """Where the documented layout keeps a version."""
    root = "DeviceUpdateFiles_Ext" if external else "DeviceUpdateFiles_Int"
    return PackagePath(
        root, path.device_type, path.vendor, path.model, path.revision, path.locale, version, path.update_type
    )


def package_url(path: UpgradePath, version: Version, authority: str, *, external: bool) -> str:
    """The same as a URL on the given host."""
    return f"{'https' if external else 'http'}://{authority}{package_path(path, version, external=external)}"


def files_of_rules(rules: Iterable[Rule]) -> Iterator[PackageFiles]:
    """The files that phones inside the firewall may be sent to."""
    for rule in rules:
        if rule.checks_files and rule.path is not None:
            offered = rule.offer.version if rule.offer is not None else None
            for version in (offered,) if offered is not None else rule.path.waypoints:
                files = files_of(rule, version, external=False)
                if files is not None:
                    yield files


def files_of(rule: Rule, version: Version, *, external: bool) -> PackageFiles | None:
    """The files a phone would fetch if it were offered a version; None for a rule without a path."""
    path, offer = rule.path, rule.offer
    if path is None:
        return None
    named = (offer.external_base_url if external else offer.base_url) if offer is not None else None
    folder = quote(unquote(path_of(named)), safe="/") if named else str(package_path(path, version, external=external))
    image = (offer.file if offer is not None else None) or f"{path.update_type}.nbt"
    catalog = (offer.signature_file if offer is not None else None) or f"{image.rpartition('.')[0] or image}.cat"
    return PackageFiles(folder.rstrip("/"), image, catalog)
