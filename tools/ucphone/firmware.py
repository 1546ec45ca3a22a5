"""What a phone's behaviour depends on its firmware for (protocol.md sections 1.2 and 6.2)."""

from __future__ import annotations

from dissectors.version import Version

# Documented: the first release that asks DNS for ucupdates-r2 at power-on.
FIRST_WITH_LOOKUP = Version(1, 0, 522, 101)
FIRST_R2 = Version(3, 5, 0, 0)


def looks_up_the_server(version: Version) -> bool:
    """True for firmware that finds the update server by DNS; older firmware must sign in to learn its URL."""
    return version >= FIRST_WITH_LOOKUP


def crashes_after_sign_in(version: Version) -> bool:
    """True for firmware that crashes near the end of the sign-in to OCS 2007 R2, and reboots, for ever.

    Seen in the field with 1.0.522.73; that every 1.0 release before the bridge does so is assumed here. A phone with
    nothing installed reports the zero version and is not one of them.
    """
    return Version(1, 0, 0, 0) <= version < FIRST_WITH_LOOKUP
