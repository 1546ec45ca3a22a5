"""The phone's "Last Update Status": WinInet error code and HTTP status (protocol.md section 3.3).

Written `(0x00/0)` on the About screen of firmware 1.0, `0x0;200` in other people's logs. Names and numbers of the codes
are those of the public wininet.h; which of them mean what for a phone is said in `usual_cause`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

from dissectors import http_status
from dissectors.errors import DissectError

_NUMBER = r"(0[xX][0-9a-fA-F]{1,8}|-?\d{1,10})"
_FORM = re.compile(rf"\(?\s*{_NUMBER}\s*[/;,]\s*{_NUMBER}\s*\)?", re.ASCII)
_HRESULT_WIN32 = 0x8007_0000


class _Code(NamedTuple):
    name: str
    words: str
    cause: str


_CLOCK = "the phone's clock is wrong: NTP is missing or out of reach"
_NAMES = "the certificate does not carry the name the phone was given: ucupdates-r2.<domain>, the pool or the proxy"
_ROOT = "the root of the server's certificate is not on the phone: fetch the chain again, or use a public root"
_TLS = "no TLS version, cipher or certificate hash in common; firmware of the CX700 knows neither SHA-2 nor TLS 1.1"
_WAY = "nothing listens there, or a firewall is in between"

_WININET = {
    0: _Code("ERROR_SUCCESS", "no error on the way to the server", ""),
    12001: _Code("ERROR_INTERNET_OUT_OF_HANDLES", "no more handles", "restart the phone"),
    12002: _Code("ERROR_INTERNET_TIMEOUT", "the request timed out", "the server is out of reach or too slow"),
    12003: _Code("ERROR_INTERNET_EXTENDED_ERROR", "the server returned an extended error", ""),
    12004: _Code("ERROR_INTERNET_INTERNAL_ERROR", "internal error of the phone's HTTP client", ""),
    12005: _Code("ERROR_INTERNET_INVALID_URL", "the URL is invalid", "the update URL given to the phone is malformed"),
    12006: _Code(
        "ERROR_INTERNET_UNRECOGNIZED_SCHEME", "the URL's scheme is not known", "an update URL without http(s)"
    ),
    12007: _Code(
        "ERROR_INTERNET_NAME_NOT_RESOLVED",
        "the server's name could not be resolved",
        "no DNS record ucupdates-r2.<domain>, or the wrong DNS domain from DHCP",
    ),
    12008: _Code("ERROR_INTERNET_PROTOCOL_NOT_FOUND", "the protocol was not found", ""),
    12009: _Code("ERROR_INTERNET_INVALID_OPTION", "invalid option", ""),
    12012: _Code("ERROR_INTERNET_SHUTDOWN", "the HTTP client is shutting down", ""),
    12015: _Code("ERROR_INTERNET_LOGIN_FAILURE", "the logon failed", "wrong account or password"),
    12017: _Code("ERROR_INTERNET_OPERATION_CANCELLED", "the operation was cancelled", ""),
    12018: _Code("ERROR_INTERNET_INCORRECT_HANDLE_TYPE", "wrong type of handle", ""),
    12019: _Code("ERROR_INTERNET_INCORRECT_HANDLE_STATE", "handle in the wrong state", ""),
    12021: _Code("ERROR_INTERNET_REGISTRY_VALUE_NOT_FOUND", "a registry value is missing", ""),
    12027: _Code("ERROR_INTERNET_INCORRECT_FORMAT", "the request has a wrong format", ""),
    12028: _Code("ERROR_INTERNET_ITEM_NOT_FOUND", "the item was not found", "the update URL names nothing"),
    12029: _Code("ERROR_INTERNET_CANNOT_CONNECT", "the connection attempt failed", _WAY),
    12030: _Code(
        "ERROR_INTERNET_CONNECTION_ABORTED", "the connection was ended early", "a reset, or a proxy that quit"
    ),
    12031: _Code(
        "ERROR_INTERNET_CONNECTION_RESET", "the connection was reset", "the server refused, or a TLS mismatch"
    ),
    12032: _Code("ERROR_INTERNET_FORCE_RETRY", "the request must be made again", "a step of the NTLM logon"),
    12033: _Code("ERROR_INTERNET_INVALID_PROXY_REQUEST", "the proxy request was invalid", ""),
    12037: _Code("ERROR_INTERNET_SEC_CERT_DATE_INVALID", "the certificate's date is not valid", _CLOCK),
    12038: _Code("ERROR_INTERNET_SEC_CERT_CN_INVALID", "the certificate's name does not fit", _NAMES),
    12039: _Code("ERROR_INTERNET_HTTP_TO_HTTPS_ON_REDIR", "redirected from HTTP to HTTPS", "a redirect upstream"),
    12040: _Code("ERROR_INTERNET_HTTPS_TO_HTTP_ON_REDIR", "redirected from HTTPS to HTTP", "a redirect upstream"),
    12044: _Code("ERROR_INTERNET_CLIENT_AUTH_CERT_NEEDED", "the server asks for a client certificate", ""),
    12045: _Code("ERROR_INTERNET_INVALID_CA", "the certificate authority is not known", _ROOT),
    12046: _Code("ERROR_INTERNET_CLIENT_AUTH_NOT_SETUP", "client authentication is not set up", ""),
    12048: _Code("ERROR_INTERNET_REDIRECT_SCHEME_CHANGE", "the redirect changes the scheme", "a redirect upstream"),
    12055: _Code("ERROR_INTERNET_SEC_CERT_ERRORS", "the certificate has errors", ""),
    12056: _Code("ERROR_INTERNET_SEC_CERT_NO_REV", "the certificate names no revocation server", ""),
    12057: _Code(
        "ERROR_INTERNET_SEC_CERT_REV_FAILED",
        "revocation could not be checked",
        "the CRL's address is out of the phone's reach",
    ),
    12150: _Code("ERROR_HTTP_HEADER_NOT_FOUND", "a header is missing", ""),
    12151: _Code("ERROR_HTTP_DOWNLEVEL_SERVER", "the server sent no headers", ""),
    12152: _Code(
        "ERROR_HTTP_INVALID_SERVER_RESPONSE",
        "the server's answer could not be parsed",
        "something that is not HTTP answers on that port (TLS, for example)",
    ),
    12153: _Code("ERROR_HTTP_INVALID_HEADER", "a header is invalid", ""),
    12154: _Code("ERROR_HTTP_INVALID_QUERY_REQUEST", "the query is invalid", ""),
    12155: _Code("ERROR_HTTP_HEADER_ALREADY_EXISTS", "the header is there already", ""),
    12156: _Code("ERROR_HTTP_REDIRECT_FAILED", "the redirect failed", "a redirect upstream"),
    12157: _Code("ERROR_INTERNET_SECURITY_CHANNEL_ERROR", "the TLS channel failed", _TLS),
    12163: _Code("ERROR_INTERNET_DISCONNECTED", "the network is disconnected", "no link or no address"),
    12164: _Code("ERROR_INTERNET_SERVER_UNREACHABLE", "the server cannot be reached", _WAY),
    12165: _Code("ERROR_INTERNET_PROXY_SERVER_UNREACHABLE", "the proxy cannot be reached", ""),
    12168: _Code("ERROR_HTTP_REDIRECT_NEEDS_CONFIRMATION", "the redirect needs a confirmation", "a redirect upstream"),
    12169: _Code("ERROR_INTERNET_SEC_INVALID_CERT", "the certificate is invalid", _ROOT),
    12170: _Code("ERROR_INTERNET_SEC_CERT_REVOKED", "the certificate is revoked", ""),
    12175: _Code("ERROR_WINHTTP_SECURE_FAILURE", "one or more TLS errors", _TLS),
}


def _number(text: str) -> int:
    return int(text, 16) if text[:2] in ("0x", "0X") else int(text)


def _win32(value: int) -> int:
    """The plain error code of an HRESULT of the Win32 facility, which may come as a negative number."""
    if value < 0:
        value += 1 << 32
    return value & 0xFFFF if value & 0xFFFF_0000 == _HRESULT_WIN32 else value


@dataclass(frozen=True, slots=True)
class LastUpdateStatus:
    """A WinInet code (0: none) and an HTTP status (0: none reported). HRESULTs 0x8007xxxx are reduced to the code."""

    wininet_code: int
    http_status: int
    text: str

    @classmethod
    def parse(cls, text: str) -> LastUpdateStatus:
        """Read `0x0;200`, `(0x00/0)`, `12029,0`, `0x80072efd/0x0`. Raises `DissectError`."""
        match = _FORM.fullmatch(text.strip())
        if match is None:
            raise DissectError(0, "a status such as 0x0;200 or (0x00/0)", repr(text[:40]))
        code, status = _win32(_number(match[1])), _number(match[2])
        if not (0 <= code <= 0xFFFF_FFFF and 0 <= status <= 0xFFFF_FFFF):
            raise DissectError(0, "two numbers of 32 bits", repr(text[:40]))
        return cls(code, status, text.strip())

    @property
    def ok(self) -> bool:
        """True when the check itself went well; it does not say that an update was offered."""
        return self.wininet_code == 0 and (self.http_status == 0 or 200 <= self.http_status < 300)

    @property
    def wininet_name(self) -> str | None:
        """Name in wininet.h, None where the code is not listed."""
        code = _WININET.get(self.wininet_code)
        return code.name if code else None

    @property
    def meaning(self) -> str:
        """Both fields in words."""
        code = _WININET.get(self.wininet_code)
        first = code.words if code else f"WinInet or system error {self.wininet_code} (0x{self.wininet_code:x})"
        if self.http_status == 0:
            return f"{first}; no HTTP status reported"
        try:
            return f"{first}; HTTP {self.http_status} {HTTPStatus(self.http_status).phrase}"
        except ValueError:
            digits = f"{self.http_status:x}"
            # No source gives the radix of this field: 0x401 may be the digits of 401.
            if digits.isdecimal() and int(digits) in HTTPStatus.__members__.values():
                return f"{first}; {self.http_status} is no HTTP status, its hexadecimal digits are those of {digits}"
            return f"{first}; HTTP {self.http_status}, not a standard status"

    @property
    def usual_cause(self) -> str:
        """What usually stands behind it; blank where nothing better can be said."""
        if self.ok:
            if self.http_status == 0:
                return ""
            return "the server answered; if no update follows, it sees nothing to offer for what the phone reports"
        code = _WININET.get(self.wininet_code)
        if self.wininet_code:
            return code.cause if code else ""
        return http_status.usual_cause(self.http_status)

    def to_json(self) -> dict[str, Any]:
        """Plain values: `text`, `wininet_code`, `wininet_name`, `http_status`, `ok`, `meaning`, `usual_cause`."""
        return {
            "text": self.text,
            "wininet_code": self.wininet_code,
            "wininet_name": self.wininet_name,
            "http_status": self.http_status,
            "ok": self.ok,
            "meaning": self.meaning,
            "usual_cause": self.usual_cause,
        }
