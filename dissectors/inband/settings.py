"""What a server tells its phones over SIP: update URLs, whether to use them, what to log (protocol.md section 7.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from dissectors.sip_users import mask_users
from dissectors.update_urls import Resource, classify

MAX_SETTINGS = 4096  # a Lync 2013 server sends about 200

_PHONE = (
    "ucEnforcePinLock",
    "ucMinPinLength",
    "ucPhoneTimeOut",
    "ucExchangeMWIPoll",
    "ucEnableSIPSecurityMode",
    "EnableDeviceUpdate",
)
_TRUE, _FALSE = {"true", "1", "yes"}, {"false", "0", "no"}


class Setting(NamedTuple):
    """One setting, spelt as it came; its group is blank where the source names none."""

    group: str
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class InBandSettings:
    """The settings in order. `source` is "xml" or "dump"; `complete` is False where the text broke off."""

    source: str
    settings: tuple[Setting, ...]
    groups: tuple[str, ...] = ()
    complete: bool = True
    reading_problems: tuple[str, ...] = ()

    def get(self, name: str) -> str | None:
        """First value of a setting; names are compared without case, for servers and tools spell them differently."""
        wanted = name.lower()
        return next((setting.value for setting in self.settings if setting.name.lower() == wanted), None)

    @property
    def updates_enabled(self) -> bool | None:
        """updatesServerEnabled; None where it is not given or is no truth value."""
        return _truth(self.get("updatesServerEnabled"))

    @property
    def internal_url(self) -> str | None:
        """updatesServerInternalUrl."""
        return self.get("updatesServerInternalUrl")

    @property
    def external_url(self) -> str | None:
        """updatesServerExternalUrl."""
        return self.get("updatesServerExternalUrl")

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read, and what keeps a phone that reads this from finding its updates."""
        found = list(self.reading_problems)
        told = {"updatesServerInternalUrl": self.internal_url, "updatesServerExternalUrl": self.external_url}
        if self.updates_enabled is False:
            found.append("updatesServerEnabled is false: phones are told not to look for updates")
        for name, url in told.items():
            if url is None:
                continue
            if not url.strip():
                found.append(f"{name} is blank")
            elif classify(url.strip()) is not Resource.UPDATE_HANDLER:
                found.append(f"{name} does not lead to ucdevice.upx: {url[:120]}")
        return tuple(found)

    def to_json(self, *, secrets: bool = False) -> dict[str, Any]:
        """The `in-band` fact; SIP users in values are shown only with `secrets`."""
        return {
            "fact": "in-band",
            "source": self.source,
            "complete": self.complete,
            "groups": list(self.groups),
            "updates": {
                "enabled": self.updates_enabled,
                "internal_url": self.internal_url,
                "external_url": self.external_url,
            },
            "logging": {
                "level": self.get("loggingLevel"),
                "user_logging": _truth(self.get("ucEnableUserLogging")),
            },
            "phone": {name: value for name in _PHONE if (value := self.get(name)) is not None},
            "settings": [
                {"group": group, "name": name, "value": value if secrets else mask_users(value)}
                for group, name, value in self.settings
            ],
            "problems": list(self.problems),
        }


def _truth(text: str | None) -> bool | None:
    word = (text or "").strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None
