"""The process that writes a folder's recording for the proxy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from captures.privacy import Stored
from captures.sink import Lose, Sink
from captures.writer_process import serve

ROOT = Path(__file__).resolve().parent.parent  # for a mitmproxy that was started elsewhere with our script
RUN = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from {__name__} import main; main(sys.argv[1:])"
COMMAND: Sequence[str] = (sys.executable, "-c", RUN)


def command(folder: Path, setting: Stored) -> Sequence[str]:
    """What starts it, but for the descriptor to talk over."""
    return (*COMMAND, str(folder), setting)


def main(arguments: Sequence[str]) -> None:
    """Write for whoever is at the other end of a socket."""
    from captures.sinks import FolderSink  # noqa: PLC0415 - the process that starts this one needs none of them
    from proxy_addons.recalled import ANSWERS  # noqa: PLC0415
    from proxy_addons.stored_history import PhoneProjection  # noqa: PLC0415

    folder, setting, descriptor = arguments

    def open_sink(lose: Lose) -> Sink:
        projection = PhoneProjection(lambda error: lose(f"in the history of a phone: {error!r}"))
        return FolderSink(Path(folder), cast(Stored, setting), projection, lose, ANSWERS)

    serve(int(descriptor), open_sink)
