"""What the verbs that read a capture share: the options for TLS secrets, and the account of what could not be read."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from captures.database_url import Place
from captures.errors import CaptureError
from captures.items import CaptureSummary
from captures.read_options import ReadOptions
from captures.tls_secrets import check_keylog, check_rsa_key
from tools.errors import EXIT_OK, EXIT_PROBLEM, UnusableInput


def add_secrets(parser: argparse.ArgumentParser) -> None:
    """Declare the options for TLS secrets."""
    parser.add_argument("--keylog", type=Path, metavar="FILE", help="TLS secrets in SSLKEYLOGFILE form (needs tshark)")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the server's RSA key, PEM (needs tshark)")


def with_secrets(args: argparse.Namespace, options: ReadOptions) -> ReadOptions:
    """The options with the TLS secrets that were given. Raises `UnusableInput`."""
    for name, file, check in (("--keylog", args.keylog, check_keylog), ("--tls-key", args.tls_key, check_rsa_key)):
        try:
            if file:
                check(file)
        except CaptureError as error:
            raise UnusableInput(f"{name}: {error}") from error
    return replace(options, keylog=args.keylog, tls_key=args.tls_key)


def exit_code(summary: CaptureSummary) -> int:
    """1 where the capture could not be read in full."""
    return EXIT_PROBLEM if summary.partial else EXIT_OK


def size(path: Place) -> int | None:
    """How many bytes will be read of a capture file, for a progress bar; None of a folder, a pipe or a database."""
    with suppress(OSError):  # told by whoever reads it
        return path.stat().st_size if isinstance(path, Path) and path.is_file() else None
    return None
