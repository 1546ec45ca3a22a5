"""Print a working configuration for what stands around upshim in production.

Examples:
  upshim deploy haproxy --upstream http://10.0.0.5 --shim 127.0.0.1:8081 --shim 127.0.0.1:8082 --listen '*:80'
  upshim deploy systemd --upstream http://10.0.0.5 --listen 0.0.0.0:80 --rules /etc/upshim/rules.toml
  upshim deploy systemd --upstream http://10.0.0.5 --instance a --listen 127.0.0.1:8081 --admin 127.0.0.1:9181
  upshim deploy socket --upstream http://10.0.0.5 --listen 0.0.0.0:80 > /etc/systemd/system/upshim.socket
  upshim deploy nftables --upstream http://10.0.0.5 --upstream https://10.0.0.5 --upstream 'http://[fd00::5]'
  upshim deploy lighttpd --upstream http://10.0.0.5 --shim 127.0.0.1:8080 --listen '*:443' --certs /etc/upshim.pem

  upshim deploy alerts > /etc/prometheus/upshim.yml
  upshim deploy grafana > upshim-dashboard.json

Update checks go to the shims, everything else straight to the server; with no shim left, everything does.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from proxy_addons.admin import is_loopback
from proxy_addons.upstream_url import is_address, is_host
from tools import grafana
from tools.errors import EXIT_OK, UnusableInput
from tools.proxy import NEWEST, VERSIONS, place_of_server

TEMPLATES = Path(__file__).with_name("templates")
KINDS = {
    "haproxy": "haproxy.cfg",
    "lighttpd": "lighttpd.conf",
    "nginx": "nginx.conf",
    "nftables": "nftables.nft",
    "socket": "upshim.socket",
    "systemd": "upshim.service",
}
WATCHING = ("alerts", "grafana")  # they depend on nothing
HEALTH = "/__upshim/health"
CERTS_GROUP = "upshim-certs"  # whose members may read the phones' certificate
HOMES = ("/home", "/root", "/run/user")
RESOLVERS = """
# HAProxy looks the server's name up while it runs, by DNS alone: without /etc/hosts and search domains. The address
# that these gave when it started (at-start) is for when DNS does not know the name. It starts without either.
resolvers names
    parse-resolv-conf
    accepted_payload_size 4096
    hold nx 1d
    hold timeout 1d
    hold refused 1d
    hold other 1d
"""
NAME_NOTE = """\
            # nginx looks this name up when it starts, does not start without an answer, and never looks again: give it
            # an address instead, or a line in /etc/hosts.
"""
WAY = """
listen to_{name}
    bind {way}
    server {name} {shim} check"""
_FILE = re.compile(r"[\w./~+@,-]+")
_INSTANCE = re.compile(r"[a-z0-9][a-z0-9_-]{0,15}")
_PATH = re.compile(r"/[\w./~-]*")


class Text(Template):
    """A template whose places are written @{name}: `$` and `{}` belong to the configurations themselves."""

    delimiter = "@"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator's end of one upshim: its unit, where it serves health and metrics, and the file of the token."""

    unit: str = "upshim"
    admin: Address = Address("127.0.0.1", 9180)
    token: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("kind", choices=(*KINDS, *WATCHING), help="what to configure")
    parser.add_argument(
        "--upstream",
        metavar="URL",
        action="append",
        help="the update server, e.g. http://10.0.0.5; nftables: each of its addresses and ports",
    )
    parser.add_argument("--shim", metavar="HOST:PORT", action="append", help="a shim (default 127.0.0.1:8080)")
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        action="append",
        help="where phones connect (default *:80, with --certs *:443 too, lighttpd *:443 only; "
        "--mode transparent: the port of --shim)",
    )
    parser.add_argument("--health", metavar="PATH", default=HEALTH, help=f"the shims' health check (default {HEALTH})")
    parser.add_argument(
        "--server-ca",
        metavar="FILE",
        type=Path,
        help="haproxy, systemd: certificates the server is verified by (PEM; default: the usual roots)",
    )
    parser.add_argument(
        "--server-tls-oldest",
        choices=VERSIONS,
        default=NEWEST,
        help="haproxy, systemd: TLS the server may speak (default 1.2)",
    )
    parser.add_argument(
        "--certs",
        metavar="FILE",
        type=Path,
        help="key and certificates phones are shown (PEM): systemd, lighttpd, haproxy (not on port 80)",
    )
    parser.add_argument(
        "--mode", choices=("reverse", "transparent"), default="reverse", help="systemd: how phones reach upshim"
    )
    parser.add_argument("--rules", metavar="FILE", type=Path, help="systemd: what to rewrite; everybody may read it")
    parser.add_argument(
        "--admin", metavar="HOST:PORT", help=f"systemd: health and metrics (default {Operator().admin})"
    )
    parser.add_argument(
        "--admin-token", metavar="FILE", type=Path, help="systemd: its token, which root alone may read"
    )
    parser.add_argument("--instance", metavar="NAME", help="systemd, socket: one of several on this machine")
    parser.add_argument("--program", metavar="FILE", type=Path, help="systemd: the upshim to start (default: this one)")


