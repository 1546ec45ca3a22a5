"""What stands where a user's name is not shown."""

from __future__ import annotations

REDACTED = "<redacted>"
