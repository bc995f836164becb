"""A WebRTC publisher (plain aiortc), connected to a `Peer` in the same process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack, VideoStreamTrack
from av import VideoFrame

from streamsvc.core import clock
from streamsvc.core.config import Ingest, Limits
from streamsvc.core.types import EncodedFrame
from streamsvc.ingest import aiortc_hooks
from streamsvc.ingest.peer import FrameSink, Peer, answer


class Noise(VideoStreamTrack):
    """Pictures of several packets each."""

    async def recv(self) -> VideoFrame:
        pts, base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(
            np.random.default_rng(pts).integers(0, 255, (120, 160, 3), dtype=np.uint8), format="rgb24"
        )
        frame.pts, frame.time_base = pts, base
        return frame


class Muted(MediaStreamTrack):
    """An audio track that sends nothing."""

    kind = "audio"

    async def recv(self) -> Any:
        await asyncio.sleep(3600)


class Call:
    """A publisher and our peer, with the frames and states of the peer."""

    def __init__(self) -> None:
        self.frames: list[EncodedFrame] = []
        self.states: list[tuple[str, str]] = []
        self.sender = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer: Peer

    async def until(self, condition: Callable[[], Any], seconds: float = 10.0) -> None:
        """Wait until a condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def of(self, kind: str) -> list[EncodedFrame]:
        """The frames of one kind."""
        return [frame for frame in self.frames if frame.kind == kind]

    def cut(self) -> Callable[[], None]:
        """Drop all datagrams of the publisher; call the result to restore them."""
        protocols = [p for c in aiortc_hooks.ice_connections(self.sender) for p in c._protocols]
        transports = [p.transport for p in protocols]

        class BlackHole:
            def __init__(self, real: Any) -> None:
                self._real = real

            def sendto(self, data: Any, address: Any) -> None:
                """Drop the datagram."""

            def __getattr__(self, name: str) -> Any:
                return getattr(self._real, name)

        for protocol in protocols:
            protocol.transport = BlackHole(protocol.transport)  # type: ignore[assignment]

        def restore() -> None:
            for protocol, transport in zip(protocols, transports, strict=True):
                protocol.transport = transport

        return restore


@asynccontextmanager
async def publishing(
    *tracks: MediaStreamTrack,
    tap: Callable[[EncodedFrame], None] | None = None,
    before_connect: Callable[[Peer], None] | None = None,
    **settings: Any,
) -> AsyncIterator[Call]:
    """Connect a publisher of these tracks; `settings`: of `config.Ingest`."""
    call = Call()
    for track in tracks or (AudioStreamTrack(), Noise()):
        call.sender.addTransceiver(track, "sendonly")
    await call.sender.setLocalDescription(await call.sender.createOffer())
    call.peer = await answer(
        call.sender.localDescription.sdp,
        Ingest(**settings),
        Limits(),
        FrameSink(
            "s",
            clock.now(),
            tap or call.frames.append,
            lambda state, reason: call.states.append((state, reason)),
        ),
    )
    try:
        if before_connect:
            before_connect(call.peer)
        await call.sender.setRemoteDescription(RTCSessionDescription(call.peer.sdp, "answer"))
        yield call
    finally:
        await call.peer.close()
        await call.sender.close()
        await asyncio.sleep(0.05)
