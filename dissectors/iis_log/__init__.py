"""IIS logs (W3C extended format): who asked the web components for what, and how it was answered."""

from dissectors.iis_log.entry import Entry, FieldSet
from dissectors.iis_log.reader import LogReader, looks_like_iis_log
from dissectors.iis_log.summary import LogSummary

__all__ = ["Entry", "FieldSet", "LogReader", "LogSummary", "looks_like_iis_log"]