def run(args: argparse.Namespace) -> int:
    """Print the configuration."""
    if args.kind in WATCHING:
        print(watching(args.kind), end="")
        return EXIT_OK
    if args.upstream is None:
        raise UnusableInput(f"{args.kind} needs --upstream")
    if len(args.upstream) > 1 and args.kind != "nftables" and args.mode != "transparent":
        raise UnusableInput(f"{args.kind} takes one --upstream")
    if not _PATH.fullmatch(args.health):
        raise UnusableInput(f"--health: expected a path such as {HEALTH}, found {args.health!r}")
    shims = [address("--shim", text) for text in args.shim or ["127.0.0.1:8080"]]
    if args.mode == "transparent":  # where the redirect of nftables leads to
        usual = [f"{host}:{shims[0].port}" for host in ("*", "[::]")]
    else:
        usual = ["*:443"] if args.kind == "lighttpd" else ["*:80", "*:443"] if args.certs is not None else ["*:80"]
    listen = [address("--listen", text) for text in args.listen or usual]
    more = args.upstream[1:]
    files = args.program, args.certs, args.rules
    operator = operators_end(args.admin, args.admin_token, args.instance)
    if args.kind == "systemd":
        for place in hidden_from_unit(args.program):
            told = "ProtectHome=yes hides it from the unit: install upshim in /opt, by the system's own Python"
            print(f"upshim deploy: {place}: {told}", file=sys.stderr)
        if args.certs is not None and in_home(args.certs):
            told = "ProtectHome=yes hides it from the unit: put it below /etc"
            print(f"upshim deploy: {args.certs}: {told}", file=sys.stderr)
    server = args.server_ca, args.server_tls_oldest
    text = render(args.kind, args.upstream[0], shims, listen, args.health, *files, args.mode, more, operator, *server)
    print(text, end="")
    return EXIT_OK


def render(
    kind: str,
    upstream: str,
    shims: list[Address],
    listen: list[Address],
    health: str = HEALTH,
    program: Path | None = None,
    certs: Path | None = None,
    rules: Path | None = None,
    mode: str = "reverse",
    more: Sequence[str] = (),
    operator: Operator | None = None,
    server_ca: Path | None = None,
    server_oldest: str = NEWEST,
) -> str:
    """The text of a configuration; `more` are other addresses of the same server. Raises `UnusableInput`."""
    secure, server = server_of(upstream)
    check_tls(kind, secure, listen, certs)
    if server_ca is not None or server_oldest != NEWEST:
        check_server_tls(kind, any(server_of(one)[0] for one in (upstream, *more)))
    if kind == "haproxy" and secure and is_address(server.host):
        expected = "HAProxy verifies names only: expected that in the server's certificate"
        raise UnusableInput(f"--upstream: {expected}, found {server.host}")
    if kind in {"haproxy", "nginx", "lighttpd"}:
        for one in shims:
            if not is_address(one.host):
                raise UnusableInput(f"--shim: expected an IP address, which nobody has to look up, found {one.host!r}")
    places = {
        "url": f"{'https' if secure else 'http'}://{server}",
        "health": health,
        "retries": str(len(shims) + 2),  # each shim and then the server, should all shims die at once
        "host": server.host,
        "port": str(server.port),
        "shim_port": str(shims[0].port) if shims else "",
        "name": (operator := operator or Operator()).unit,
    }
    if kind == "haproxy":
        tls = tls_to(server, server_ca, server_oldest) if secure else ""
        places["servers"] = "\n".join(servers_of(server, tls))
        places["backups"] = "\n".join(servers_of(server, tls, " backup"))
        places["resolvers"] = "" if is_address(server.host) else RESOLVERS
        places["tls_note"] = "" if certs is None else (TEMPLATES / "haproxy-tls.txt").read_text("utf-8")
        places["binds"] = "\n".join(f"    bind {one}{ending_tls(certs, one)}" for one in listen)
        numbered = [(f"shim{number}", f"abns@upshim{number}-{one.port}", one) for number, one in enumerate(shims, 1)]
        places["shims"] = "\n".join(f"    server {name} {way} track to_{name}/{name}" for name, way, _ in numbered)
        places["ways"] = "\n".join(WAY.format(name=name, way=way, shim=one) for name, way, one in numbered)
    elif kind == "nginx":
        places["name_note"] = "" if is_address(server.host) else NAME_NOTE
        places["listens"] = "\n".join(f"        listen {one};" for one in listen)
        places["shims"] = "\n".join(f"        server {one} max_fails=1 fail_timeout=5s;" for one in shims)
    elif kind == "nftables":
        places["redirects"] = "\n".join(redirect(one, shims[0].port) for one in (upstream, *more))
        places["upstreams"] = " ".join(f"--upstream {one}" for one in (upstream, *more))
    elif kind == "lighttpd":
        if certs is None:
            raise UnusableInput("lighttpd needs --certs: its key, certificate and CA (PEM)")
        places |= terminator(certs, shims[0], listen)
    elif kind == "socket":
        places["streams"] = "\n".join(f"ListenStream={one}" for one in every_address(listen))
    else:
        places["program"] = str(program or Path(sys.executable).with_name("upshim"))
        places["upstreams"] = " ".join(f"--upstream {one}" for one in (places["url"], *more))
        places["options"] = " ".join(f"--listen {one}" for one in every_address(listen))
        if mode == "transparent":
            places["options"] += " --mode transparent"
        if certs is not None:
            places["options"] += f" --certs {plain_path('--certs', certs)} --tls-oldest 1.0"
        if rules is not None:
            places["options"] += f" --rules {plain_path('--rules', rules)}"
        if server_ca is not None:
            places["options"] += f" --server-ca {plain_path('--server-ca', server_ca)}"
        if server_oldest != NEWEST:
            places["options"] += f" --server-tls-oldest {server_oldest}"
        if health != HEALTH:
            places["options"] += f" --health {health}"
        places["options"] += f" --admin {operator.admin}"
        if operator.token is not None:
            places["options"] += " --admin-token %d/admin-token"
        places["extras"] = "".join(f"{line}\n" for line in unit_lines(certs, mode, operator.token))
    return Text((TEMPLATES / KINDS[kind]).read_text("utf-8")).substitute(places)


