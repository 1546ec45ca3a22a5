"""The name phones ask for, the ports upshim listens on, the server behind it, and the clock."""

from __future__ import annotations

import errno
import http.client
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

from proxy_addons import health
from tools.deploy import HEALTH, Address
from tools.doctor import reach
from tools.doctor.reach import STRAIGHT, Way
from tools.doctor.result import OK, PROBLEM, WARN, Result, reason

UPDATE_NAME = "ucupdates-r2"
HANDLER = "/RequestHandler/ucdevice.upx"
OWN_ANSWERS = {  # to a health check
    health.BODIES[health.OK]: (OK, "upshim listens and is well"),
    health.BODIES[health.DRAINING]: (WARN, "upshim is draining: it is about to end"),
    health.BODIES[health.UNREACHABLE]: (WARN, "upshim listens, and cannot reach the server: its log says why"),
}
FREE = "free: upshim can listen here"
CLOCK_WARN, CLOCK_PROBLEM = timedelta(minutes=2), timedelta(minutes=15)


def addresses_of(host: str) -> list[str]:
    """What the system's resolver says. Raises `OSError`."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_local(address: str) -> bool:
    """Whether an address is this machine's: only such a one can be bound to."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def update_name(domain: str, upstreams: Sequence[Address], mode: str) -> Iterator[Result]:
    """Does the phones' name for the update server lead here?"""
    name = f"{UPDATE_NAME}.{domain.strip('.')}"
    try:
        found = addresses_of(name)
    except (OSError, UnicodeError) as error:
        advice = f"Add {name} to DNS, pointing at this machine or at the HAProxy in front."
        yield Result("name", name, PROBLEM, f"does not resolve: {reason(error)}", advice)
        return
    here = [address for address in found if is_local(address)]
    shown = ", ".join(found)
    if here:
        elsewhere = [address for address in found if address not in here]
        if elsewhere and mode == "reverse":
            advice = "Phones take any of the addresses: leave only those that lead through upshim."
            yield Result("name", name, WARN, f"points here, and also at {', '.join(elsewhere)}", advice)
        else:
            yield Result("name", name, OK, f"points here: {shown}")
        return
    servers: list[str] = []
    for upstream in upstreams:
        with suppress(OSError, UnicodeError):  # told by the check of the server
            servers += addresses_of(upstream.host)
    if set(found) & set(servers):
        if mode == "transparent":
            yield Result("name", name, OK, f"points at the update server ({shown}), whose traffic is redirected")
        else:
            advice = "Let it point at this machine, or at the HAProxy in front."
            yield Result("name", name, PROBLEM, f"points at the update server itself ({shown}): past upshim", advice)
        return
    advice = "Right where that is the HAProxy in front, else let it point at this machine."
    yield Result("name", name, WARN, f"points at {shown}, which is not this machine", advice)


def port(listen: Address, target: str = HEALTH) -> Iterator[Result]:
    """Is a port free, or is it upshim that has it?"""
    subject = str(listen)
    host = "0.0.0.0" if listen.host == "*" else listen.host
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(host, listen.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            yield from _who_listens(listen, host, target)
        elif error.errno in {errno.EACCES, errno.EPERM}:
            advice = "Start upshim with CAP_NET_BIND_SERVICE (the systemd unit does), or choose a port above 1023."
            yield Result("port", subject, PROBLEM, "may not be listened on by this user", advice)
        else:
            advice = "Choose an address that `ip address` shows, or 0.0.0.0 for all."
            yield Result("port", subject, PROBLEM, f"cannot be listened on: {reason(error)}", advice)
        return
    yield Result("port", subject, OK, FREE)


def _who_listens(listen: Address, host: str, target: str) -> Iterator[Result]:
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    found = "nothing that speaks HTTP"
    for secure in (False, True):
        try:
            answer, body = STRAIGHT.ask(Address(here, listen.port), "GET", target, secure=secure)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError) and not secure:  # what speaks TLS would have hung up
                found = f"something that accepts connections and says nothing for {reach.WITHIN:g} s: it hangs"
                break
            continue
        status = answer.status
        if status in {200, 503} and body in OWN_ANSWERS:
            yield Result("port", str(listen), *OWN_ANSWERS[body])
            return
        found = f"another HTTP server ({status} to {target})"
        break
    advice = "Stop it, or let upshim listen elsewhere (`ss -ltnp` names the process)."
    yield Result("port", str(listen), PROBLEM, f"in use by {found}", advice)


