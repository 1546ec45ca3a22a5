"""A handler that writes down what a reader tells it, as lines that can be compared."""

from __future__ import annotations

from dissectors.http1 import Framing, Headers, Reader, RequestHead, ResponseHead, request_framing, response_framing
from dissectors.http1.reader import Role


class Script:
    def __init__(self, role: Role, method: str | None = "GET") -> None:
        self.lines: list[str] = []
        self.bodies: list[bytes] = []
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.positions: list[int] = []
        self.method = method
        self.reader = Reader(role, self)

    def head(self, head: RequestHead | ResponseHead, position: int) -> Framing:
        if isinstance(head, RequestHead):
            self.lines.append(f"{head.method} {head.target} {head.version}")
            framing = request_framing(head)
        else:
            self.lines.append(f"{head.status} {head.reason} {head.version}")
            framing = response_framing(head, self.method)
        self.positions.append(position)
        self.bodies.append(b"")
        self.notes += [*head.notes, *framing.notes]
        self.problems += [*head.faults, *framing.faults]
        return framing

    def body(self, data: bytes) -> None:
        self.bodies[-1] += data

    def missing(self, size: int) -> None:
        self.lines.append(f"missing {size}")

    def done(self, trailers: Headers, problems: tuple[str, ...]) -> None:
        self.lines.append("done" + "".join(f" {name}={value}" for name, value in trailers) + " !" * bool(problems))
        self.problems += problems

    def malformed(self, reason: str, position: int) -> None:
        self.lines.append("malformed")
        self.positions.append(position)
        self.problems.append(reason)

    def lost(self, reason: str) -> None:
        self.lines.append("lost")

    def skipped(self, size: int) -> None:
        self.lines.append(f"skipped {size}")


def read(role: Role, *pieces: bytes | int, method: str | None = "GET", how: str = "closed") -> Script:
    """Read pieces (numbers are holes) to the end."""
    script = Script(role, method)
    for piece in pieces:
        if isinstance(piece, int):
            script.reader.hole(piece)
        else:
            script.reader.feed(piece)
    script.reader.finish(how)
    return script
