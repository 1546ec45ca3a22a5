"""The `upshim` command: finds the verb, runs it, and turns unusable input into one line and exit code 2."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn, Protocol, cast

from tools import output
from tools.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_UNUSABLE, UnusableInput, without_passwords
from tools.options import declare

# Verb -> module. Modules are imported only when their verb runs, so that `decode` never waits for mitmproxy.
VERBS: dict[str, str] = {
    "demo": "tools.demo",
    "proxy": "tools.proxy",
    "deploy": "tools.deploy",
    "doctor": "tools.doctor",
    "exchanges": "tools.exchanges",
    "decode": "tools.decode",
    "forget": "tools.forget",
    "journal": "tools.journal",
    "phones": "tools.phones",
    "replay": "tools.replay",
    "rules": "tools.rules",
    "convert": "tools.convert",
    "serve": "tools.serve",
    "phone": "tools.phone",
    "bench": "tools.bench",
}


DESCRIPTION = "Records, decodes, explains and repairs the firmware updates of Microsoft UC phones."


class Verb(Protocol):
    """What a verb's module holds. The first line of its docstring is its help, the rest is shown below the options."""

    __doc__: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the options."""

    def run(self, args: argparse.Namespace) -> int:
        """Do the work and return the exit code."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit 2."""
        self.exit(EXIT_UNUSABLE, without_passwords(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")


class ShowVersion(argparse.Action):
    """`--version`: looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        """Print it and exit 0."""
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415

        try:
            shown = version("upshim")
        except PackageNotFoundError:
            shown = "(not installed)"
        print(f"upshim {shown}")
        parser.exit()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code (0 good, 1 the answer is no, 2 unusable input)."""
    if argv is None:  # the command itself, and not a test that looks at what is printed
        output.take_over()
        hold_signals(sys.argv[1:])
    words = list(sys.argv[1:] if argv is None else argv)
    who = "upshim"
    try:
        try:
            args = parsed(words)
            who = f"upshim {args.verb}"
            return int(args.run(args))
        finally:
            output.finish()
    except UnusableInput as error:
        print(without_passwords(f"{who}: {error}"), file=sys.stderr)
        return EXIT_UNUSABLE
    except OSError as error:  # that no verb knew what to do about: a folder of somebody else, a full disk
        if error.filename == output.NAME:
            output.give_up()
            if isinstance(error, BrokenPipeError):  # the reader has gone (`| head`)
                return EXIT_OK
        place = f"{error.filename}: " if error.filename is not None else ""
        print(f"{who}: {place}{error.strerror or error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def hold_signals(words: Sequence[str]) -> None:
    """What a proxy acts on may come before it is ready to, and must not end it."""
    if words[:1] == ["proxy"]:
        from proxy_addons import early_signals  # noqa: PLC0415 - the other verbs end as they always do

        early_signals.hold()


def parsed(words: Sequence[str]) -> argparse.Namespace:
    """The options. Ends the process where they are none, or help was asked for."""
    parser = OneLineParser(prog="upshim", description=DESCRIPTION)
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="show the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    named = next((word for word in words if not word.startswith("-")), None)
    for name, module_name in VERBS.items():
        if name == named or named not in VERBS:
            add_verb(verbs, name, cast(Verb, importlib.import_module(module_name)))
        else:
            verbs.add_parser(name)
    return parser.parse_args(words)


def add_verb(verbs: argparse._SubParsersAction[OneLineParser], name: str, module: Verb) -> None:
    """Declare one verb from its module."""
    parser = declare(verbs, name, module.__doc__)
    module.add_arguments(parser)
    parser.set_defaults(run=module.run)