def server(upstream: Address, secure: bool, listen: list[Address], way: Way = STRAIGHT) -> Iterator[Result]:
    """Can the update server be reached, and does it answer? Its clock comes with the answer."""
    subject = str(upstream)
    try:
        found = addresses_of(upstream.host)
    except (OSError, UnicodeError) as error:
        if way.via is None:
            advice = "Look at --upstream and at DNS."
            yield Result("server", subject, PROBLEM, f"does not resolve: {reason(error)}", advice)
            return
        found = []  # the proxy's business
    if any(one.port == upstream.port and _same_place(one, found) for one in listen):
        advice = "Give --upstream the server's own address."
        yield Result("server", subject, PROBLEM, "is upshim itself: every request would come back to it", advice)
        return
    began = datetime.now(UTC)
    try:
        answer, _ = way.ask(upstream, "HEAD", HANDLER, secure=secure)
    except (OSError, http.client.HTTPException) as error:
        if way.via is not None:
            advice = "Is --via right, and may this machine go through that proxy to the server?"
            found_out = f"not through {way.via}: {reason(error)}"
        else:
            advice = "Is the address right, the server up, and no firewall in between?"
            found_out = f"does not answer: {reason(error)}"
        yield Result("server", subject, PROBLEM, found_out, advice)
        return
    ended = datetime.now(UTC)
    yield _status(subject, answer.status, way)
    date = answer.getheader("Date")
    if date is not None:
        yield clock(date, began, ended)


def _same_place(listen: Address, addresses: list[str]) -> bool:
    if listen.host in {"*", "0.0.0.0", "::"}:
        return any(map(is_local, addresses))
    return listen.host in addresses


def _status(subject: str, status: int, way: Way) -> Result:
    said = f"answers HEAD {HANDLER} with {status}"
    if status >= 500:
        advice = "The server's own log (IIS, and the Device Update audit log) tells why."
        if way.via is not None:
            advice += f" Where it does not, {way.via} said so itself."
        return Result("server", subject, PROBLEM, said, advice)
    if status == 407:
        advice = "upshim logs in at no proxy: let this machine pass without."
        return Result("server", subject, PROBLEM, f"{said}: the proxy wants a login", advice)
    if status == 404:
        return Result(
            "server", subject, WARN, said, "Is this the pool's web server? Nothing there takes update checks."
        )
    return Result("server", subject, OK, said)  # 200, 401, 405: the handler is there


def clock(date: str, began: datetime, ended: datetime) -> Result:
    """Does this machine's clock agree with the server's? Rules have times of day, certificates have dates."""
    try:
        theirs = parsedate_to_datetime(date)
        theirs = theirs if theirs.tzinfo else theirs.replace(tzinfo=UTC)
    except ValueError:
        return Result("clock", "server", WARN, f"the server's Date cannot be read: {date[:40]!r}")
    apart = max(began - theirs, theirs - ended, timedelta(0))
    if apart > CLOCK_WARN:
        status = PROBLEM if apart > CLOCK_PROBLEM else WARN
        whole = timedelta(seconds=round(apart.total_seconds()))
        advice = "Set both clocks by NTP: windows and limits of rules, certificates and Kerberos depend on them."
        return Result("clock", "server", status, f"{whole} apart from the server's", advice)
    return Result("clock", "server", OK, "agrees with the server's")
