"""The update service itself, without a socket: a check in, offers out, one audit row for each."""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from dissectors.installed_module import InstalledModule
from dissectors.update_urls import PackagePath
from dissectors.version import ZERO, Version
from tools.update_server.field_story import FieldStory, story_for
from tools.update_server.packages import Package, package_folder
from tools.update_server.rules import DeviceKey, Rule, RuleBook


class Layout(enum.Enum):
    """Which virtual directories the offered URLs name; both are served (protocol.md section 2.2)."""

    R2 = "r2"
    LYNC = "lync"

    @property
    def roots(self) -> tuple[str, str]:
        """The internal and the external one."""
        if self is Layout.R2:
            return "DeviceUpdateFiles_Int", "DeviceUpdateFiles_Ext"
        return "RequestHandler/Files", "RequestHandlerExt/Files"


class Check(NamedTuple):
    """What the service takes from a request."""

    key: DeviceKey
    mac: str = ""
    serial: str = ""
    modules: tuple[InstalledModule, ...] = ()
    user: str = ""

    def installed(self, update_type: str) -> Version:
        """The version installed: that of the module named like the update type, else of the first; zero for none."""
        named = [module for module in self.modules if _stem(module.file_name).lower() == update_type.lower()]
        return next((module.version for module in (*named, *self.modules) if module.version is not None), ZERO)


class Offer(NamedTuple):
    """One file offered. Blank URLs are what a server sends whose URLs were never set up."""

    package: PackagePath
    file_name: str
    signature_file_name: str
    version: Version
    timestamp: str
    internal_url: str = ""
    external_url: str = ""


class Answer(NamedTuple):
    """What is offered to one check, and why, in words."""

    offers: tuple[Offer, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class UrlSettings:
    """The service's URLs as an administrator sets them, scheme and host only (`http://pool01.contoso.com`).

    None takes the name the phone used, which keeps a phone behind a proxy there; blank means "not populated".
    """

    internal: str | None = None
    external: str | None = None
    layout: Layout = Layout.R2


class UpdateService:
    """Answers update checks out of a folder tree of packages and a rule book. May be used from several threads."""

    def __init__(
        self,
        updates: Path,
        rules: RuleBook,
        stories: tuple[FieldStory, ...] = (),
        urls: UrlSettings | None = None,
    ) -> None:
        self.updates = updates
        self._rules = rules
        self.stories = stories
        self.urls = urls or UrlSettings()
        self._lock = threading.Lock()

    @property
    def rules(self) -> RuleBook:
        """The rules in force."""
        return self._rules

    def approve(self, rule: Rule) -> Rule:
        """Approve the pending version of a rule. Raises `ValueError` where there is none, or no such rule."""
        return self._change(rule, Rule.approve)

    def reset(self, rule: Rule) -> Rule:
        """Reject the pending version of a rule. Raises `ValueError` where there is no such rule."""
        return self._change(rule, Rule.reset)

    def restore(self, rule: Rule) -> Rule:
        """Roll a rule back to the version approved before. Raises `ValueError` where there is no such rule."""
        return self._change(rule, Rule.restore)

    def submit(self, rule: Rule, pending: Version) -> Rule:
        """Make a version pending, as an import does. Raises `ValueError` where there is no such rule."""
        return self._change(rule, lambda old: replace(old, pending_version=pending))

    def _change(self, rule: Rule, operation: Callable[[Rule], Rule]) -> Rule:
        with self._lock:
            changed = operation(rule)
            self._rules = self._rules.replaced(rule, changed)
            return changed

    def answer(self, check: Check, host: str = "localhost") -> Answer:
        """What to offer; `host` is the name and port by which the phone reached the service."""
        story = story_for(self.stories, check.installed("CPE"), check.key.model)
        if story is not None:
            return self._answer_by_story(story, check, host)
        offers: list[Offer] = []
        reasons: list[str] = []
        for wanted in self._rules.wanted(check.key, check.mac, check.serial):
            installed = check.installed(wanted.rule.update_type)
            state = "pending, test device" if wanted.test_device and wanted.rule.pending_version else "approved"
            if installed == wanted.version:
                reasons.append(f"{wanted.version} is {state} and installed")
            else:
                # Whenever it differs, even if it is older.
                offers += self._offers(wanted.rule.key, wanted.rule.update_type, wanted.version, host)
                reasons.append(f"{wanted.version} is {state}, {installed} is installed")
        return Answer(tuple(offers), "; ".join(reasons) or f"no rule offers anything to {check.key}")

    def _answer_by_story(self, story: FieldStory, check: Check, host: str) -> Answer:
        if story.answer is None:
            return Answer((), f"field story: {story.reported} is answered with nothing")
        rules = self._rules.rules_for(check.key)
        key, update_type = (rules[0].key, rules[0].update_type) if rules else (check.key, "CPE")
        offers = self._offers(key, update_type, story.answer, host)
        return Answer(tuple(offers), f"field story: {story.reported} is answered with {story.answer}")

    def _offers(self, key: DeviceKey, update_type: str, version: Version, host: str) -> list[Offer]:
        internal_root, external_root = self.urls.layout.roots
        path = PackagePath(internal_root, *key, version, update_type)
        internal = f"http://{host}" if self.urls.internal is None else self.urls.internal
        external = f"https://{host}" if self.urls.external is None else self.urls.external
        internal_url = internal and f"{internal.rstrip('/')}{path}"
        external_url = external and f"{external.rstrip('/')}{replace(path, root=external_root)}"
        return [
            Offer(path, file_name, signature, version, timestamp, internal_url, external_url)
            for file_name, signature, timestamp in self._files(key, update_type, version)
        ]

    def _files(self, key: DeviceKey, update_type: str, version: Version) -> list[tuple[str, str, str]]:
        """Image, catalog and time stamp of each file of a version.

        A rule outlives its files: where they are gone they are offered all the same, and the phone gets a 404.
        """
        try:
            package = Package(key, version, update_type, package_folder(self.updates, key, version, update_type))
            found = [
                (image.name, catalog.name if (catalog := package.catalog_of(image)) else "", _modified(image))
                for image in package.images()
            ]
        except (OSError, ValueError):
            found = []
        return found or [(f"{update_type}.nbt", f"{update_type}.cat", "")]


def _stem(file_name: str | None) -> str:
    return (file_name or "").rpartition(".")[0]


def _modified(path: Path) -> str:
    """The file's time as the field story writes times; whether day or month comes first there is not known."""
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).strftime("%m-%d-%Y %H:%M:%S")
