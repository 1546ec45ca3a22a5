"""HTTP status codes in words, with IIS's sub-status and Windows error beside them, and what usually stands behind them.

Codes and names are those of RFC 9110, of Microsoft's list of IIS sub-status codes (KB 943891) and of winerror.h; what
they mean for a phone and its update service follows from protocol.md sections 1, 2.5 and 5.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple


class Meaning(NamedTuple):
    """What a code says and its usual cause; either may be blank."""

    words: str
    cause: str

    def to_json(self) -> dict[str, Any]:
        """`words`, `cause`."""
        return {"words": self.words, "cause": self.cause}


_STEP = "also a step of every NTLM logon: it is a refusal only where no 200 follows on the same connection"

_CAUSES = {
    301: "a redirect upstream; these phones are not known to follow one",
    302: "a redirect upstream; these phones are not known to follow one",
    400: "the server could not read the request, or a header is over its limit",
    401: "the service wants a logon: outside, a user must have signed in on the phone (NTLM)",
    403: "the service refuses this address or account",
    404: "the virtual directory or the file is missing: wrong pool, or files removed while a rule still names them",
    405: "the request handler is not mapped for POST: the wrong site answers",
    407: "a forward proxy in between wants a logon, which the phone cannot give",
    408: "the request did not arrive in time: the phone went away, or the line is too slow",
    411: "the body came without a length: something in between changed the framing",
    413: "the body is over the server's limit",
    416: "a part was asked for that the file does not have: it has changed since the download began",
    500: "the update service failed: look at its event log",
    502: "a reverse proxy could not reach the pool",
    503: "the application pool is stopped, or a reverse proxy has no server left",
    504: "a reverse proxy got no answer from the pool in time",
}

_SUBSTATUS = {
    (401, 1): Meaning("logon failed", f"wrong account or password; {_STEP}"),
    (401, 2): Meaning("logon failed because of the server's configuration", f"no anonymous access; {_STEP}"),
    (401, 3): Meaning("the file's access list refuses", "the account may not read the update files"),
    (401, 4): Meaning("refused by a filter", ""),
    (401, 5): Meaning("refused by an ISAPI or CGI application", ""),
    (403, 1): Meaning("execute access forbidden", ""),
    (403, 2): Meaning("read access forbidden", "the virtual directory of the files is not readable"),
    (403, 4): Meaning("TLS required", "the phone asks by http, the directory asks for https"),
    (403, 6): Meaning("IP address rejected", "an address restriction on the site"),
    (403, 7): Meaning("client certificate required", "the site asks phones for a certificate they do not have"),
    (403, 13): Meaning("client certificate revoked", "or its revocation list is out of the server's reach"),
    (403, 14): Meaning("directory listing denied", "the path ends at a directory: a file name is missing"),
    (403, 16): Meaning("client certificate not trusted", "its root is not among the server's trusted roots"),
    (403, 17): Meaning("client certificate expired or not yet valid", "the clock of one side"),
    (404, 2): Meaning("ISAPI or CGI restriction", "the handler's extension is not allowed on this server"),
    (404, 3): Meaning("MIME type restriction", "no MIME type for the extension: .nbt and .cat need one"),
    (404, 4): Meaning("no handler configured", "the web components of the pool are not (fully) installed"),
    (404, 5): Meaning("URL sequence denied", "request filtering"),
    (404, 6): Meaning("verb denied", "request filtering"),
    (404, 7): Meaning("file extension denied", "request filtering"),
    (404, 8): Meaning("hidden name space", "request filtering"),
    (404, 11): Meaning("double escape sequence", "request filtering; a proxy in between may have escaped twice"),
    (404, 13): Meaning("body too long", "request filtering: a log upload over maxAllowedContentLength"),
    (404, 14): Meaning("URL too long", "request filtering"),
    (404, 15): Meaning("query too long", "request filtering"),
    (413, 1): Meaning("body too large", ""),
    (500, 19): Meaning("configuration data invalid", "a broken web.config, or no right to read it"),
    (500, 21): Meaning("module not recognised", "ASP.NET is not registered with this IIS"),
    (503, 0): Meaning("application pool unavailable", "the pool is stopped, or its identity cannot log on"),
    (503, 2): Meaning("concurrent request limit", "too many phones at once"),
}

_WIN32 = {
    2: Meaning("ERROR_FILE_NOT_FOUND", "the file is not there"),
    3: Meaning("ERROR_PATH_NOT_FOUND", "the folder is not there"),
    5: Meaning("ERROR_ACCESS_DENIED", ""),
    32: Meaning("ERROR_SHARING_VIOLATION", "the file is open elsewhere"),
    53: Meaning("ERROR_BAD_NETPATH", "the share with the update files is out of reach"),
    64: Meaning("ERROR_NETNAME_DELETED", "the phone closed the connection before the answer was through"),
    121: Meaning("ERROR_SEM_TIMEOUT", "the phone stopped reading"),
    995: Meaning("ERROR_OPERATION_ABORTED", "the request was given up"),
    1236: Meaning("ERROR_CONNECTION_ABORTED", "the connection was given up locally"),
    1326: Meaning("ERROR_LOGON_FAILURE", "wrong account or password"),
    1330: Meaning("ERROR_PASSWORD_EXPIRED", ""),
    1331: Meaning("ERROR_ACCOUNT_DISABLED", ""),
    1907: Meaning("ERROR_PASSWORD_MUST_CHANGE", "the account must change its password first, which a phone cannot do"),
    1909: Meaning("ERROR_ACCOUNT_LOCKED_OUT", "too many wrong attempts, perhaps by the phone itself"),
    0x80090308: Meaning(
        "SEC_E_INVALID_TOKEN", "a broken or unexpected NTLM or Kerberos token: a proxy mixes connections"
    ),
    0x8009030C: Meaning(
        "SEC_E_LOGON_DENIED", "wrong account or password, or the domain as the phone wrote it is unknown"
    ),
    0x8009030E: Meaning("SEC_E_NO_CREDENTIALS", f"no credentials yet; {_STEP}"),
    0x80090311: Meaning("SEC_E_NO_AUTHENTICATING_AUTHORITY", "no domain controller for the domain the phone named"),
    0xC000006D: Meaning("STATUS_LOGON_FAILURE", "wrong account or password"),
}


def usual_cause(status: int) -> str:
    """What usually stands behind a status in the phone's world; blank where nothing better can be said."""
    return _CAUSES.get(status, "")


def phrase(status: int) -> str:
    """The standard reason phrase, blank for a number that is none."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def explain(status: int, substatus: int | None = None, win32: int | None = None) -> Meaning:
    """Status, sub-status and Windows error of an IIS log in words; the most exact cause known first."""
    sub = _SUBSTATUS.get((status, substatus or 0), Meaning("", ""))
    error = _WIN32.get(win32 or 0, Meaning("", ""))
    code = f"{status}.{substatus}" if substatus else f"{status}"
    words = " ".join(part for part in (code, phrase(status) or "not a standard status") if part)
    details = "; ".join(part for part in (sub.words, error.words) if part)
    causes = [cause for cause in (error.cause, sub.cause) if cause] or [usual_cause(status)]
    return Meaning(f"{words} ({details})" if details else words, "; ".join(dict.fromkeys(causes)))
