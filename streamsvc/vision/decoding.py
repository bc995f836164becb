"""The first stage of vision: encoded frames to pictures that are compared with the last keyframe."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.queues import Closed, Ring
from streamsvc.core.types import VideoFrame
from streamsvc.ingest import decode
from streamsvc.ingest.decode import TrackFrame
from streamsvc.ingest.decoders import Decoders, VideoDecoding, threads, video_decoder
from streamsvc.vision.intra import IntraFilter
from streamsvc.vision.probing import Prober

_KEYFRAME_REQUEST_SECONDS = 1.0  # between requests for a codec keyframe
_BATCH = 8  # frames decoded at once
_GATHER_SECONDS = 0.1  # between two batches: handing a frame to a thread costs a quarter of its decoding


class DecodingStage:
    """Decodes the frames of one session.

    Args:
        context: of the session.
        prober: takes the pictures.
        tune: called before pictures are compared: sets what load and speech leave to the sampler.

    `frames`: the ring of encoded frames that wait; full, it drops the oldest, which is counted.
    `intra`: which frames are put into it.
    """

    def __init__(self, context: SessionContext, prober: Prober, tune: Callable[[], None]) -> None:
        self.frames: Ring[TrackFrame] = Ring(context.settings.ingest.video_ring, self._dropped)
        ingest = context.settings.ingest
        self.intra = IntraFilter(ingest.video, ingest.keyframe_kbps, lossless=context.options.lossless)
        self._context = context
        self._prober = prober
        self._tune = tune
        self._missing = False  # frames were dropped before the next one
        self._waits = context.tape.decides or context.options.lossless  # what comes is no matter of time
        self._idle: asyncio.Timeout | None = None  # of the wait for frames while a picture may stand

    def _dropped(self, item: TrackFrame) -> None:
        metrics.count_dropped("video")
        self._missing = True

    def put(self, item: TrackFrame) -> None:
        """Queue a frame, where it is to be decoded. Non-blocking."""
        chosen, request = self.intra.take(item)
        if request:
            self._context.host.request_keyframe()
        if not chosen:
            metrics.frames.labels("inter").inc()
        for one in chosen:
            self.frames.put(one)

    def look_again(self) -> None:
        """Request a codec keyframe, and compare the picture that stands now, if one does."""
        if self.intra.alone:
            self.intra.note_request()
            self._context.host.request_keyframe()
        if self._idle is not None and self._prober.stands():
            self._idle.reschedule(asyncio.get_running_loop().time())

    async def run(self) -> None:
        """Decode until the ring is closed and empty, and every picture has been compared."""
        next_request = 0.0  # monotonic seconds
        media = self._context.media
        with Decoders(self._context.session, video_decoder) as decoders:
            while (batch := await self._next_frames(decoders.present)) is not None:
                if not batch:
                    self._tune()
                    await self._prober.stand()
                    continue
                if self._missing:
                    self._missing = False
                    first_track, first = batch[0]
                    batch[0] = (first_track, replace(first, gap=max(first.gap, 0.001)))
                for track, frames in decode.by_track(batch):
                    decoder, before = decoders.of(track)
                    if before is not None:
                        await self._show(await decode.on_thread(threads(before, media), before.flush))
                        before.close()
                    pictures = await decode.on_thread(threads(decoder, media), decoder.decode, frames)
                    await self._context.tape.point("decoded")
                    await self._show(pictures)
                    if decoder.waiting and clock.now() >= next_request:
                        next_request = clock.now() + _KEYFRAME_REQUEST_SECONDS
                        self._context.host.request_keyframe()
                if len(batch) < _BATCH and not self.intra.alone and not self._waits:
                    await clock.sleep(_GATHER_SECONDS)
            if decoders.present is not None:
                await self._show(
                    await decode.on_thread(threads(decoders.present, media), decoders.present.flush)
                )
            await self._prober.pass_time(float("inf"))

    async def _next_frames(self, decoder: VideoDecoding | None) -> list[TrackFrame] | None:
        """The next frames; none where the picture shown is to be compared again first; None at the end.

        Where a source waits for us, a pause tells nothing about the picture: `Prober.show` passes its time.
        """
        tape = self._context.tape
        may_stand = decoder is not None and not decoder.waiting and not self._waits
        due = self._prober.due_at() if may_stand else None
        try:
            async with asyncio.timeout(None if due is None else max(0.0, due - clock.now())) as idle:
                self._idle = idle if may_stand else None
                return await tape.take("video", self.frames, _BATCH)
        except TimeoutError:
            tape.idle("video")
            return []
        except Closed:
            return None
        finally:
            self._idle = None

    async def _show(self, pictures: Sequence[VideoFrame]) -> None:
        self._tune()
        for picture in pictures:
            metrics.frames.labels("decoded").inc()
            await self._prober.show(picture)