def operators_end(admin: str | None, token: Path | None, instance: str | None) -> Operator:
    """As the options say. Raises `UnusableInput`."""
    if instance is not None and not _INSTANCE.fullmatch(instance):
        raise UnusableInput(f"--instance: expected a short name such as a or 8081, found {instance!r}")
    if instance is not None and admin is None:
        raise UnusableInput("--instance needs an --admin of its own: two cannot listen on one port")
    where = Operator().admin if admin is None else address("--admin", admin)
    if token is None and not is_loopback(where.host):
        raise UnusableInput(f"--admin: {where.host} can be reached from outside: --admin-token FILE")
    return Operator("upshim" if instance is None else f"upshim-{instance}", where, token)


def check_tls(kind: str, secure: bool, listen: list[Address], certs: Path | None) -> None:
    """Refuse what would be printed without the TLS it needs. Raises `UnusableInput`."""
    if kind == "nginx" and (secure or certs is not None):
        raise UnusableInput("nginx: its configuration is for HTTP on both sides; haproxy has TLS")
    if kind in {"haproxy", "nginx"} and certs is None and any(one.port == 443 for one in listen):
        needed = "haproxy needs --certs there" if kind == "haproxy" else "haproxy has TLS"
        raise UnusableInput(f"--listen: port 443 is for TLS: {needed}")


def check_server_tls(kind: str, secure: bool) -> None:
    """Refuse options of TLS with the server where there is none. Raises `UnusableInput`."""
    if kind not in {"haproxy", "systemd"}:
        raise UnusableInput(f"{kind} takes no --server-ca and --server-tls-oldest; haproxy and systemd do")
    if not secure:
        raise UnusableInput("--server-ca and --server-tls-oldest need --upstream https://...")


def servers_of(server: Address, tls: str, backup: str = "") -> Iterator[str]:
    """The update server as HAProxy has it: a name is looked up again and again."""
    if is_address(server.host):
        yield f"    server direct {server}{tls}{backup}"
        return
    yield f"    server direct {server}{tls} resolvers names resolve-prefer ipv4 init-addr libc,none{backup}"
    yield f"    server at-start {server}{tls} init-addr libc,none backup"


def tls_to(server: Address, ca: Path | None, oldest: str) -> str:
    """How HAProxy speaks TLS with the server. Raises `UnusableInput`."""
    roots = "@system-ca" if ca is None else plain_path("--server-ca", ca)
    older = "" if oldest == NEWEST else f" ssl-min-ver TLSv{oldest} ciphers DEFAULT:@SECLEVEL=0"
    return f" ssl verify required ca-file {roots} sni str({server.host}){older}"


