"""A local HTTP server that records requests and answers with scripted statuses, then with 200."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import Message
from email.parser import Parser
from typing import Any


@dataclass
class Listener:
    """The server's script and record.

    `says`: statuses to answer with; None closes the connection. `text`: the body of each response.
    `got`: target, headers and body of each request.
    """

    says: deque[int | None] = field(default_factory=deque)
    got: list[tuple[str, Message, bytes]] = field(default_factory=list)
    text: str = "ok"
    url: str = ""
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, count: int) -> None:
        """Wait until `count` requests have arrived."""
        async with asyncio.timeout(10):
            while len(self.got) < count:
                self._changed.clear()
                await self._changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                first, _, rest = (await reader.readuntil(b"\r\n\r\n")).decode().partition("\r\n")
                headers = Parser().parsestr(rest)
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                self.got.append((first.split(" ")[1], headers, body))
                self._changed.set()
                status = self.says.popleft() if self.says else 200
                if status is None:
                    break
                more = "Location: /elsewhere\r\n" if status == 302 else ""
                head = f"HTTP/1.1 {status} So\r\n{more}Content-Length: {len(self.text)}\r\n\r\n"
                writer.write(f"{head}{self.text}".encode())
                await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def listening(*says: int | None) -> AsyncIterator[Listener]:
    """Run one on loopback."""
    made = Listener(deque(says))
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in made._tasks:
            task.cancel()
        await asyncio.gather(*made._tasks, return_exceptions=True)
        await server.wait_closed()
