"""A local caption target that follows the documents of YouTube, Zoom or OvenMediaEngine strictly."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from streamsvc.events.caption_posts import RetryPolicy

SECRET = "nYtXJqRKCW"
SIGNED = f"id=200610693&ns=GZHkEA==&expire=86400&sparams=id%2Cns%2Cexpire&signature={SECRET}"
QUICK = RetryPolicy(
    first_delay=0.01,
    max_delay=0.02,
    slow_delay=0.01,
    max_refusals=3,
    max_not_ready=3,
    timeout=2.0,
    grace=0.3,
    queue_size=4,
)
YOUTUBE_BODY = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\n[^\n]+\n)+")
STREAM = "/v1/vhosts/default/apps/app/streams/talk"
REASONS = {200: "OK", 302: "Found"}


class CaptionTarget:
    """The target. It takes the number after the last one, else Zoom 403 and YouTube 400, which checks times.

    `responses` are used first: a status, "lost" (taken, without a response) or "hang".
    """

    def __init__(self, to: str, *, last: int = 0, ahead: float = 0.0) -> None:
        self.to, self.last, self.ahead = to, last, ahead
        self.responses: deque[int | str] = deque()
        self.bodies: list[str] = []  # of every post that was taken
        self.seqs: list[int] = []  # of every POST
        self.heads: list[str] = []  # of every request
        self.gate = asyncio.Event()  # responses wait until it is set
        self.gate.set()
        self.url = ""
        self.connections = set[asyncio.Task[Any]]()
        self._changed = asyncio.Event()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                self._changed.clear()
                await self._changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.connections.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._respond(reader, writer):
                self._changed.set()
        self._changed.set()
        writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = re.search(r"(?i)content-length: (\d+)", head)
        body = (await reader.readexactly(int(size[1]) if size else 0)).decode()
        self.heads.append(head)
        method, path, _ = head.split("\r\n")[0].split(" ")
        if method == "POST" and self.to != "ome":
            self.seqs.append(int(re.search(r"[?&]seq=(\d+)(&|$)", path)[1]))  # type: ignore[index]
        self._changed.set()
        await self.gate.wait()
        response = self.responses.popleft() if self.responses and method == "POST" else 200
        if response == "hang":
            await asyncio.Event().wait()
        status, text = (
            self._judge(method, path, head, body) if response in (200, "lost") else (int(response), "")
        )
        if response == "lost":
            return False
        location = "Location: /elsewhere\r\n" if status == 302 else ""
        start = f"HTTP/1.1 {status} {REASONS.get(status, 'No')}\r\n{location}"
        writer.write(f"{start}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()
        return True

    def _judge(self, method: str, path: str, head: str, body: str) -> tuple[int, str]:
        if method == "GET":
            assert path == f"/closedcaption/seq?{SIGNED}&"
            return 200, f"{self.last}\n"
        assert method == "POST", head
        kind = re.search(r"(?i)content-type: (.*)\r", head)
        if self.to == "ome":
            return self._judge_ome(path, head, kind[1] if kind else "", body)
        seq = self.seqs[-1]
        if self.to == "zoom":
            assert path == f"/closedcaption?{SIGNED}&seq={seq}&lang=en-US"
            assert kind and kind[1] == "text/plain; charset=utf-8"
            if seq != self.last + 1:
                return 403, ""
        else:
            assert path == f"/closedcaption?cid={SECRET}&seq={seq}"
            assert kind and kind[1] == "text/plain"
            assert YOUTUBE_BODY.fullmatch(body)
            now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=self.ahead)
            stamps = [datetime.datetime.fromisoformat(f"{line}+00:00") for line in body.split("\n")[0:-1:2]]
            server_time = now.isoformat(timespec="milliseconds").removesuffix("+00:00")
            if seq != self.last + 1 or any(abs((stamp - now).total_seconds()) > 60 for stamp in stamps):
                return 400, f"{server_time}\nTimestamp skew larger than 60 sec in {path}"
            self.last = seq
            self.bodies.append(body)
            return 200, f"{server_time}\n"
        self.last = seq
        self.bodies.append(body)
        return 200, ""

    def _judge_ome(self, path: str, head: str, kind: str, body: str) -> tuple[int, str]:
        basic = re.search(r"(?i)authorization: Basic (.*)\r", head)
        if basic is None or base64.b64decode(basic[1]).decode() != SECRET:
            return 401, '{"statusCode": 401, "message": "[HTTP] Authorization header is required"}'
        assert kind == "application/json"
        told = json.loads(body)
        if path == f"{STREAM}:sendEvent":
            assert set(told) == {"eventFormat", "eventType", "events"}
            assert (told["eventFormat"], told["eventType"]) == ("id3v2", "video")
            for frame in told["events"]:
                assert set(frame) == {"frameType", "info", "data"} and frame["frameType"] == "TXXX"
            self.bodies += [frame["data"] for frame in told["events"]]
        elif path == f"{STREAM}:sendSubtitles":
            assert set(told) == {"format", "data"} and told["format"] == "webvtt"
            for track in told["data"]:
                assert set(track) == {"label", "subtitles"}
                for cue in track["subtitles"]:
                    assert set(cue) == {"startOffset", "durationMs", "text"} and cue["startOffset"] >= 0
                    self.bodies.append(f"{track['label']} {cue['durationMs']}: {cue['text']}")
        else:
            return 404, '{"statusCode": 404, "message": "Could not find the stream"}'
        return 200, '{"statusCode": 200, "message": "OK"}'


@contextlib.asynccontextmanager
async def caption_target(
    to: str, tls: ssl.SSLContext | None = None, *, last: int = 0, ahead: float = 0.0
) -> AsyncIterator[CaptionTarget]:
    target = CaptionTarget(to, last=last, ahead=ahead)
    server = await asyncio.start_server(target.serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    target.url = f"http://127.0.0.1:{port}/closedcaption?{SIGNED if to == 'zoom' else f'cid={SECRET}'}"
    if to == "ome":
        target.url = f"http://127.0.0.1:{port}{STREAM}"
    try:
        yield target
    finally:
        server.close()
        for task in target.connections:
            task.cancel()
        await asyncio.gather(*target.connections, return_exceptions=True)
