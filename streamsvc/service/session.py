"""One session: the rooms of one stream, wired. `Session.run` tells the whole story.

    tap -> audio ring -> decode -> chunks -> transcribe -> replace -> captions (-> translate) --\
    tap -> video ring -> decode -> sample -> keyframes -> look, read --> timeline -> publish
                                                       questions ----> mouth --/
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import structlog

from streamsvc.answers.answering import Answering
from streamsvc.answers.rules import summary
from streamsvc.answers.watch_evaluation import Alert
from streamsvc.answers.watches import Watches
from streamsvc.core import clock, degradation, metrics
from streamsvc.core.config import Settings
from streamsvc.core.errors import Conflict, StreamsvcError
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import EncodedFrame, MediaTrack, Publisher
from streamsvc.events.log import EventLog
from streamsvc.events.serialize import evidence
from streamsvc.events.store import Store
from streamsvc.service import load_policy
from streamsvc.service.latency_report import LatencyReport
from streamsvc.speech.pipeline import SpeechPipeline
from streamsvc.timeline.index import Index
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import keyframes
from streamsvc.vision.pipeline import VisionPipeline
from streamsvc.workers.idle_gate import IdleGate

log = structlog.get_logger()
_TICK = 0.5  # seconds between writes of the log
_UNUSED = 600.0  # seconds that a session waits for its first publisher; it holds one of few places meanwhile


class State(enum.Enum):
    """Where a session stands."""

    CREATED = "created"  # nobody has published yet
    LIVE = "live"
    STALLED = "stalled"  # media stopped coming; the context is kept
    ENDED = "ended"  # readable until its retention has passed


@dataclass(frozen=True, slots=True)
class Roles:
    """The models that a session asks."""

    hear: Role
    see: Role
    think: Role
    embed: Role | None = None  # without it, searches go by words alone
    sight: Role | None = None  # think, where it can be shown pictures
    lull: IdleGate = field(default_factory=IdleGate, init=False)  # when none of them is asked anything
    pace: degradation.CostTracker = field(
        default_factory=degradation.CostTracker, init=False
    )  # what they cost


class Session:
    """One stream and all that is known about it.

    Args:
        name: the session's id.
        settings: of the service.
        roles: the models.
        store: where durable events and thumbnails go.
        media: the threads that decode.
        sign: makes a path loadable by an <img>.
        lossless: the source can wait, so nothing is ever dropped (a file read as fast as possible).
        sees: False: pictures are not looked at.
        pictures: the keyframes that all sessions may have.
        adapter: of the model that sees.
        listen: language, vocabulary, hangover, translate, replace, as for `Ear`.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        roles: Roles,
        store: Store,
        media: ThreadPoolExecutor,
        sign: Callable[[str], str] = str,
        *,
        lossless: bool = False,
        sees: bool = True,
        pictures: keyframes.Budget | None = None,
        adapter: str | None = None,
        **listen: Any,
    ) -> None:
        self.id = name
        self.state = State.CREATED
        self.settings, self.roles, self.store = settings, roles, store
        self.started_utc, self.zero = clock.utc(), clock.now()
        self.ended_at: float | None = None  # monotonic seconds; set once all is written
        self.over = asyncio.Event()  # ... and so is this
        self.publisher: Publisher | None = None
        self.timeline, self.index = (
            Timeline(summary.standing),
            Index(roles.embed, roles.see if settings.see.clip else None),
        )
        self.report = LatencyReport(settings.budget)
        self.log = EventLog(name, self.zero, settings.limits, store, self.report.note)
        told = (self.log, self.timeline, self.report)
        self.ear = SpeechPipeline(name, settings, roles.hear, media, *told, lossless=lossless, **listen)
        self.flush, self.cues, self.translations = self.ear.flush, self.ear.cues, self.ear.translations
        self._sign, self.lossless, self._sees = sign, lossless, sees
        shown: dict[str, Any] = {"lossless": lossless, "pictures": pictures, "frame_url": self.frame_url}
        shown |= {"sight": roles.sight, "adapter": adapter}
        self.eye = VisionPipeline(
            name,
            settings,
            roles.see,
            media,
            self.log,
            self.timeline,
            lull=roles.lull,
            pace=roles.pace,
            **shown,
        )
        self.eye.speaking, self.eye.on_waiting = lambda: self.ear.speaking, self._want_keyframe
        self._tracks: dict[str, MediaTrack] = {}
        self._lost = 0  # audio packets that the present publisher's transport has lost, as last counted
        self._newest = 0.0  # session seconds of the newest frame that came in
        self._scaled = False  # a file plays, and not at the speed of time
        self._depths: list[tuple[metrics.Share, Ring[Any]]] = [
            (metrics.Share(metrics.queue_depth.labels("audio")), self.ear.audio),
            (metrics.Share(metrics.queue_depth.labels("video")), self.eye.video),
        ]
        answering: dict[str, Any] = {
            "position": self.position,
            "live": self._sees_now,
            "frame_url": self.frame_url,
        }
        self.mouth = Answering(
            name,
            settings,
            roles.think,
            roles.see,
            *told,
            self.eye,
            lull=roles.lull,
            pace=roles.pace,
            **answering,
        )
        self.ask, self.hold, self.cancel = self.mouth.ask, self.mouth.hold, self.mouth.cancel
        self.alerts = Watches(
            settings.limits.watches, settings.server.private_urls, self._alerted, roles.embed
        )
        self.ear.on_words, self.ear.on_speech = self.alerts.heard, self.alerts.spoke
        self.eye.on_sight, self.eye.on_text = self.alerts.saw, self.alerts.read
        self._ending = asyncio.Event()
        self._end_reason = "ended"
        self._end_error: StreamsvcError | None = None
        self._awaiting: asyncio.TimerHandle | None = None  # ends the session unless a publisher comes before
        self._dry = asyncio.Event()  # all is understood and answered

    # --- the story ---

    async def run(self) -> None:
        """Live until the stream has ended and all of it has been understood and published."""
        metrics.sessions_active.inc()
        self.log.emit("session.created", self.told())
        if self.publisher is None:
            self._await_publisher(_UNUSED, "never_published")
        result = "failed"
        try:
            async with asyncio.TaskGroup() as rooms:
                rooms.create_task(self._tick())
                answering = rooms.create_task(self.mouth.answer())
                alerting = rooms.create_task(self.alerts.run())
                async with asyncio.TaskGroup() as media:
                    media.create_task(self.ear.decode())
                    media.create_task(self.ear.transcribe())
                    media.create_task(self.ear.translate())
                    for room in self.eye.rooms():
                        media.create_task(room)
                    media.create_task(self._until_over())
                await self.mouth.close_after_held()
                await answering
                self.alerts.close()
                await alerting
                self._dry.set()
            result = self._end_reason
        except asyncio.CancelledError:
            result = self._end_reason if self._ending.is_set() else "cancelled"
            raise
        except Exception:
            self._end_error = self._end_error or StreamsvcError(
                "this session failed here; the log names why, by class only"
            )
            raise
        finally:
            metrics.sessions_active.dec()
            metrics.sessions.labels(result).inc()
            self.state = State.ENDED
            self.mouth.close()
            self.alerts.close()
            await asyncio.shield(asyncio.ensure_future(self._closed(result)))

    async def _until_over(self) -> None:
        """Wait for the end of the stream, then let every room run dry."""
        await self._ending.wait()
        await self._let_go()

    async def _let_go(self) -> None:
        """Take nothing more in."""
        self._count_losses()
        if (publisher := self.publisher) is not None:
            self.publisher = None
            await publisher.close()
        self.ear.close()
        self.eye.close()

    async def _closed(self, result: str) -> None:
        """Tell the end, and write what is not written; a room that failed has left the publisher at work."""
        self.end(result, self._end_error)
        body: dict[str, Any] = {"reason": result}
        if self._end_error is not None:
            body["error"] = self._end_error.body()["error"]
        try:
            await self._let_go()
            self.ear.abandon()
            self.log.emit("session.closed", body)
            await self.log.end()
        finally:
            for share, _ in self._depths:
                share.set(0)
            self.ended_at = clock.now()
            self.over.set()

    async def _tick(self) -> None:
        """Write the log and report latencies, until all is understood. Not cancelled in the normal course: that could write twice."""
        ticks = 0
        while not self._dry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._dry.wait()
            ticks += 1
            self.alerts.tick(self.position())
            await self.log.flush()
            if ticks % 10 == 0:
                backlog = sum(len(ring) for _, ring in self._depths)
                self.log.emit("latency.report", self.report.body(backlog))
                self._count_losses()
                for share, ring in self._depths:
                    share.set(len(ring))

    def _count_losses(self) -> None:
        """Take over what the transport has lost since the last look."""
        stats = getattr(self.publisher, "stats", None)
        lost = int(stats().get("audio_lost", 0)) if stats is not None else 0
        metrics.rtp_lost.inc(max(0, lost - self._lost))
        self._lost = lost

    # --- media in ---

    def attach(self, publisher: Publisher) -> None:
        """Take the media of a publisher; the session's time goes on.

        Raises:
            Conflict: somebody publishes already, or the session has ended.
        """
        if self.state is State.ENDED or self._ending.is_set():
            raise Conflict("this session has ended", code="session_ended")
        if self.publisher is not None:
            raise Conflict("somebody publishes to this session already", code="already_publishing")
        self.publisher = publisher
        self._tracks = {track.kind: track for track in publisher.tracks}
        self._lost = 0
        if self._awaiting is not None:
            self._awaiting.cancel()
        resumed = self.state is State.STALLED
        self.state = State.LIVE
        self.log.emit("session.updated", self.told())
        if resumed:
            self.log.emit("session.resumed", {"reason": "published again"})

    async def play(self, source: Any, speed: float | None) -> None:
        """Attach an opened source and feed it to the end; then the session ends. The source is closed, whatever happens."""
        try:
            self.attach(source)
        except StreamsvcError:
            await source.close()
            raise
        self.zero = self.log.zero = clock.now()
        source.on_state = functools.partial(self.publisher_state, source)
        self._scaled = speed != 1.0 and source.duration is not None
        error: StreamsvcError | None = None
        try:
            await source.run(self.tap, self.room, lambda: self.zero)
        except StreamsvcError as caught:
            error = caught
        finally:
            await source.close()
        self.end("source_failed" if error else "source_ended", error)

    def tap(self, frame: EncodedFrame) -> None:
        """Take one encoded frame, in a media task: nothing here waits."""
        self._newest = max(self._newest, frame.at)
        track = self._tracks.get(frame.kind)
        if track is not None and frame.kind == "audio":
            self.ear.audio.put((track, frame))
        elif track is not None and self._sees and self.eye.wants(frame):
            self.eye.video.put((track, frame))
        else:
            metrics.frames.labels("not_wanted").inc()

    def position(self) -> float:
        """Session seconds of now: for a file that plays faster than real time, the newest media time that came in."""
        return self._newest if self._scaled else clock.now() - self.zero

    async def room(self) -> None:
        """Wait until the rings have room, for sources that can wait; that of audio is measured in seconds, however it is cut."""
        await self.ear.audio.room()
        await self.eye.video.room()

    def publisher_state(self, publisher: object, state: str, why: str) -> None:
        """What a WebRTC peer tells about itself: "connected", "stalled", "resumed" or "closed"."""
        if self.publisher is not publisher or self._ending.is_set():
            return
        if state == "stalled" and self.state is State.LIVE:
            self.state = State.STALLED
            self.log.emit("session.stalled", {"reason": why})
        elif state == "resumed" and self.state is State.STALLED:
            self.state = State.LIVE
            self.log.emit("session.resumed", {"reason": why})
        elif state == "closed":
            self.detach(why)

    def detach(self, why: str) -> None:
        """The publisher is gone: keep the context for the resume window."""
        self._count_losses()
        self.publisher = None
        if self.state is State.LIVE:
            self.state = State.STALLED
            self.log.emit("session.stalled", {"reason": why})
        self._await_publisher(self.settings.ingest.resume_seconds, "publisher_left")

    def _await_publisher(self, seconds: float, reason_: str) -> None:
        """End the session for a reason unless somebody publishes within some seconds."""
        self._awaiting = asyncio.get_running_loop().call_later(seconds, self.end, reason_)

    def end(self, reason_: str, error: StreamsvcError | None = None) -> None:
        """Begin the end: what has come in is still understood and published. Later calls change nothing."""
        if not self._ending.is_set():
            self._end_reason, self._end_error = reason_, error
            self._ending.set()
            if self._awaiting is not None:
                self._awaiting.cancel()

    def _want_keyframe(self) -> None:
        if (ask := getattr(self.publisher, "request_keyframe", None)) is not None:
            ask()

    def _sees_now(self) -> bool:
        """Whether pictures of now come in, at the speed of time."""
        return self.state is State.LIVE and "video" in self._tracks and self._sees and not self.lossless

    def failure(self) -> StreamsvcError | None:
        """Why the stream ended, where that was an error."""
        return self._end_error

    def _alerted(self, watch: str, alert: Alert) -> dict[str, Any]:
        """Publish an alert; what a webhook is sent."""
        body = {
            "watch_id": watch,
            "text": alert.text,
            "evidence": [evidence(item, self.frame_url) for item in alert.evidence],
        }
        event = self.log.emit("alert.fired", body, at=alert.at, arrived=alert.arrived)
        return {"type": event.type, "id": event.id, "session": self.id, "at": round(alert.at, 3), **body}

    # --- the budget ---

    def load(self, now: float) -> load_policy.Load:
        """See governor.Governed."""
        return load_policy.Load(self.ear.backlog(), self.eye.waited(now), self.mouth.waited(now))

    def apply_level(self, level: int, reason: str) -> None:
        """See governor.Governed."""
        if level == self.report.level:
            return
        self.report.level, spent = level, degradation.fidelity(level)
        self.ear.spent = spent
        self.eye.spend(spent)
        self.mouth.spend(spent, reason)
        self.log.emit("session.degraded", {"level": level, "reason": reason or "recovered"})

    # --- what others read ---

    def frame_url(self, at: float) -> str:
        """Where the keyframe of session second `at` can be loaded."""
        return self._sign(f"/v1/sessions/{self.id}/frames/{at:.3f}.jpg")

    def told(self) -> dict[str, Any]:
        """When it began, and what it hears and sees now."""
        return {"started_utc": clock.stamp(self.started_utc), "tracks": sorted(self._tracks)}

    def describe(self) -> dict[str, Any]:
        """The session as the REST door shows it."""
        base = f"/v1/sessions/{self.id}"
        return {
            "id": self.id,
            "state": self.state.value,
            **self.told(),
            "events_url": f"{base}/events",
            "whip_url": f"/whip/{self.id}",
            "overlay_url": f"/overlay/{self.id}",
            "captions_url": f"{base}/captions.vtt",
        }
