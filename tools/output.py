"""Standard output that says what it is when it fails: of a full disk, an error tells no place by itself."""

from __future__ import annotations

import io
import os
import sys

NAME = "standard output"


class Output(io.TextIOWrapper):
    """Text for people and programs. What the terminal cannot show is escaped: names of files and targets may hold it.

    `failed` is the first error, also where whoever wrote took no notice of it.
    """

    failed: OSError | None = None

    def write(self, text: str) -> int:
        """Write. Raises `OSError` that names standard output."""
        try:
            return super().write(text)
        except OSError as error:
            raise self._named(error) from None

    def flush(self) -> None:
        """Hand on what was written. Raises as `write` does."""
        try:
            super().flush()
        except OSError as error:
            raise self._named(error) from None

    def _named(self, error: OSError) -> OSError:
        error.filename = NAME
        self.failed = self.failed or error
        return error


def take_over() -> None:
    """Let standard output be such a one from now on; nothing where it is closed."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        plain = sys.stdout
        sys.stdout = Output(
            plain.buffer,
            plain.encoding,
            "backslashreplace",
            line_buffering=plain.line_buffering,
            write_through=plain.write_through,
        )


def finish() -> None:
    """Hand on what was printed. Raises `OSError` where that fails, or failed before and nobody heard of it."""
    if sys.stdout is not None:
        sys.stdout.flush()
    if isinstance(sys.stdout, Output) and sys.stdout.failed is not None:
        raise sys.stdout.failed


def give_up() -> None:
    """Drop what a failing output was not handed, so that the interpreter does not complain again at exit."""
    if isinstance(sys.stdout, Output):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
