"""What HAR 1.2 requires of an archive, field by field, from the text of the format (2012-08-14 draft)."""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

Json = dict[str, Any]
URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*")
FIELDS = {"entry": "startedDateTime time request response cache timings", "timings": "send wait receive"}
REQUEST = "method url httpVersion cookies headers queryString headersSize bodySize"
RESPONSE = "status statusText httpVersion cookies headers content redirectURL headersSize bodySize"


def check_archive(archive: Json) -> None:
    """Assert that an archive is one."""
    log = archive["log"]
    assert log["version"] == "1.2"
    assert all(isinstance(log["creator"][name], str) for name in ("name", "version"))
    for entry in log["entries"]:
        check_entry(entry)


def check_entry(entry: Json) -> None:
    """Assert that an entry has what it must have, of the right types."""
    assert not set(FIELDS["entry"].split()) - set(entry)
    assert datetime.fromisoformat(entry["startedDateTime"]).tzinfo
    assert isinstance(entry["time"], int | float)
    assert entry["time"] >= 0
    assert all(entry["timings"][name] >= -1 for name in FIELDS["timings"].split())
    assert entry["cache"] == {}
    if "serverIPAddress" in entry:
        ipaddress.ip_address(entry["serverIPAddress"])
    allowed = {*FIELDS["entry"].split(), "pageref", "serverIPAddress", "connection", "comment"}
    assert all(name.startswith("_") for name in set(entry) - allowed)
    check_request(entry["request"])
    check_response(entry["response"])


def check_request(request: Json) -> None:
    """Assert on a request."""
    assert not set(REQUEST.split()) - set(request)
    assert all(name.startswith("_") for name in set(request) - {*REQUEST.split(), "postData", "comment"})
    assert URI.fullmatch(request["url"])
    assert urlsplit(request["url"]).netloc
    check_message(request)
    check_pairs(request["queryString"])
    if "postData" in request:
        posted = request["postData"]
        assert isinstance(posted["mimeType"], str)
        assert all(name.startswith("_") for name in set(posted) - {"mimeType", "text", "params", "comment"})


def check_response(response: Json) -> None:
    """Assert on an answer."""
    assert not set(RESPONSE.split()) - set(response)
    assert isinstance(response["status"], int)
    check_message(response)
    content = response["content"]
    assert isinstance(content["size"], int)
    assert isinstance(content["mimeType"], str)
    assert content.get("encoding", "base64") == "base64"


def check_message(message: Json) -> None:
    """Assert on what requests and answers have in common."""
    assert isinstance(message["httpVersion"], str)
    assert all(isinstance(message[name], int) and message[name] >= -1 for name in ("headersSize", "bodySize"))
    check_pairs(message["headers"])
    check_pairs(message["cookies"])


def check_pairs(pairs: list[Json]) -> None:
    """Assert on a list of names and values."""
    assert all(isinstance(pair["name"], str) and isinstance(pair["value"], str) for pair in pairs)
