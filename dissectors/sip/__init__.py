"""SIP as far as a phone's login and its refusal go: REGISTER, 401, 403, and the settings that come in-band."""

from dissectors.sip.facts import Diagnostics, diagnostics, in_band, to_json, user_agent
from dissectors.sip.message import SipMessage, find_messages

__all__ = ["Diagnostics", "SipMessage", "diagnostics", "find_messages", "in_band", "to_json", "user_agent"]
