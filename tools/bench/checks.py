"""What the benches of the proxy send and are answered: update checks of many phones, a file, rules for them."""

from __future__ import annotations

from dissectors.installed_module import InstalledModule
from dissectors.version import Version
from tools.cx700_rules import OBSERVE, THEN
from tools.ucphone.identity import PhoneIdentity
from tools.ucphone.messages import CONTENT_TYPE, write_check
from tools.update_server.messages import NoOffer, write_answer
from tools.update_server.service import Answer

TARGET = "/RequestHandler/ucdevice.upx"
FIRMWARE_TARGET = "/RequestHandler/Files/UCPhone/POLYCOM/CX700/A/ENU/3.5.6907.222/CPE/CPE.nbt"
HOST = "ucupdates-r2.example.com"
STUCK = InstalledModule("CPE.nbt", Version.parse("1.0.522.73"), "04-05-2008 10:00:00")
CURRENT = InstalledModule("CPE.nbt", Version.parse("3.5.6907.222"), "01-15-2011 10:00:00")
MIXED_STUCK = 25  # of a fleet that is mixed, one phone in so many is stuck
ANSWER = write_answer(Answer((), "nothing is approved"), NoOffer.BLANK)
RULES = OBSERVE + THEN["report"]


def mac(number: int) -> str:
    """The address of one of the phones."""
    digits = f"{0x0004F2000000 + number:012X}"
    return "-".join(digits[start : start + 2] for start in range(0, 12, 2))


def check(number: int, *, keep_alive: bool = True, mixed: bool = False) -> bytes:
    """A request of one of the phones, as it goes over the wire: the rules want all of them, of a mixed fleet a few."""
    module = CURRENT if mixed and number % MIXED_STUCK else STUCK
    body = write_check(PhoneIdentity(mac=mac(number), serial=f"{number:08d}"), (module,))
    head = [
        f"POST {TARGET} HTTP/1.1",
        f"Host: {HOST}",
        "User-Agent: Microsoft UCPhone Device",
        f"Content-Type: {CONTENT_TYPE}",
        f"Content-Length: {len(body)}",
        *(() if keep_alive else ("Connection: close",)),
    ]
    return "\r\n".join([*head, "", ""]).encode() + body
