"""Processes that take WebRTC publishers and count what becomes of them, for `decoding.py`.

    python -m load_tests.receivers aiortc|full|keyframes|floor

Prints its port; POST /whip takes an offer, GET /figures tells the counts. Ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamsvc.core import config, metrics
from streamsvc.events.store import Store
from streamsvc.ingest import aiortc_hooks, peer
from streamsvc.service.service import DECODING_THREADS
from streamsvc.service.session import Session, SharedResources
from tests.builders.session import Models

KINDS = ("aiortc", "full", "keyframes", "floor")
LAG = 0.05  # seconds between looks at the event loop


class Receiver(Protocol):
    """What takes publishers. `counts`: pictures, seconds of sound, and packets lost."""

    async def answer(self, offer: str) -> str: ...
    def counts(self) -> dict[str, float]: ...
    async def close(self) -> None: ...


class Plain:
    """aiortc as its examples use it: every frame of every track is read."""

    def __init__(self) -> None:
        self._peers: list[RTCPeerConnection] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts = {"pictures": 0.0, "audio": 0.0, "lost": 0.0}

    async def answer(self, offer: str) -> str:
        pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._peers.append(pc)

        @pc.on("track")
        def on_track(track: Any) -> None:
            task = asyncio.ensure_future(self._read(track))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        await pc.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await pc.setLocalDescription(await pc.createAnswer())
        return str(pc.localDescription.sdp)

    async def _read(self, track: Any) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self._counts["pictures"] += 1
                else:
                    self._counts["audio"] += frame.samples / frame.sample_rate

    def counts(self) -> dict[str, float]:
        return dict(self._counts)

    async def close(self) -> None:
        await asyncio.gather(*(pc.close() for pc in self._peers))


class Floor(Plain):
    """Datagrams are received and decrypted; nothing is made of them."""

    async def answer(self, offer: str) -> str:
        sdp = await super().answer(offer)
        pc = self._peers[-1]
        dtls: Any = pc.getTransceivers()[0].receiver.transport
        for connection in aiortc_hooks.ice_connections(pc):
            for protocol in connection._protocols:
                protocol.datagram_received = functools.partial(  # type: ignore[method-assign]
                    self._received, dtls, protocol.datagram_received
                )
        return sdp

    def _received(self, dtls: Any, before: Any, data: bytes, address: Any) -> None:
        if data[0] < 128 or dtls._rx_srtp is None or 192 <= data[1] <= 223:  # RTCP (RFC 5761)
            before(data, address)
            return
        dtls._rx_srtp.unprotect(data)
        self._counts["packets"] = self._counts.get("packets", 0.0) + 1


class Ours:
    """Our peers, and of each session the stages that decode, choose keyframes and store them."""

    def __init__(self, video: str) -> None:
        self._settings = config.load(None, ingest={"video": video})
        media = ThreadPoolExecutor(DECODING_THREADS, thread_name_prefix="media")
        self._shared = SharedResources(self._settings, Models().roles(), media)
        self._sessions: list[tuple[Session, peer.Peer, Store]] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._audio = 0.0

    async def answer(self, offer: str) -> str:
        store = Store(None, events=1000, frames=100)
        session = Session(f"s{len(self._sessions)}", self._shared, store)
        sink = peer.FrameSink(session.id, session.clock.zero, session.media.tap, lambda state, why: None)
        made = await peer.answer(offer, self._settings.ingest, self._settings.limits, sink)
        session.media.attach(made)
        self._sessions.append((session, made, store))
        for work in (session.vision.run(), session.speech._decode(), self._listen(session)):
            self._tasks.append(asyncio.ensure_future(work))
        return made.sdp

    async def _listen(self, session: Session) -> None:
        while True:
            for chunk in await session.speech._chunks.take():
                self._audio += len(getattr(chunk, "samples", ())) / 16_000

    def counts(self) -> dict[str, float]:
        stats = [made.stats() for _, made, _ in self._sessions]
        names = {"lost": "audio_lost", "holes": "video_holes", "plis": "video_plis", "frames": "video_frames"}
        counts = {name: sum(one.get(key, 0.0) for one in stats) for name, key in names.items()}
        left_out = sum(session.vision.intra.left_out for session, *_ in self._sessions)
        dropped = sum(session.vision.video.dropped for session, *_ in self._sessions)
        return counts | {
            "pictures": counts["frames"] - left_out - dropped,
            "dropped": float(dropped),
            "audio": self._audio,
            "chosen": float(metrics.frames.labels("keyframe")._value.get()),
        }

    async def close(self) -> None:
        for _, made, store in self._sessions:
            await made.close()
            store.close(purge=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def receive(kind: str) -> None:
    receiver: Receiver = Plain() if kind == "aiortc" else Floor() if kind == "floor" else Ours(kind)
    lags: list[float] = []

    async def watch() -> None:
        while True:
            due = time.monotonic() + LAG
            await asyncio.sleep(LAG)
            lags.append(time.monotonic() - due)

    async def whip(request: Request) -> Response:
        return Response(await receiver.answer((await request.body()).decode()), 201)

    async def figures(request: Request) -> Response:
        body = {"cpu": time.process_time(), "at": time.monotonic(), "lags": list(lags), **receiver.counts()}
        lags.clear()
        return JSONResponse(body)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        task = asyncio.ensure_future(watch())
        yield
        task.cancel()
        await receiver.close()

    routes = [Route("/whip", whip, methods=["POST"]), Route("/figures", figures)]
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=routes, lifespan=lifespan), port=0, log_level="warning")
    )
    serving = asyncio.ensure_future(server.serve())
    while not server.started:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until its end
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(receive(sys.argv[1]))
