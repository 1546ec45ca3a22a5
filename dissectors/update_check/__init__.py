"""The update check and its answer: decoded by vocabulary, edited in place."""

from __future__ import annotations

from dissectors.update_check.answer import Offer, UpdateAnswer
from dissectors.update_check.device import Device
from dissectors.update_check.request import ReportedModule, UpdateCheck

__all__ = ["Device", "Offer", "ReportedModule", "UpdateAnswer", "UpdateCheck"]
