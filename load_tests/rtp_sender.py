"""Light WebRTC publishers of pre-encoded RTP, many in one process.

    python -m load_tests.rtp_sender WHIP_URL... [--codec h264] [--seconds 30] [--video FILE] [--audio FILE]

ICE and DTLS are aiortc's; packets are encrypted and sent without its senders: about 25 us each. A publisher
answers PLI (from the next keyframe of the twin on, until none was asked for in a while), NACK (RTX
where negotiated) and sends a report a second. Its clock is known: `began` is the wall clock of media second
0.
Prints a line of JSON for each publisher once all are connected, and one at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from aiortc import (
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSessionDescription,
)

from load_tests.rtp_media import Form, Recording, recording
from load_tests.rtp_track import Track
from streamsvc.ingest import aiortc_hooks

CONNECT_SECONDS = 15.0

Exchange = Callable[[str], Awaitable[str]]  # an offer -> its answer


def whip(url: str, token: str | None = None) -> Exchange:
    """The exchange of a WHIP door (RFC 9725). What it returns raises httpx.HTTPStatusError if refused."""

    async def exchange(offer: str) -> str:
        headers = {"Content-Type": "application/sdp"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        async with httpx.AsyncClient(timeout=CONNECT_SECONDS) as client:
            answer = await client.post(url, content=offer, headers=headers)
        answer.raise_for_status()
        return answer.text

    return exchange


class _Nowhere:
    """A transport whose datagrams do not arrive."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def sendto(self, data: bytes, address: Any = None) -> None:
        """Drop a datagram."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


class Publisher:
    """One WebRTC publisher of a recording: `connect`, `begin`, then `close` or `vanish`.

    Attributes:
        audio, video: its tracks; None: the recording has none.
        began: wall clock (`time.time()`) of media second 0; the media go on without end, in loops.
        gone: set once the connection has ended, by whichever side.
    """

    def __init__(self, media: Recording) -> None:
        self.began = 0.0
        self.gone = asyncio.Event()
        self.audio: Track | None = None
        self.video: Track | None = None
        self._pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        if media.audio is not None:
            self.audio = Track(media.audio, None, self._add("audio", "opus"))
        if media.video is not None:
            self.video = Track(media.video, media.twin, self._add("video", media.video.codec))

    @property
    def tracks(self) -> list[Track]:
        """Those that there are."""
        return [track for track in (self.audio, self.video) if track is not None]

    def _add(self, kind: str, codec: str) -> RTCRtpSender:
        transceiver: RTCRtpTransceiver = self._pc.addTransceiver(kind, "sendonly")
        transceiver.setCodecPreferences(
            [
                known
                for known in RTCRtpSender.getCapabilities(kind).codecs
                if known.mimeType.lower().split("/")[1] in (codec, "rtx")
            ]
        )
        return transceiver.sender

    async def connect(self, exchange: Exchange) -> None:
        """Connect; nothing is sent yet.

        Args:
            exchange: of the door, such as `whip(url)`; what it raises is passed on.

        Raises:
            TimeoutError: there was no connection in CONNECT_SECONDS.
        """
        await self._pc.setLocalDescription(await self._pc.createOffer())
        answer = await exchange(self._pc.localDescription.sdp)
        connected = asyncio.Event()

        @self._pc.on("connectionstatechange")
        def changed() -> None:
            if self._pc.connectionState == "connected":
                connected.set()
            elif self._pc.connectionState in ("failed", "closed"):
                self.gone.set()

        await self._pc.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        async with asyncio.timeout(CONNECT_SECONDS):
            await connected.wait()

    def begin(self, after: float = 0.0) -> None:
        """Send in real time, from `after` seconds on."""
        at = asyncio.get_running_loop().time() + after
        self.began = time.time() + after
        for track in self.tracks:
            track.begin(at)

    async def close(self) -> None:
        """Stop, and say goodbye."""
        for track in self.tracks:
            track.end()
        await self._pc.close()

    async def vanish(self) -> None:
        """Stop without a word, as a publisher that has lost its network."""
        for track in self.tracks:
            track.end()
        for connection in aiortc_hooks.ice_connections(self._pc):
            for protocol in connection._protocols:
                protocol.transport = _Nowhere(protocol.transport)  # type: ignore[assignment]
        await self._pc.close()

    def counts(self) -> dict[str, dict[str, float]]:
        """What each track counts."""
        named = (("audio", self.audio), ("video", self.video))
        return {
            name: {**track.counts, "late": round(track.latest, 4)}
            for name, track in named
            if track is not None
        }


async def _publish(urls: list[str], media: Recording, seconds: float, token: str | None) -> None:
    publishers = [Publisher(media) for _ in urls]
    try:
        for publisher, url in zip(publishers, urls, strict=True):
            await publisher.connect(whip(url, token))
        for number, (publisher, url) in enumerate(zip(publishers, urls, strict=True)):
            publisher.begin(0.033 * number / len(urls))  # so that they do not all send at once
            print(json.dumps({"url": url, "began": publisher.began}), flush=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(sys.stdin.read)  # until its end
    finally:
        for publisher in publishers:
            await publisher.close()
    for publisher, url in zip(publishers, urls, strict=True):
        print(json.dumps({"url": url, "counts": publisher.counts()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("urls", nargs="+", help="WHIP addresses: a publisher each")
    parser.add_argument("--token", help="bearer token")
    parser.add_argument("--codec", choices=("vp8", "h264"), default="vp8")
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="(%(default)s)")
    parser.add_argument("--kbps", type=int, default=2000, help="of the video (%(default)s)")
    parser.add_argument("--seconds", type=float, default=30.0, help="to publish (%(default)s)")
    parser.add_argument("--loop", type=float, default=20.0, help="seconds of media (%(default)s)")
    parser.add_argument("--video", type=Path, help="default: generated pictures")
    parser.add_argument("--audio", type=Path, help="default: a tone")
    parser.add_argument("--kept", type=Path, required=True, help="folder of encoded media")
    chosen = parser.parse_args()
    media = recording(
        chosen.kept,
        seconds=chosen.loop,
        video=chosen.video,
        audio=chosen.audio,
        form=Form(chosen.codec, chosen.size[0], chosen.size[1], kbps=chosen.kbps),
    )
    asyncio.run(_publish(chosen.urls, media, chosen.seconds, chosen.token))


if __name__ == "__main__":
    main()
