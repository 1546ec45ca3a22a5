"""A server for the bench where nginx is not installed: `python -m tools.bench.proxy_backend PORT FILE`.

Raw asyncio, so that it is several times faster than any proxy in Python that stands before it.
"""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from tools.bench import checks

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, file: Path) -> None:
    """Answer requests until the phone hangs up."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: %d\r\n\r\n%s"
    answer %= len(checks.ANSWER), checks.ANSWER
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET "):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % file.stat().st_size)
                with file.open("rb") as content:
                    await writer.drain()
                    await asyncio.get_running_loop().sendfile(writer.transport, content)
            else:
                found = _LENGTH.search(head)
                await reader.readexactly(int(found[1]) if found else 0)
                writer.write(answer)
            if b"connection: close" in head.lower():
                break
    except (OSError, asyncio.IncompleteReadError):
        return
    finally:
        writer.close()


async def main(port: int, file: Path) -> None:
    """Serve until killed."""
    server = await asyncio.start_server(lambda reader, writer: serve(reader, writer, file), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
