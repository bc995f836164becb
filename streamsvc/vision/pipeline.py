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
from streamsvc.core.errors import SourceError, StreamsvcError, WorkerError
from streamsvc.core.latency import seconds_by_stage
from streamsvc.core.queues import Ring
from streamsvc.core.types import EncodedFrame, Keyframe, MediaTrack, Sight, VideoFrame
from streamsvc.ingest import decode
from streamsvc.ingest.decoders import threads
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import keyframes, perception, scenes
from streamsvc.vision.decoding import DecodingStage
from streamsvc.vision.probing import Chosen, Prober
from streamsvc.vision.scene_memory import SceneMemory
from streamsvc.vision.vlm import VlmSession
from streamsvc.vision.vlm_captions import VlmCaptioner

log = structlog.get_logger()
T = TypeVar("T")
_LOOK_SECONDS = 10.0  # a keyframe not looked at by then is skipped
_READ_SECONDS = 30.0
_PATIENCE = 4.0  # times as long where the source waits: no newer picture makes up for a skipped one
FRESH_SECONDS = 1.0  # for which a sight describes the present picture
PENDING_SECONDS = 2.0  # after which a keyframe without a sight is no longer expected to get one


@dataclass(frozen=True, slots=True)
class PendingKeyframe:
    """A keyframe on its way through the vision models."""

    keyframe: Keyframe
    jpeg: bytes
    gray: NDArray[np.uint8]  # the thumbnail, shape (h, w)
    event: str  # id of its keyframe.sampled
    seen: float  # monotonic second at which it was still shown


