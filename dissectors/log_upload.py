"""Names of the logs that phones upload (protocol.md section 5).

How an upload looks on the wire is not public; the names under which the server keeps the files are documented in part:
`<device type>_<device identifier>-<YYYYMMDD>-CELOG<HHMMSS>_n.clg` with n 0 or 1, and as an example of it
`20090501170926-CELOG0.clg`, which does not fit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dissectors.errors import DissectError, LimitExceeded

MAX_NAME = 255

# Defaults of ValidLogFileExtensions; .clg1 stands in a sample of Lync Server 2013 only.
VALID_EXTENSIONS = (".dmp", ".clg", ".clg1", ".clg2", ".bak", ".kdmp", ".dat", ".bin", ".cat", ".xml", ".txt", ".hex")

_TYPES = {".clg": "CELog", ".clg1": "CELog", ".clg2": "CELog", ".kdmp": "Watson", ".dmp": "Watson", ".xml": "Config"}
_CONTENT = {
    "CELog": "Windows CE event log: functional tests and critical events (Readlog.exe -v)",
    "Watson": "crash dump",
    "Config": "RoundTable profile",
}
_DOCUMENTED = re.compile(r"([^_]+)_(.+)-(\d{8})-CELOG(\d{6})_(\d)\.clg\d?", re.IGNORECASE | re.ASCII)
_EXAMPLE = re.compile(r"(\d{8})(\d{6})-CELOG(\d)\.clg\d?", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class LogName:
    """What a file name tells. `form` is "documented", "example" or "other"; `written` is the phone's local time."""

    name: str
    log_type: str | None
    form: str
    device_type: str = ""
    device_id: str = ""
    written: datetime | None = None
    number: int | None = None
    problems: tuple[str, ...] = ()

    @classmethod
    def parse(cls, path: str) -> LogName:
        """Read a name or a path of either kind. Raises `DissectError` where the extension is none of a log."""
        name = re.split(r"[\\/]", path[-4096:])[-1]
        if len(name) > MAX_NAME:
            raise LimitExceeded(0, f"a name of at most {MAX_NAME} characters", f"{len(name)}")
        dot = name.rfind(".")
        extension = name[dot:].lower() if dot >= 0 else ""
        if extension not in VALID_EXTENSIONS:
            raise DissectError(max(dot, 0), "an extension that log uploads may have", repr(name[max(dot, 0) :][:20]))
        log_type = _TYPES.get(extension)
        if match := _DOCUMENTED.fullmatch(name):
            device_type, device_id, date, time, number = match.groups()
            written, problems = _moment(date + time)
            return cls(name, log_type, "documented", device_type, device_id, written, int(number), problems)
        if match := _EXAMPLE.fullmatch(name):
            written, problems = _moment(match[1] + match[2])
            return cls(name, log_type, "example", written=written, number=int(match[3]), problems=problems)
        return cls(name, log_type, "other")

    @property
    def content(self) -> str:
        """What such a file holds, in words; blank where the extension does not tell."""
        return _CONTENT.get(self.log_type or "", "")

    def to_json(self) -> dict[str, Any]:
        """The `log-upload` fact."""
        return {
            "fact": "log-upload",
            "name": self.name,
            "log_type": self.log_type,
            "content": self.content,
            "form": self.form,
            "device_type": self.device_type,
            "device_id": self.device_id,
            "written": self.written.isoformat() if self.written else None,
            "number": self.number,
            "problems": list(self.problems),
        }


def _moment(digits: str) -> tuple[datetime | None, tuple[str, ...]]:
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S"), ()
    except ValueError:
        return None, (f"{digits[:8]} {digits[8:]} is no date and time",)
