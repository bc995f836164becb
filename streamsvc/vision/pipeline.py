"""The seeing half of a session: its video ring, decoded, keyframes chosen, looked at and read, published.

    video ring -> decode -> sample -> keyframes -> look -> texts -> read -> timeline, log

What the session was shown before is never waited for: a newer keyframe takes the place of one that nobody has looked at yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from streamsvc.answers import answer
from streamsvc.core import clock, metrics
from streamsvc.core.config import Settings
from streamsvc.core.degradation import CostTracker, Fidelity
from streamsvc.core.errors import StreamsvcError, WorkerError
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import EncodedFrame, Keyframe, MediaTrack, Scene, ScreenText, Sight, VideoFrame
from streamsvc.events.log import EventLog
from streamsvc.events.serialize import event_body
from streamsvc.ingest import decode
from streamsvc.ingest.decode import TrackFrame, count_dropped
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import keyframes, perception
from streamsvc.vision.vlm import VlmSession
from streamsvc.vision.vlm_captions import VlmCaptioner
from streamsvc.workers.idle_gate import IdleGate

log = structlog.get_logger()
T = TypeVar("T")
_LOOK_SECONDS = 10.0  # a keyframe not looked at by then is skipped
_READ_SECONDS = 30.0
FRESH = 1.0  # seconds for which a sight tells what is shown now
ON_ITS_WAY = 2.0  # seconds after which a keyframe without a sight is no longer expected to get one


@dataclass(frozen=True, slots=True)
class Seen:
    """A keyframe on its way through the models that see."""

    keyframe: Keyframe
    jpeg: bytes
    gray: Any  # the thumbnail, uint8 (h, w)
    event: str  # id of its keyframe.sampled


class VisionPipeline:
    """What a session sees.

    Args:
        session: its id.
        settings: of the service.
        see: the model.
        media: the threads that decode.
        log, timeline: where sights go.
        lull: the time between questions.
        pace: what the models cost.
        lossless: the source can wait, so nothing is ever dropped.
        pictures: the keyframes that all sessions may have.
        frame_url: where the keyframe of a session second can be loaded.
        sight: the language model that sees, if there is one; never waited for.
        adapter: of it.
    """

    def __init__(
        self,
        session: str,
        settings: Settings,
        see: Role,
        media: ThreadPoolExecutor,
        log: EventLog,
        timeline: Timeline,
        *,
        lull: IdleGate,
        pace: CostTracker,
        lossless: bool = False,
        pictures: keyframes.Budget | None = None,
        frame_url: Callable[[float], str] = str,
        sight: Role | None = None,
        adapter: str | None = None,
    ) -> None:
        self.video: Ring[TrackFrame] = Ring(settings.ingest.video_ring, self._video_dropped)
        self._keyframes: Ring[Seen] = Ring(2, lambda seen: count_dropped("keyframe"))
        self._texts: Ring[Seen] = Ring(1, lambda seen: count_dropped("text"))
        self._session, self._settings, self._see, self._media = session, settings, see, media
        self._log, self._timeline, self._lossless, self._frame_url, self._pace = (
            log,
            timeline,
            lossless,
            frame_url,
            pace,
        )
        self.seer: VlmSession | None = None
        self.narrator: VlmCaptioner | None = None
        if sight is not None:
            reads = settings.models.profile == "gpu"  # such an engine keeps what it has read
            self.seer = VlmSession(session, sight, timeline, lossless=lossless, reads=reads, adapter=adapter)
            if settings.think.scenes:
                self.narrator = VlmCaptioner(
                    session, self.seer, lull, settings.think.scene_seconds, self._tell
                )
        self.speaking: Callable[[], bool] = lambda: False  # whether somebody is heard now
        self.on_sight: Callable[[Sight], None] = lambda sight: None
        self.on_text: Callable[[ScreenText], None] = lambda text: None
        self.on_waiting: Callable[[], None] = lambda: (
            None
        )  # the decoder can go on only at a keyframe of the publisher; once a second
        self._wants = keyframes.Wants()
        self._own = keyframes.Budget(
            settings.sample.budget, settings.sample.burst, lambda: count_dropped("budget")
        )
        self._sampler = keyframes.Sampler(settings.sample, self._own, pictures)
        self.ask = self._sampler.ask
        self._chosen = (
            self._looked
        ) = -1.0  # session seconds of the newest keyframe, and of the newest that the models are done with
        self._settled = asyncio.Event()  # what is known of the picture is of now
        self._reader = perception.Reader(settings.see)
        self._scenes = True  # they are captioned
        self._hole = False  # frames have been dropped before the next one
        self._looking: float | None = None  # when the keyframe that is being looked at arrived, monotonic

    # --- pictures in ---

    def wants(self, frame: EncodedFrame) -> bool:
        """Whether a frame of video is to be put into the ring; every one that comes is to be asked about, in order."""
        return keyframes.wants(frame, self._wants)

    def _video_dropped(self, sent: TrackFrame) -> None:
        count_dropped("video")
        self._hole = True

    def close(self) -> None:
        """Take nothing more in; what is in is still looked at. May be called twice."""
        self.video.close()

    async def renew(self, now: float, seconds: float) -> float:
        """Wait until what is known of the picture is of now; nothing that media wait for waits for this.

        Where the newest sight is older than FRESH, the next picture is compared with the last keyframe, and looked at if anything
        in it is new. The wait ends with a sight that is not older, with a picture in which nothing is new, or when it has lasted
        too long.

        Args:
            now: session seconds.
            seconds: at most.

        Returns:
            The newest session second of which is known what it shows.
        """
        newest = self._timeline.shown[-1] if self._timeline.shown else None
        if newest is None or newest.sight is None or now - newest.start > FRESH:
            self._settled.clear()
            self._sampler.ask()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._settled.wait()
        return self._known(now)

    def _known(self, now: float) -> float:
        shown = self._timeline.shown
        if not shown or shown[-1].sight is not None:
            return max(now, shown[-1].start) if shown else now
        last = next((item for item in reversed(shown) if item.sight is not None), None)
        if last is None or last.end is None or now - shown[-1].start > ON_ITS_WAY:
            return now
        return min(now, last.end - 0.001)

    def _settle(self) -> None:
        """Tell who waits that the last picture that was compared shows what is known."""
        if self._looked >= self._chosen and not self._sampler.owes:
            self._settled.set()

    # --- the budget ---

    def spend(self, fidelity: Fidelity) -> None:
        """Leave out what the ladder does not leave."""
        self._scenes, self._reader.whole = fidelity.scenes, fidelity.whole_screen
        self._own.rate = min(self._settings.sample.budget, fidelity.keyframes or self._settings.sample.budget)

    def waited(self, now: float) -> float:
        """Seconds since the picture arrived that is being looked at; 0: none is."""
        return 0.0 if self._looking is None else now - self._looking

    # --- the rooms ---

    def rooms(self) -> list[Coroutine[Any, Any, None]]:
        """What is to run, each as a task; all end when the ring of video is closed and everything is understood."""
        rooms = [self.decode(), self.look(), self.read()]
        if self.seer is not None:
            rooms.append(self.seer.encode())
        return rooms if self.narrator is None else [*rooms, self.narrator.run()]

    async def decode(self) -> None:
        """Encoded frames -> keyframes, until the ring is closed and empty."""
        decoder: decode.VideoDecoder | None = None
        track: MediaTrack | None = None
        next_probe = 0.0  # session seconds
        next_ask = 0.0  # monotonic seconds at which a keyframe may be asked for again
        async for batch in self.video.batches(8):
            if self._hole:
                self._hole = False
                batch[0] = (batch[0][0], replace(batch[0][1], gap=max(batch[0][1].gap, 0.001)))
            for fresh, frames in decode.by_track(batch):
                if decoder is None or fresh is not track:
                    track, decoder = fresh, decode.VideoDecoder(fresh, self._session)
                pictures = await decode.on_thread(self._media, decoder.decode, frames)
                if decoder.waiting and clock.now() >= next_ask:
                    next_ask = clock.now() + 1.0
                    self.on_waiting()
                for frame in pictures:
                    metrics.frames.labels("decoded").inc()
                    if frame.at >= next_probe:
                        next_probe = frame.at + 1 / self._settings.sample.probe_fps - 0.005
                        await self._probe(frame)
        if decoder is not None:
            for frame in (await decode.on_thread(self._media, decoder.flush))[-1:]:
                await self._probe(frame)
        self._keyframes.close()
        if self.seer is not None:
            self.seer.pictures.close()

    async def _probe(self, frame: VideoFrame) -> None:
        """Compare one picture with the last keyframe; publish it where it is worth looking at."""
        gray = await decode.on_thread(self._media, decode.thumbnail, frame)
        self._sampler.speaking = self.speaking()
        found = self._sampler.look(gray, frame.at, frame.arrived)
        if found is None:
            self._settle()
            return
        self._chosen = frame.at
        keyframe = Keyframe(
            self._session, frame.track, frame.at, frame.arrived, frame, found.reason, found.changed
        )
        jpeg = await decode.on_thread(self._media, decode.jpeg, frame)
        metrics.frames.labels("keyframe").inc()
        await self._log.put_frame(frame.at, jpeg)
        self._timeline.add(keyframe)
        body = {"reason": found.reason, "url": self._frame_url(frame.at)}
        event = self._log.emit("keyframe.sampled", body, at=frame.at, arrived=frame.arrived)
        if self.seer is not None:
            self.seer.pictures.put((frame.at, jpeg))
        await self._pass_on(self._keyframes, Seen(keyframe, jpeg, gray, event.id))

    async def look(self) -> None:
        """Keyframes through the vision models; scene captions never wait for the reading of text."""
        async for batch in self._keyframes.batches(1):
            seen = batch[0]
            self._looking = seen.keyframe.arrived
            try:
                sight = await self._retried(
                    functools.partial(
                        perception.look,
                        seen.keyframe,
                        seen.jpeg,
                        self._see,
                        self._settings.see,
                        deadline_in_s=_LOOK_SECONDS,
                    ),
                    lambda: len(self._keyframes) > 0,
                )
            except StreamsvcError as error:
                self._failed("look", error)
            else:
                self._sighted(sight, seen)
            self._looking = None
            self._looked = seen.keyframe.at
            if clock.now() - seen.keyframe.arrived <= FRESH:
                self._settled.set()
            self._settle()
            if self._settings.see.ocr:
                await self._pass_on(self._texts, seen)
        self._texts.close()
        if self.narrator is not None:
            self.narrator.close()

    def _sighted(self, sight: Sight, seen: Seen) -> None:
        """Publish what the models found on a keyframe, and the caption of its scene."""
        self._timeline.add(sight)
        self._pace.record("see", "frame", sum(sight.stages.values()))
        self.on_sight(sight)
        self._log.emit(
            "sight.ready",
            {"of": seen.event, **event_body(sight)},
            at=sight.at,
            arrived=sight.arrived,
            stages=sight.stages,
        )
        if not self._scenes:
            return
        scene = answer.scene(self._timeline, sight)
        if scene is not None:
            self._timeline.add(scene)
            self._tell(scene)
        if self.narrator is not None:
            self.narrator.note(seen.keyframe.reason, sight, seen.jpeg, scene)

    def _tell(self, scene: Scene) -> None:
        self._log.emit(
            "scene.caption",
            event_body(scene, self._frame_url),
            at=scene.at,
            arrived=scene.arrived,
            stages=scene.stages,
        )

    async def read(self) -> None:
        """Text on keyframes, where there may be some and it has changed; the newest picture wins."""
        async for batch in self._texts.batches():
            seen = batch[-1]
            try:
                text = await self._retried(
                    functools.partial(
                        self._reader.read,
                        seen.keyframe,
                        seen.jpeg,
                        seen.gray,
                        self._see,
                        deadline_in_s=_READ_SECONDS,
                    ),
                    lambda: len(self._texts) > 0,
                )
            except StreamsvcError as error:
                self._failed("read", error)
                continue
            if text is not None:
                self._timeline.add(text)
                self.on_text(text)
                self._log.emit(
                    "screen.text",
                    {"of": seen.event, **event_body(text)},
                    at=text.at,
                    arrived=text.arrived,
                    stages=text.stages,
                )

    async def _retried(self, work: Callable[[], Awaitable[T]], superseded: Callable[[], bool]) -> T:
        """Do it again when the worker died under it, unless something newer waits: a still picture comes only once."""
        for _ in range(2):
            try:
                return await work()
            except WorkerError:
                if superseded():
                    raise
                await clock.sleep(0.5)
        return await work()

    def _failed(self, stage: str, error: StreamsvcError) -> None:
        metrics.deadline_missed.labels(stage, "skipped").inc()
        log.warning("keyframe skipped", session=self._session, stage=stage, reason=error.code)

    async def _pass_on(self, ring: Ring[T], item: T) -> None:
        if self._lossless:
            await ring.put_when_room(item)
        else:
            ring.put(item)