class VisionPipeline:
    """Looks at the pictures of one session.

    Args:
        context: of the session.
        timeline: what is known so far; only read here.
        shared_budget: keyframes that all sessions together may have; None: no limit.

    `video`: the ring of frames to decode; full, it drops the oldest, counted as `dropped_video`.
    `intra`: chooses the frames that are decoded.
    `picture_size`: width and height of the newest picture, in pixels; None: none was decoded yet.
    `vlm`: the vision language model's side of the session, where the profile has one.
    """

    def __init__(
        self, context: SessionContext, timeline: Timeline, shared_budget: keyframes.TokenBucket | None = None
    ) -> None:
        settings = context.settings
        self._context = context
        self._timeline = timeline
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
        interval = 1 / settings.sample.probe_fps - 0.005
        prober = Prober(self._sampler, interval, self._thumbnail, self._compared)
        self._decoding = DecodingStage(context, prober, self._tune)
        self.video, self.intra = self._decoding.frames, self._decoding.intra
        self._reader = perception.ScreenReader(settings.see)
        self._scenes = SceneMemory()
        self.picture_size: tuple[int, int] | None = None
        self._newest_keyframe = -1.0  # session seconds
        self._newest_sight = -1.0  # session seconds of the newest keyframe that the models are done with
        self._refreshed = asyncio.Event()  # what is known of the picture is of the present
        self._looking_since: float | None = None  # monotonic second of the keyframe being looked at

    def put(self, track: MediaTrack, frame: EncodedFrame) -> None:
        """Take an encoded frame; it is queued where it is to be decoded. Non-blocking."""
        self._decoding.put((track, frame))

    def close(self) -> None:
        """Close the input; queued pictures are still looked at. Idempotent."""
        self.video.close()

    # --- pictures on request ---

    def request_keyframe(self) -> None:
        """Sample the next picture that differs at all, and more than usual for a while, for a question."""
        self._sampler.ask()
        self._decoding.look_again()

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
            self.request_keyframe()
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
        """Seconds for which the keyframe in work has waited, at monotonic second `now`; 0: none is."""
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
        """Run the decoding stage to its end."""
        await self._decoding.run()
        self._keyframes.close()
        if self.vlm is not None:
            self.vlm.close()

    def _tune(self) -> None:
        """Set what speech and load leave to the sampler."""
        speeches = self._timeline.speeches
        self._sampler.speaking = bool(speeches) and speeches[-1].active
        rate = self._context.settings.sample.budget
        self._budget.rate = min(rate, self._context.degradation.fidelity.keyframes or rate)

    async def _thumbnail(self, frame: VideoFrame) -> NDArray[np.uint8]:
        self.picture_size = (frame.width, frame.height)
        gray = await decode.on_thread(threads(frame, self._context.media), decode.thumbnail, frame)
        await self._context.tape.point("compared")
        return gray

    async def _compared(self, chosen: Chosen | None) -> None:
        """A picture was compared with the last keyframe; publish it where it is the next one."""
        if chosen is None:
            self._note_compared()
            return
        context = self._context
        frame, change = chosen.frame, chosen.change
        if frame.at <= self._newest_keyframe:  # the timeline never goes back
            frame = replace(frame, at=self._newest_keyframe + 0.001)
        self._newest_keyframe = frame.at
        compared = clock.now()
        try:
            jpeg = await decode.on_thread(threads(frame, context.media), decode.jpeg, frame)
        except SourceError:  # the process that has the picture has failed: its source tells that
            return
        metrics.frames.labels("keyframe").inc()
        encoded = clock.now()
        await context.host.store_frame(frame.at, jpeg)
        stages = (("decode", chosen.taken), ("compare", compared), ("jpeg", encoded), ("store", clock.now()))
        head = context.session, frame.track, frame.at, frame.arrived
        keyframe = Keyframe(*head, frame, change.reason, change.changed, stages)
        event = context.host.dispatch(keyframe)
        # A model beside the one that reads spends cores of this machine on each picture.
        if self.vlm is not None and (context.roles.sight is None or context.degradation.fidelity.scenes):
            self.vlm.put(frame.at, jpeg)
        pending = PendingKeyframe(
            keyframe, jpeg, chosen.gray, event.id if event is not None else "", chosen.seen
        )
        await self._pass_on(self._keyframes, pending)

    async def _look(self) -> None:
        """Run the vision models on keyframes; scene captions never wait for screen text."""
        settings = self._context.settings.see
        async for batch in self._context.tape.batches("keyframes", self._keyframes, 1):
            pending = batch[0]
            self._looking_since = pending.seen
            look = functools.partial(
                perception.perceive,
                pending.keyframe,
                pending.jpeg,
                self._context.roles.see,
                deadline_in_s=_LOOK_SECONDS * self._patience,
            )
            try:
                sight = await _retried(look, lambda: self._superseded(self._keyframes))
            except StreamsvcError as error:
                self._skipped("look", error)
            else:
                await self._context.tape.point("looked")  # colours are measured on a thread
                self._publish(sight, pending)
            self._looking_since = None
            self._newest_sight = pending.keyframe.at
            if clock.now() - pending.seen <= FRESH_SECONDS:
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
        same_as = self._scenes.returned(sight, pending.gray)
        context.host.dispatch(replace(sight, of=pending.event, same_as=same_as))
        scene = scenes.scene(self._timeline, sight)
        if scene is not None:
            context.host.dispatch(scene)
        if self._captioner is not None and context.degradation.fidelity.scenes:
            self._captioner.offer(pending.keyframe.reason, sight, pending.jpeg, scene)

    async def _read(self) -> None:
        """Read the text of keyframes where there may be some and it has changed; the newest picture wins."""
        async for batch in self._context.tape.batches("unread", self._unread):
            pending = batch[-1]
            self._reader.whole = self._context.degradation.fidelity.whole_screen
            read = functools.partial(
                self._reader.read,
                pending.keyframe,
                pending.jpeg,
                pending.gray,
                self._context.roles.see,
                deadline_in_s=_READ_SECONDS * self._patience,
            )
            try:
                text = await _retried(read, lambda: self._superseded(self._unread))
            except StreamsvcError as error:
                self._skipped("read", error)
                continue
            if text is not None:
                await self._context.tape.point("read")
                self._context.host.dispatch(replace(text, of=pending.event))
                if (slide := scenes.slide(self._timeline, text)) is not None:
                    self._context.host.dispatch(slide)

    @property
    def _patience(self) -> float:
        return _PATIENCE if self._context.options.lossless else 1.0

    def _superseded(self, ring: Ring[PendingKeyframe]) -> bool:
        """Whether a newer picture waits that makes up for the one in work."""
        return len(ring) > 0 and not self._context.options.lossless

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