def hidden_from_unit(program: Path | None) -> list[Path]:
    """What of the program to start is where a unit with ProtectHome=yes cannot see it."""
    started = program or Path(sys.executable).with_name("upshim")
    parts = [started, started.resolve(), *interpreter_of(started)]
    if program is None:
        parts += [Path(sys.executable).resolve(), Path(__file__).resolve()]
    return [part for part in parts if in_home(part)][:1]


def in_home(file: Path) -> bool:
    """Whether a unit with ProtectHome=yes sees nothing of it."""
    return any(file.absolute().is_relative_to(home) for home in HOMES)


def interpreter_of(script: Path) -> list[Path]:
    """What runs a script, by its first line; nothing where it cannot be read or is none."""
    try:
        with script.open("rb") as file:
            mark, first = file.read(2), file.readline(4096).split()
    except OSError:
        return []
    return [Path(os.fsdecode(first[0])).resolve()] if mark == b"#!" and first else []


def redirect(upstream: str, port: int) -> str:
    """A rule of nftables. Raises `UnusableInput`."""
    _, server = server_of(upstream)
    try:
        version = ipaddress.ip_address(server.host).version
    except ValueError:
        raise UnusableInput(f"--upstream: nftables needs an IP address, found {server.host!r}") from None
    return f"        {'ip' if version == 4 else 'ip6'} daddr {server.host} tcp dport {server.port} redirect to :{port}"


def unit_lines(certs: Path | None, mode: str, token: Path | None = None) -> Iterator[str]:
    """What a unit has more than others."""
    if certs is not None:
        file = plain_path("--certs", certs)
        yield "# So that a new certificate is taken without a restart, when its file changes and at `systemctl reload`."
        yield f"# groupadd --system {CERTS_GROUP}; chgrp {CERTS_GROUP} {file}; chmod 640 {file}"
        yield f"SupplementaryGroups={CERTS_GROUP}"
    if token is not None:
        yield "# The file stays root's. A new token is read at the next start."
        yield f"LoadCredential=admin-token:{plain_path('--admin-token', token)}"
    if mode == "transparent":
        yield "# `upshim deploy nftables > /etc/upshim.nft`; + is for root's rights."
        yield "ExecStartPost=+/usr/sbin/nft -f /etc/upshim.nft"
        yield "# New connections go straight at once, those under way are still ours until they end."
        yield "ExecStop=-+/usr/sbin/nft flush chain inet upshim prerouting"
        yield "ExecStopPost=-+/usr/sbin/nft delete table inet upshim"


def ending_tls(certs: Path | None, listen: Address) -> str:
    """How HAProxy ends TLS on a port, with phones of TLS 1.0 too; port 80 is for HTTP. Raises `UnusableInput`."""
    if certs is None or listen.port == 80:
        return ""
    return f" ssl crt {plain_path('--certs', certs)} ssl-min-ver TLSv1.0 ciphers DEFAULT:@SECLEVEL=0"


def plain_path(option: str, file: Path) -> str:
    """A path that every configuration can hold. Raises `UnusableInput`."""
    if not _FILE.fullmatch(str(file)):
        raise UnusableInput(f"{option}: expected a path without quotes and white space, found {str(file)!r}")
    return str(file.absolute())


def terminator(certs: Path, shim: Address, listen: list[Address]) -> dict[str, str]:
    """The places of what ends TLS in front of a shim."""
    first, *others = every_address(listen)
    return {
        "certs": plain_path("--certs", certs),
        "shim_host": shim.host,
        "bind": f"[{first.host}]" if ":" in first.host else first.host,
        "bind_port": str(first.port),
        "sockets": "\n".join(f'$SERVER["socket"] == "{one}" {{ ssl.engine = "enable" }}' for one in others),
    }


def every_address(listen: list[Address]) -> list[Address]:
    """Addresses as upshim and systemd write them."""
    return [Address("0.0.0.0", one.port) if one.host == "*" else one for one in listen]


def watching(kind: str) -> str:
    """Alert rules for Prometheus, or a dashboard for Grafana."""
    return grafana.dashboard() if kind == "grafana" else (TEMPLATES / "alerts.yml").read_text("utf-8")


def server_of(upstream: str) -> tuple[bool, Address]:
    """Whether the server is spoken to by TLS, and its address. Raises `UnusableInput`."""
    scheme, host, port = place_of_server("--upstream", upstream)
    return scheme == "https", Address(host, port)


def address(option: str, text: str) -> Address:
    """A HOST:PORT; to listen on, HOST may be *. Raises `UnusableInput`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    good = is_host(host) or (host, option) == ("*", "--listen")
    if not (good and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise UnusableInput(f"{option}: expected HOST:PORT, found {text!r}")
    return Address(host, int(port))
