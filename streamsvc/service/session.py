r"""One session: a stream, and all that is known about it. `Session.run` tells the whole story.

    publisher -> tap -> speech pipeline --\
                    \-> vision pipeline ---> dispatch -> timeline, latency, watches, event log
                       questions -> answering --/
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import structlog

from streamsvc.answers.answering import Answering
from streamsvc.answers.reading import LOOK, Reading
from streamsvc.answers.watches import Watches
from streamsvc.core import clock, metrics
from streamsvc.core.config import Settings
from streamsvc.core.context import DegradationState, Roles, SessionContext
from streamsvc.core.errors import StreamsvcError
from streamsvc.core.options import SessionOptions
from streamsvc.core.queues import Ring
from streamsvc.core.session_clock import SessionClock
from streamsvc.core.spans import SpanSink
from streamsvc.core.tape import LIVE, Tape
from streamsvc.core.types import Delta, Event
from streamsvc.core.units import Reply, Unit
from streamsvc.events.caption_push import Push
from streamsvc.events.log import EventLog
from streamsvc.events.store import Store
from streamsvc.events.stored import StoredSession
from streamsvc.service.broadcast_ids import name_of
from streamsvc.service.dispatch import Dispatcher
from streamsvc.service.end_limit import EndLimit
from streamsvc.service.load_controller import levels_of
from streamsvc.service.load_policy import RECOVERED, Load, described
from streamsvc.service.media_input import MediaInput, MediaSource, State
from streamsvc.service.recording import tell_stop
from streamsvc.service.session_addresses import addresses, frame_path
from streamsvc.service.session_questions import SessionQuestions
from streamsvc.speech.pipeline import SpeechPipeline
from streamsvc.timeline.centrality import standing
from streamsvc.timeline.index import Index
from streamsvc.timeline.timeline import Timeline
from streamsvc.vision import keyframes
from streamsvc.vision.pipeline import VisionPipeline

log = structlog.get_logger()
_TICK_SECONDS, _REPORT_TICKS = 0.5, 10  # between writes of the log; writes between latency reports


@dataclass(frozen=True, slots=True)
class SharedResources:
    """What all sessions of a service share.

    `media`: the threads that decode. `sign`: makes a path loadable by an <img>. `keyframe_budget`: of all
    sessions; None: no limit. `spans`: where traces go; None: nothing is traced.
    """

    settings: Settings
    roles: Roles
    media: ThreadPoolExecutor
    sign: Callable[[str], str] = str
    keyframe_budget: keyframes.TokenBucket | None = None
    spans: SpanSink | None = None


class Session:
    """One stream and all that is known about it.

    Args:
        session_id: its id (`broadcast_ids`).
        shared: what all sessions of the service share.
        store: where durable events and thumbnails go.
        options: what the session is to do.
        tape: what is recorded of it, or replayed.

    `holder`: of the token that it was made with; "": unknown. `used_at`: when somebody last asked for it
    (monotonic seconds). `restored`: it was read from the disk. `went_on`: another node began it.

    Raises:
        InvalidRequest: an option is invalid.
    """

    def __init__(
        self,
        session_id: str,
        shared: SharedResources,
        store: Store,
        options: SessionOptions | None = None,
        tape: Tape = LIVE,
    ) -> None:
        settings = shared.settings
        options = options or SessionOptions()
        options.speech.check()
        self.id = session_id
        self.holder = ""
        self.used_at = clock.now()
        self.restored = False
        self.went_on = False
        self.settings = settings
        self.options = replace(options, speech=options.speech.with_defaults(settings.hear))
        self.clock = SessionClock()
        self.store = store
        self.ended_at: float | None = None  # monotonic seconds; set once everything is written
        self.ended_utc: datetime | None = None  # set just before
        self._figures: Mapping[str, Any] | None = None  # of `stats` at the end
        self.over = asyncio.Event()  # set at the same time
        self._sign = shared.sign
        self._degradation = DegradationState()
        roles = shared.roles.through(tape.role)
        self.context = SessionContext(
            session_id,
            settings,
            self.options,
            roles,
            self.clock,
            self._degradation,
            shared.media,
            self,
            tape,
            shared.spans,
        )
        self.timeline = Timeline(standing)
        self.index = Index(self.timeline, roles.embed, roles.see if settings.see.clip else None, tape)
        self.vision = VisionPipeline(self.context, self.timeline, shared.keyframe_budget)
        keys = self.vision.vlm.keys if self.vision.vlm is not None else None
        reading: Reading | None = None
        if roles.reads:
            reading = Reading(self.context, roles.think, self.timeline, None if roles.sight else keys)
        sight: Reading | None = None
        if roles.sight is not None:
            sight = Reading(self.context, roles.sight, self.timeline, keys, LOOK, sight=True)
        self.log = EventLog(session_id, self.clock, settings.limits, store, tape)
        tape.begin(self.clock, functools.partial(tell_stop, self.log, session_id))
        self.dispatcher = Dispatcher(self.context, self.timeline, reading, self.log, self.frame_url, sight)
        self.speech = SpeechPipeline(self.context)
        self.answering = Answering(self.context, self.timeline, self.index, self.vision, reading, sight)
        self.questions = SessionQuestions(self.answering, self.log)
        self.pushes: dict[str, Push] = {}  # by id; stopped ones stay until they are deleted
        self.media = MediaInput(self.context, self.log, self.speech, self.vision, self.end)
        self._queues: list[tuple[metrics.Share, Ring[Any]]] = [
            (metrics.Share(metrics.queue_depth.labels("audio")), self.speech.audio),
            (metrics.Share(metrics.queue_depth.labels("video")), self.vision.video),
        ]
        self._ending = asyncio.Event()
        self._end_reason = "ended"
        self._end_error: StreamsvcError | None = None
        self._ended = False
        self._outage = ""  # as last told
        self._understood = asyncio.Event()  # everything is understood and answered
        self._limit = EndLimit(session_id)

    # --- life ---

    async def run(self) -> None:
        """Live until the stream has ended and all of it has been understood and published."""
        self._limit.begin()
        metrics.sessions_active.inc()
        log.info("session started", session=self.id, stored=self.options.stored)
        kind, why = ("session.updated", {"reason": "taken_over"}) if self.went_on else ("session.created", {})
        self.log.emit(kind, self.media.summary() | why)
        self.media.await_first_publisher()
        result = "failed"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick())
                answering = tasks.create_task(self.answering.run())
                watching = tasks.create_task(self.watches.run())
                async with asyncio.TaskGroup() as media:
                    media.create_task(self.speech.run())
                    media.create_task(self.vision.run())
                    media.create_task(self._close_at_end())
                await self.answering.queue.close_after_last()
                await answering
                self.watches.close()
                await watching
                self._understood.set()
            result = self._end_reason
        except asyncio.CancelledError:
            result = self._end_reason if self._ending.is_set() else "cancelled"
            raise
        except Exception:
            self._end_error = self._end_error or StreamsvcError(
                "Internal error. The server log records the exception class."
            )
            raise
        finally:
            metrics.sessions_active.dec()
            metrics.sessions.labels(result).inc()
            self._ended = True
            self._limit.stop()
            self.media.refuse_publishers()
            self.clock.end()
            self.questions.end()
            self.watches.close()
            await asyncio.shield(asyncio.ensure_future(self._finish(result)))

    async def _close_at_end(self) -> None:
        """Wait for the end of the stream, then close the inputs; queued media is still processed."""
        await self._ending.wait()
        await self.media.close()

    async def _finish(self, result: str) -> None:
        """Publish the end, and write what is not written.

        A failed pipeline has left the publisher at work.
        """
        self.end(result, self._end_error)
        body: dict[str, Any] = {"reason": result}
        if self._end_error is not None:
            body["error"] = self._end_error.body()["error"]
        try:
            await self.media.close()
            self.speech.abandon()
            self.log.emit("session.closed", body)
            await self.log.end()
            await asyncio.to_thread(self.context.tape.close)
            await self._keep_end()
        finally:
            for share, _ in self._queues:
                share.set(0)
            self.dispatcher.tick(ended=True)
            self.ended_at = clock.now()
            seconds = round(self.clock.position(), 1)
            code = {"code": self._end_error.code} if self._end_error is not None else {}
            log.info("session ended", session=self.id, reason=result, seconds=seconds, **code)
            self.over.set()

    async def _keep_end(self) -> None:
        """Store when the session ended, and close its files: few read it from now on."""
        seconds = self.clock.position() if self.media.state is not State.CREATED else 0.0
        self.ended_utc = clock.utc()
        self._figures = self.stats()
        ended = {"ended_utc": clock.stamp(self.ended_utc), "seconds": str(round(max(0.0, seconds), 3))}
        ended["stats"] = json.dumps(self._figures)
        await self.log.put_end(**ended)
        await asyncio.to_thread(self.store.rest)

    def restore(self, stored: StoredSession, age: float) -> None:
        """Stand as the ended session that is stored, `age` seconds after its end; it is never run."""
        self.restored = True
        self._ended = True
        self.clock.restore(stored.started_utc, stored.seconds)
        self.log.resume(stored.epoch, stored.seq)
        self.media.restore(stored.tracks)
        self._figures = stored.stats
        self.questions.end()
        self.watches.close()
        if stored.error is not None:
            self._end_error = StreamsvcError(stored.error["message"], code=stored.error["code"])
            self._end_error.type = stored.error["type"]
            self._end_error.retryable = stored.error["retryable"]
        self._ending.set()
        self.ended_at = clock.now() - age
        self.ended_utc = stored.ended_utc
        self.over.set()

    async def _tick(self) -> None:
        """Write the log and report latencies, until everything is understood.

        Not cancelled in the normal course, for a cancelled write could write twice.
        """
        ticks = 0
        while not self._understood.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._understood.wait()
            await self.context.tape.point("tick")
            ticks += 1
            self.watches.tick(self.clock.position())
            await self.log.flush()
            if ticks % _REPORT_TICKS == 0:
                self.log.emit("latency.report", self.dispatcher.report(self.speech.backlog))
                self.dispatcher.tick()
                self.media.count_losses()
                for share, queue in self._queues:
                    share.set(len(queue))

    def end(self, reason: str, error: StreamsvcError | None = None, within: float | None = None) -> None:
        """Begin the end, for the first reason: what came in is still understood, `within` so many seconds."""
        if within is not None:
            self._limit.start(within)
        if not self._ending.is_set():
            self.context.tape.note("end", (reason, error))
            self._end_reason = reason
            self._end_error = error
            self._ending.set()
            self.media.refuse_publishers()

    @property
    def state(self) -> State:
        """Where the session stands."""
        return State.ENDED if self._ended else self.media.state

    @property
    def level(self) -> int:
        """The degradation level that the session is at."""
        return self._degradation.level

    @property
    def failure(self) -> StreamsvcError | None:
        """Why the session has failed; None: it has not."""
        return self._end_error

    async def play(self, source: MediaSource, speed: float | None) -> None:
        """Attach an opened source and play it to its end; then the session ends.

        The source is closed in any case.
        """
        error: StreamsvcError | None = None
        try:
            self.media.attach(source)
            self.clock.restart(media_paced=speed != 1.0 and source.duration is not None)
            try:
                await source.run(self.media.sink_of(source))
            except StreamsvcError as failed:
                error = failed
        finally:
            await source.close()
        self.end("source_failed" if error else "source_ended", error)

    # --- what the session's parts ask of it: core.context.SessionHost ---

    def dispatch(self, unit: Unit) -> Event | None:
        """See SessionHost."""
        if isinstance(unit, Reply) and not isinstance(unit.part, Delta) and self.options.stored:
            self.log.put_question(self.questions.stored(unit))
        self.speech.screen_vocabulary.take(unit)
        return self.questions.kept.take(self.dispatcher.dispatch(unit))

    async def store_frame(self, at: float, jpeg: bytes) -> None:
        """See SessionHost."""
        await self.log.put_frame(at, jpeg)
        await self.context.tape.point("stored")

    def request_keyframe(self) -> None:
        """See SessionHost."""
        if self.media.publisher is not None:
            self.media.publisher.request_keyframe()

    @property
    def live_video(self) -> bool:
        """See SessionHost."""
        watched = "video" in self.media.tracks and self.options.vision.enabled
        return self.state is State.LIVE and watched and not self.options.lossless

    # --- load control: load_controller.LoadSource ---

    def load(self, now: float) -> Load:
        """See LoadSource."""
        return Load(self.speech.backlog, self.vision.waited(now), self.answering.queue.waited(now))

    def apply_level(self, level: int, reason: str) -> None:
        """See LoadSource."""
        if self._degradation.apply(level, reason) and not self._ended:
            self.context.tape.note("level", (level, reason))
            self.log.emit("session.degraded", described(level, reason or RECOVERED, levels_of(self.settings)))

    def tell_outage(self, reason: str) -> None:
        """See LoadSource."""
        if reason != self._outage and not self._ended:
            self._outage = reason
            self.context.tape.note("outage", reason)
            told = described(self.level, reason or RECOVERED, levels_of(self.settings))
            self.log.emit("session.degraded", told)

    # --- reading ---

    @property
    def watches(self) -> Watches:
        """The watches of the session."""
        return self.dispatcher.watches

    def stats(self) -> dict[str, Any]:
        """Ages, coverage, backlog, level, and what comes in: at the end, once the session has ended."""
        report = self.dispatcher.report(self.speech.backlog)
        return {**(self._figures or {**report, "ingest": self.media.ingest()}), "state": self.state.value}

    def frame_url(self, at: float) -> str:
        """Where the keyframe of session second `at` can be loaded."""
        return self._sign(frame_path(self.id, at))

    def describe(self) -> dict[str, Any]:
        """The session as the REST API shows it."""
        return {
            "id": self.id,
            "name": name_of(self.id),
            "state": self.state.value,
            **self.media.summary(),
            **addresses(self.id, self.settings.server),
        }
