"""Stream callables for mitmproxy: they see a body pass. None of them ever raises: mitmproxy would leave the client
hanging. Each is called with pieces of at most 64 KiB and, at the end of the message, with b"".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from captures.base_recording import Recorder, StreamedBody
from captures.exchange import Body
from proxy_addons.failures import Failures


class Tee:
    """Lets a body through and keeps its size and, where a recording is running, its hash and the bytes.

    Nobody asks for the hash without one, and it is a third of what a download costs.
    """

    def __init__(self, failures: Failures, recording: Recorder | None) -> None:
        self._failures = failures
        self._recording = recording
        self._kept: StreamedBody | None = recording.stream() if recording is not None else None
        self._hash = hashlib.sha256()
        self.size = 0

    def __call__(self, data: bytes) -> bytes:
        """Pass a piece on."""
        try:
            self.size += len(data)
            if data and self._recording is not None and self._kept is not None:
                self._hash.update(data)
                self._recording.chunk(self._kept, data)
        except Exception as error:  # noqa: BLE001 - see above
            self._failures.exception(error)
        return data

    def body(self) -> Body:
        """What has passed, as the body of a message; the recording keeps the file."""
        digest = self._hash.hexdigest() if self._recording is not None else ""
        if self._recording is not None and self._kept is not None:
            self._recording.finish(self._kept, digest)
            self._kept = None
        return Body(self.size, digest, self.size)

    def drop(self) -> None:
        """Forget the bytes; does nothing after `body`."""
        if self._recording is not None and self._kept is not None:
            self._recording.finish(self._kept, None)
            self._kept = None


class Hold:
    """Holds back a body of unknown length to edit it as a whole; past the limit it lets everything through.

    `edit` gets the whole body and returns what is to be sent. `on_pass` is what the pieces of a body over the limit
    go through.
    """

    def __init__(self, failures: Failures, limit: int, edit: Callable[[bytes], bytes], tee: Tee) -> None:
        self._failures = failures
        self._limit = limit
        self._edit = edit
        self._held: bytearray | None = bytearray()
        self.tee = tee
        self.original: bytes | None = None

    def __call__(self, data: bytes) -> list[bytes]:
        """Take a piece and return the pieces to send now; an empty piece would end a chunked body."""
        held = self._held
        if held is None:
            return [self.tee(data)] if data else []
        if data:
            held += data
            if len(held) <= self._limit:
                return []
            self._held = None
            return [self.tee(bytes(held))]
        self.original = bytes(held)
        edited = self.original
        try:
            edited = self._edit(self.original)
        except Exception as error:  # noqa: BLE001 - see above
            self._failures.exception(error)
        self._held = bytearray()
        return [edited] if edited else []
