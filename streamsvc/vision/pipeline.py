"""The vision pipeline of a session: encoded video to keyframes, sights, scenes and screen text.

    video ring -> decode -> keyframe choice -> look (detector, tagger) -> read (screen text)

The past is never waited for: a newer keyframe replaces one that no model has begun to look at.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from streamsvc.core import clock, metrics
from streamsvc.core.context import SessionContext
from streamsvc.core.errors import StreamsvcError, WorkerError
from streamsvc.core.latency import seconds_by_stage
from streamsvc.core.queues import Ring
from streamsvc.core.types import Keyframe, MediaTrack, Sight, VideoFrame
from streamsvc.ingest import decode
from streamsvc.ingest.decode import TrackFrame
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import keyframes, perception, scenes
from streamsvc.vision.vlm import VlmSession
from streamsvc.vision.vlm_captions import VlmCaptioner

log = structlog.get_logger()
T = TypeVar("T")
_LOOK_SECONDS = 10.0  # a keyframe not looked at by then is skipped
_READ_SECONDS = 30.0
_KEYFRAME_REQUEST_SECONDS = 1.0  # between requests for a codec keyframe
FRESH_SECONDS = 1.0  # for which a sight describes the present picture
PENDING_SECONDS = 2.0  # after which a keyframe without a sight is no longer expected to get one


@dataclass(frozen=True, slots=True)
class PendingKeyframe:
    """A keyframe on its way through the vision models."""

    keyframe: Keyframe
    jpeg: bytes
    gray: NDArray[np.uint8]  # the thumbnail, shape (h, w)
    event: str  # id of its keyframe.sampled


class VisionPipeline:
    """Looks at the pictures of one session.

    Args:
        context: of the session.
        timeline: what is known so far; only read here.
        shared_budget: keyframes that all sessions together may have; None: no limit.

    `video`: the ring that encoded frames are put into; full, it drops the oldest, counted as `dropped_video`.
    `picture_size`: width and height of the newest picture, in pixels; None: none was decoded yet.
    `vlm`: the vision language model's side of the session, where the profile has one.
    """

    def __init__(
        self, context: SessionContext, timeline: Timeline, shared_budget: keyframes.TokenBucket | None = None
    ) -> None:
        settings = context.settings
        self._context = context
        self._timeline = timeline
        self.video: Ring[TrackFrame] = Ring(settings.ingest.video_ring, self._frame_dropped)
        self._keyframes: Ring[PendingKeyframe] = Ring(2, lambda item: metrics.count_dropped("keyframe"))
        self._unread: Ring[PendingKeyframe] = Ring(1, lambda item: metrics.count_dropped("text"))
        self.vlm: VlmSession | None = None
        self._captioner: VlmCaptioner | None = None
        if context.roles.vlm is not None:
            self.vlm = VlmSession(context, context.roles.vlm)
            if settings.think.scenes:
                self._captioner = VlmCaptioner(context, self.vlm)
        self._budget = keyframes.TokenBucket(
            settings.sample.budget, settings.sample.burst, lambda: metrics.count_dropped("budget")
        )
        self._sampler = keyframes.Sampler(settings.sample, self._budget, shared_budget)
        self._reader = perception.ScreenReader(settings.see)
        self.picture_size: tuple[int, int] | None = None
        self._newest_keyframe = -1.0  # session seconds
        self._newest_sight = -1.0  # session seconds of the newest keyframe that the models are done with
        self._refreshed = asyncio.Event()  # what is known of the picture is of the present
        self._frames_missing = False  # frames were dropped before the next one
        self._looking_since: float | None = None  # arrival of the keyframe that is being looked at, monotonic

    # --- frames in ---

    def _frame_dropped(self, item: TrackFrame) -> None:
        metrics.count_dropped("video")
        self._frames_missing = True

    def close(self) -> None:
        """Close the input; queued pictures are still looked at. Idempotent."""
        self.video.close()

    # --- pictures on request ---

    def request_keyframe(self) -> None:
        """Sample the next picture that differs at all, and more than usual for a while, for a question."""
        self._sampler.ask()

    async def refresh(self, now: float, seconds: float) -> float:
        """Wait until what is known of the picture is of the present; media never wait for this.

        Where the newest sight is older than FRESH_SECONDS, the next picture is compared with the last
        keyframe, and looked at if anything in it is new. The wait ends with a fresh sight, with a picture in
        which nothing is new, or after `seconds`.

        Args:
            now: session seconds.
            seconds: to wait at most.

        Returns:
            The newest session second of which it is known what the picture shows.
        """
        newest = self._timeline.shown[-1] if self._timeline.shown else None
        if newest is None or newest.sight is None or now - newest.start > FRESH_SECONDS:
            self._refreshed.clear()
            self._sampler.ask()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._refreshed.wait()
        return self._known_until(now)

    def _known_until(self, now: float) -> float:
        shown = self._timeline.shown
        if not shown or shown[-1].sight is not None:
            return max(now, shown[-1].start) if shown else now
        seen = next((item for item in reversed(shown) if item.sight is not None), None)
        if seen is None or seen.end is None or now - shown[-1].start > PENDING_SECONDS:
            return now
        return min(now, seen.end - 0.001)

    def _note_compared(self) -> None:
        """Wake `refresh` where the newest keyframe has its sight and no sampling is owed."""
        if self._newest_sight >= self._newest_keyframe and not self._sampler.question_pending:
            self._refreshed.set()

    def waited(self, now: float) -> float:
        """Seconds since arrival of the keyframe in work, at monotonic second `now`; 0: none is."""
        return 0.0 if self._looking_since is None else now - self._looking_since

    # --- stages ---

    async def run(self) -> None:
        """Run all stages until the input is closed and every picture is understood."""
        async with asyncio.TaskGroup() as stages:
            stages.create_task(self._decode())
            stages.create_task(self._look())
            stages.create_task(self._read())
            if self.vlm is not None:
                stages.create_task(self.vlm.encode_keyframes())
            if self._captioner is not None:
                stages.create_task(self._captioner.run())

    async def _decode(self) -> None:
        """Decode frames, and compare some with the last keyframe, until the ring is closed and empty."""
        decoder: decode.VideoDecoder | None = None
        track: MediaTrack | None = None
        next_probe = 0.0  # session seconds
        next_request = 0.0  # monotonic seconds
        media = self._context.media
        async for batch in self.video.batches(8):
            if self._frames_missing:
                self._frames_missing = False
                first_track, first = batch[0]
                batch[0] = (first_track, replace(first, gap=max(first.gap, 0.001)))
            for fresh, frames in decode.by_track(batch):
                if decoder is None or fresh is not track:
                    track = fresh
                    decoder = decode.VideoDecoder(fresh, self._context.session)
                pictures = await decode.on_thread(media, decoder.decode, frames)
                if decoder.waiting and clock.now() >= next_request:
                    next_request = clock.now() + _KEYFRAME_REQUEST_SECONDS
                    self._context.host.request_keyframe()
                for picture in pictures:
                    metrics.frames.labels("decoded").inc()
                    self.picture_size = (picture.width, picture.height)
                    if picture.at >= next_probe:
                        next_probe = picture.at + 1 / self._context.settings.sample.probe_fps - 0.005
                        await self._probe(picture)
        if decoder is not None:
            for picture in (await decode.on_thread(media, decoder.flush))[-1:]:
                await self._probe(picture)
        self._keyframes.close()
        if self.vlm is not None:
            self.vlm.close()

    async def _probe(self, frame: VideoFrame) -> None:
        """Compare one picture with the last keyframe; publish it as a keyframe where it differs enough."""
        context = self._context
        decoded = clock.now()
        gray = await decode.on_thread(context.media, decode.thumbnail, frame)
        speeches = self._timeline.speeches
        self._sampler.speaking = bool(speeches) and speeches[-1].active
        rate = context.settings.sample.budget
        self._budget.rate = min(rate, context.degradation.fidelity.keyframes or rate)
        change = self._sampler.probe(gray, frame.at, frame.arrived)
        if change is None:
            self._note_compared()
            return
        self._newest_keyframe = frame.at
        compared = clock.now()
        jpeg = await decode.on_thread(context.media, decode.jpeg, frame)
        metrics.frames.labels("keyframe").inc()
        encoded = clock.now()
        await context.host.store_frame(frame.at, jpeg)
        stages = (("decode", decoded), ("compare", compared), ("jpeg", encoded), ("store", clock.now()))
        head = context.session, frame.track, frame.at, frame.arrived
        keyframe = Keyframe(*head, frame, change.reason, change.changed, stages)
        event = context.host.dispatch(keyframe)
        if self.vlm is not None:
            self.vlm.put(frame.at, jpeg)
        await self._pass_on(
            self._keyframes, PendingKeyframe(keyframe, jpeg, gray, event.id if event is not None else "")
        )

    async def _look(self) -> None:
        """Run the vision models on keyframes; scene captions never wait for screen text."""
        settings = self._context.settings.see
        async for batch in self._keyframes.batches(1):
            pending = batch[0]
            self._looking_since = pending.keyframe.arrived
            look = functools.partial(
                perception.perceive,
                pending.keyframe,
                pending.jpeg,
                self._context.roles.see,
                deadline_in_s=_LOOK_SECONDS,
            )
            try:
                sight = await _retried(look, lambda: len(self._keyframes) > 0)
            except StreamsvcError as error:
                self._skipped("look", error)
            else:
                self._publish(sight, pending)
            self._looking_since = None
            self._newest_sight = pending.keyframe.at
            if clock.now() - pending.keyframe.arrived <= FRESH_SECONDS:
                self._refreshed.set()
            self._note_compared()
            if settings.ocr:
                await self._pass_on(self._unread, pending)
        self._unread.close()
        if self._captioner is not None:
            self._captioner.close()

    def _publish(self, sight: Sight, pending: PendingKeyframe) -> None:
        """Publish a sight, and the caption of its scene where that is new."""
        context = self._context
        parts = seconds_by_stage(sight.stages, sight.arrived, clock.now())
        context.roles.cost_tracker.record("see", "frame", parts.get("sight", 0.0))
        context.host.dispatch(replace(sight, of=pending.event))
        scene = scenes.scene(self._timeline, sight)
        if scene is not None:
            context.host.dispatch(scene)
        if self._captioner is not None and context.degradation.fidelity.scenes:
            self._captioner.offer(pending.keyframe.reason, sight, pending.jpeg, scene)

    async def _read(self) -> None:
        """Read the text of keyframes where there may be some and it has changed; the newest picture wins."""
        async for batch in self._unread.batches():
            pending = batch[-1]
            self._reader.whole = self._context.degradation.fidelity.whole_screen
            read = functools.partial(
                self._reader.read,
                pending.keyframe,
                pending.jpeg,
                pending.gray,
                self._context.roles.see,
                deadline_in_s=_READ_SECONDS,
            )
            try:
                text = await _retried(read, lambda: len(self._unread) > 0)
            except StreamsvcError as error:
                self._skipped("read", error)
                continue
            if text is not None:
                self._context.host.dispatch(replace(text, of=pending.event))

    def _skipped(self, stage: str, error: StreamsvcError) -> None:
        metrics.deadline_missed.labels(stage, "skipped").inc()
        log.warning("keyframe skipped", session=self._context.session, stage=stage, reason=error.code)

    async def _pass_on(self, ring: Ring[T], item: T) -> None:
        if self._context.options.lossless:
            await ring.put_when_space(item)
        else:
            ring.put(item)


async def _retried(work: Callable[[], Awaitable[T]], superseded: Callable[[], bool]) -> T:
    """Repeat work whose worker died, unless a newer item waits: a still picture comes only once."""
    for _ in range(2):
        try:
            return await work()
        except WorkerError:
            if superseded():
                raise
            await clock.sleep(0.5)
    return await work()
