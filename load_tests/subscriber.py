"""A subscriber of one session: its events, each with the second at which it came."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import websockets
from websockets.asyncio.client import connect

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Came:
    """An event, and the monotonic second at which it came."""

    at: float
    event: Body

    @property
    def kind(self) -> str:
        """The event's type."""
        return str(self.event["type"])


class Subscriber:
    """Collects the events of a session: `async with Subscriber(address, session) as reader`.

    Args:
        address: of the server: "http://127.0.0.1:8080".
        session: its id.
        key: the API key; "": none is needed.
        types: of the events, comma-separated; "": all.
    """

    def __init__(self, address: str, session: str, key: str = "", types: str = "") -> None:
        self.came: list[Came] = []
        self.zero = float("inf")  # monotonic seconds of session second 0, at the latest
        self._url = f"{address.replace('http', 'ws', 1)}/v1/sessions/{session}/events?after=0&types={types}"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Self:
        # Without pings: a server that is late is measured, not left.
        self._socket = await connect(
            self._url, additional_headers=self._headers, max_size=None, ping_interval=None
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self._socket.close()

    async def _read(self) -> None:
        with contextlib.suppress(websockets.WebSocketException, OSError):
            async for text in self._socket:
                now, event = time.monotonic(), json.loads(text)
                self.came.append(Came(now, event))
                if event.get("after") is not None and event["type"].startswith("latency."):
                    self.zero = min(self.zero, now - event["at"])  # told as it was made
                async with self._news:
                    self._news.notify_all()

    async def until(self, wanted: Callable[[Came], bool], seconds: float, since: float = 0.0) -> Came | None:
        """The first event from monotonic second `since` on that is wanted; None: none came in time."""
        seen = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    for one in self.came[seen:]:
                        seen += 1
                        if one.at >= since and wanted(one):
                            return one
                    async with self._news:
                        if seen == len(self.came):
                            await self._news.wait()
        return None


def spoken_until(one: Came) -> float:
    """Session seconds of the end of the last word of a caption; of another event: -1."""
    words = one.event.get("words") or [] if one.kind in ("caption.partial", "caption.final") else []
    return max((float(word["end"]) for word in words), default=-1.0)
