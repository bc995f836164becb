"""One session: the rooms of one stream, wired. `Session.run` tells the whole story.

    tap -> audio ring -> decode -> chunks -> transcribe -> captions --\
    tap -> video ring -> decode -> sample -> keyframes -> look, read --> timeline -> publish
                                                       questions ----> reason --/
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import structlog

from streamsvc import clock, decode, encode, metrics, reason, sample, transcribe
from streamsvc.captions import Cues
from streamsvc.config import Settings
from streamsvc.context import Timeline
from streamsvc.errors import CapacityError, Conflict, InvalidRequest, NotFound, StreamsvcError, TooLarge, WorkerError
from streamsvc.mailbox import Closed, Ring
from streamsvc.publish import Log
from streamsvc.reports import Report, bodies
from streamsvc.store import Store
from streamsvc.types import (
    SAMPLE_RATE,
    Answer,
    AudioChunk,
    Cue,
    Delta,
    EncodedFrame,
    Gap,
    Keyframe,
    MediaTrack,
    Question,
    Speech,
    VideoFrame,
    Words,
)
from streamsvc.worker import Role

log = structlog.get_logger()
T = TypeVar("T")
_TICK = 0.5  # seconds between writes of the log
_CHUNKS = 1200  # audio chunks of 20 ms that wait for the transcriber: 24 s, its buffer while the worker is away
_LOOK_SECONDS = 10.0  # a keyframe not looked at by then is skipped
_READ_SECONDS = 30.0


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


class Publisher(Protocol):
    """Whoever sends the media of a session: a WebRTC peer or a source."""

    tracks: tuple[MediaTrack, ...]

    async def close(self) -> None:
        """Stop sending; never raises."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """A keyframe on its way through the see worker."""

    keyframe: Keyframe
    jpeg: bytes
    gray: Any  # the thumbnail, uint8 (h, w)
    event: str  # id of its keyframe.sampled


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
        language: of the speech; None: as the model's settings say.
        vocabulary: names and terms to expect.
        sees: False: pictures are not looked at.
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
        language: str | None = None,
        vocabulary: Sequence[str] = (),
        sees: bool = True,
    ) -> None:
        self.id = name
        self.state = State.CREATED
        self.settings, self.roles, self.store = settings, roles, store
        self.vocabulary = tuple(vocabulary)
        self.started_utc = clock.utc()
        self.zero = clock.now()
        self.ended_at: float | None = None  # monotonic seconds
        self.publisher: Publisher | None = None
        self.timeline = Timeline()
        self.cues: list[Cue] = []  # closed ones, oldest first; bounded by settings.store.events
        self.report = Report(settings.budget)
        self.log = Log(name, self.zero, settings.limits, store, self.report.note)
        self._hear_settings = settings.hear.model_copy(update={"language": language}) if language else settings.hear
        self._media, self._sign, self._lossless = media, sign, lossless
        self._captions = Cues(name)
        self._tracks: dict[str, MediaTrack] = {}
        self._lost = 0  # audio packets that the present publisher's transport has lost, as last counted
        self._sees = sees
        self._newest = 0.0  # session seconds of the newest frame that came in
        self._scaled = False  # a file plays, and not at the speed of time
        self._wants = sample.Wants()
        self._audio: Ring[EncodedFrame] = Ring(settings.ingest.audio_ring, lambda frame: self._dropped("audio"))
        self._video: Ring[EncodedFrame] = Ring(settings.ingest.video_ring, self._video_dropped)
        self._video_hole = False
        self._chunks: Ring[AudioChunk] = Ring(_CHUNKS, lambda chunk: self._dropped("chunks"))
        self._keyframes: Ring[_Seen] = Ring(2, lambda seen: self._dropped("keyframe"))
        self._texts: Ring[_Seen] = Ring(1, lambda seen: self._dropped("text"))
        self._questions: Ring[tuple[Question, float, str | None]] = Ring(settings.limits.questions_waiting)
        self._held: list[tuple[str, str]] = []  # questions to ask when all has been understood, and who asks
        self._ending = asyncio.Event()
        self._end_reason = "ended"
        self._end_error: StreamsvcError | None = None
        self._left = asyncio.Event()  # the publisher is gone; cleared by the next one

    # --- the story ---

    async def run(self) -> None:
        """Live until the stream has ended and all of it has been understood and published."""
        metrics.sessions_active.inc()
        self._emit_created()
        result = "failed"
        try:
            async with asyncio.TaskGroup() as rooms:
                tick = rooms.create_task(self._tick())
                answering = rooms.create_task(self._answer())
                async with asyncio.TaskGroup() as media:
                    media.create_task(self._decode_audio())
                    media.create_task(self._transcribe())
                    media.create_task(self._decode_video())
                    media.create_task(self._look())
                    media.create_task(self._read())
                    media.create_task(self._until_over())
                for text, client in self._held:
                    self.ask(text, client=client)
                self._questions.close()
                await answering
                tick.cancel()
            result = self._end_reason
        finally:
            metrics.sessions_active.dec()
            metrics.sessions.labels(result).inc()
            self.state, self.ended_at = State.ENDED, clock.now()
            self._questions.close()
            await asyncio.shield(self._closed(result))

    async def _until_over(self) -> None:
        """Wait for the end of the stream, then let every room run dry."""
        await self._ending.wait()
        if (publisher := self.publisher) is not None:
            self.publisher = None
            await publisher.close()
        self._audio.close()
        self._video.close()

    async def _closed(self, result: str) -> None:
        body: dict[str, Any] = {"reason": result}
        if self._end_error is not None:
            body["error"] = self._end_error.body()["error"]
        self.log.emit("session.closed", body)
        await self.log.end()

    async def _tick(self) -> None:
        """Write the log, report latencies, and end the session when nobody comes back."""
        ticks = 0
        while True:
            await clock.sleep(_TICK)
            ticks += 1
            await self.log.flush()
            if ticks % 10 == 0:
                backlog = sum(len(ring) for ring in (self._audio, self._video))
                self.log.emit("latency.report", self.report.body(backlog))
                self._count_losses()
                metrics.queue_depth.labels("audio").set(len(self._audio))
                metrics.queue_depth.labels("video").set(len(self._video))

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
        self._left.clear()
        resumed = self.state is State.STALLED
        self.state = State.LIVE
        self.log.emit("session.updated", {"tracks": sorted(self._tracks), "started_utc": _stamp(self.started_utc)})
        if resumed:
            self.log.emit("session.resumed", {"reason": "published again"})

    async def play(self, source: Any, speed: float | None) -> None:
        """Attach an opened source and feed it to the end; then the session ends."""
        self.attach(source)
        self.zero = self.log.zero = clock.now()
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
        if frame.kind == "audio":
            self._audio.put(frame)
        elif self._sees and sample.wants(frame, self._wants):
            self._video.put(frame)
        else:
            metrics.frames.labels("not_wanted").inc()

    def position(self) -> float:
        """Session seconds of now: for a file that plays faster than real time, the newest media time that came in."""
        return self._newest if self._scaled else clock.now() - self.zero

    async def room(self) -> None:
        """Wait until the rings have room, for sources that can wait."""
        await self._audio.room()
        await self._video.room()

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
        self.publisher = None
        if self.state is State.LIVE:
            self.state = State.STALLED
            self.log.emit("session.stalled", {"reason": why})
        self._left.set()
        asyncio.get_running_loop().call_later(self.settings.ingest.resume_seconds, self._give_up)

    def _give_up(self) -> None:
        if self._left.is_set() and self.publisher is None:
            self.end("publisher_left")

    def end(self, reason_: str, error: StreamsvcError | None = None) -> None:
        """Begin the end: what has come in is still understood and published. Later calls change nothing."""
        if not self._ending.is_set():
            self._end_reason, self._end_error = reason_, error
            self._ending.set()

    def _dropped(self, queue: str) -> None:
        metrics.frames.labels(f"dropped_{queue}").inc()

    def _video_dropped(self, frame: EncodedFrame) -> None:
        self._dropped("video")
        self._video_hole = True

    async def _on_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._media, function, *args)

    # --- hearing ---

    async def _decode_audio(self) -> None:
        decoder: decode.AudioDecoder | None = None
        track: MediaTrack | None = None
        async for frames in _batches(self._audio):
            chunks: list[AudioChunk] = []
            if decoder is None or track is not self._tracks.get("audio"):
                if decoder is not None:
                    chunks += decoder.flush()
                track = self._tracks["audio"]
                decoder = decode.AudioDecoder(track, self.id)
            chunks += await self._on_thread(decoder.decode, frames)
            metrics.audio_processed.inc(sum(len(chunk.samples) for chunk in chunks) / SAMPLE_RATE)
            for chunk in chunks:
                await self._pass_on(self._chunks, chunk)
        if decoder is not None:
            for chunk in decoder.flush():
                await self._pass_on(self._chunks, chunk)
        self._chunks.close()

    async def _transcribe(self) -> None:
        await transcribe.run(self._chunks, self.roles.hear, self._heard, self._hear_settings, session=self.id, vocabulary=self.vocabulary)

    def _heard(self, unit: Words | Speech | Gap) -> None:
        """Publish what the transcriber found."""
        if isinstance(unit, Words):
            self._captioned(unit)
        elif isinstance(unit, Speech):
            self.timeline.add(unit)
            self.log.emit("speech.started" if unit.active else "speech.stopped", {}, at=unit.at, arrived=unit.arrived)
        else:
            self.timeline.add(unit)
            self.report.gap(unit.end - unit.start)
            self.log.emit("caption.gap", {"start": round(unit.start, 3), "end": round(unit.end, 3), "reason": unit.reason}, at=unit.at)

    def _captioned(self, words: Words) -> None:
        if words.stable:
            self.report.stable(clock.now() - words.arrived)
        for cue in self._captions.push(words):
            if cue.final:
                self.cues.append(cue)
                del self.cues[: -self.settings.store.events]
                self.timeline.add(cue)
            else:
                self.timeline.tail(cue.words[: cue.stable])
            kind = "caption.final" if cue.final else "caption.partial"
            self.log.emit(kind, bodies(cue), at=cue.start, arrived=cue.arrived, stages=cue.stages)

    # --- seeing ---

    async def _decode_video(self) -> None:
        decoder: decode.VideoDecoder | None = None
        track: MediaTrack | None = None
        sampler = sample.Sampler(self.settings.sample)
        next_probe = 0.0  # session seconds
        next_ask = 0.0  # monotonic seconds at which a keyframe may be asked for again
        async for frames in _batches(self._video, 8):
            if decoder is None or track is not self._tracks.get("video"):
                track = self._tracks["video"]
                decoder = decode.VideoDecoder(track, self.id)
            if self._video_hole:
                self._video_hole = False
                frames[0] = replace(frames[0], gap=max(frames[0].gap, 0.001))
            pictures = await self._on_thread(decoder.decode, frames)
            if decoder.waiting and clock.now() >= next_ask and (ask := getattr(self.publisher, "request_keyframe", None)):
                next_ask = clock.now() + 1.0
                ask()
            for frame in pictures:
                metrics.frames.labels("decoded").inc()
                if frame.at >= next_probe:
                    next_probe = frame.at + 1 / self.settings.sample.probe_fps - 0.005
                    await self._probe(sampler, frame)
        if decoder is not None:
            for frame in decoder.flush()[-1:]:
                await self._probe(sampler, frame)
        self._keyframes.close()

    async def _probe(self, sampler: sample.Sampler, frame: VideoFrame) -> None:
        """Compare one picture with the last keyframe; publish it where it is worth looking at."""
        gray = await self._on_thread(decode.thumbnail, frame)
        found = sampler.look(gray, frame.at)
        if found is None:
            return
        keyframe = Keyframe(self.id, frame.track, frame.at, frame.arrived, frame, found.reason, found.changed)
        jpeg = await self._on_thread(decode.jpeg, frame)
        metrics.frames.labels("keyframe").inc()
        await asyncio.to_thread(self.store.put_frame, frame.at, jpeg)
        self.timeline.add(keyframe)
        event = self.log.emit(
            "keyframe.sampled", {"reason": found.reason, "url": self.frame_url(frame.at)}, at=frame.at, arrived=frame.arrived
        )
        await self._pass_on(self._keyframes, _Seen(keyframe, jpeg, gray, event.id))

    async def _look(self) -> None:
        """Keyframes through the vision models; scene captions never wait for the reading of text."""
        async for batch in _batches(self._keyframes, 1):
            seen = batch[0]
            try:
                sight = await self._retried(
                    functools.partial(
                        encode.look, seen.keyframe, seen.jpeg, self.roles.see, self.settings.see, deadline_in_s=_LOOK_SECONDS
                    ),
                    lambda: len(self._keyframes) > 0,
                )
            except StreamsvcError as error:
                self._failed("look", error)
            else:
                self.timeline.add(sight)
                self.log.emit("sight.ready", {"of": seen.event, **bodies(sight)}, at=sight.at, arrived=sight.arrived, stages=sight.stages)
                if (scene := reason.scene(self.timeline, sight)) is not None:
                    self.timeline.add(scene)
                    body = bodies(scene, self.frame_url)
                    self.log.emit("scene.caption", body, at=scene.at, arrived=scene.arrived, stages=scene.stages)
            if self.settings.see.ocr:
                await self._pass_on(self._texts, seen)
        self._texts.close()

    async def _read(self) -> None:
        """Text on keyframes, where there may be some and it has changed; the newest picture wins."""
        reader = encode.Reader(self.settings.see)
        async for batch in _batches(self._texts):
            seen = batch[-1]
            try:
                text = await self._retried(
                    functools.partial(reader.read, seen.keyframe, seen.jpeg, seen.gray, self.roles.see, deadline_in_s=_READ_SECONDS),
                    lambda: len(self._texts) > 0,
                )
            except StreamsvcError as error:
                self._failed("read", error)
                continue
            if text is not None:
                self.timeline.add(text)
                self.log.emit("screen.text", {"of": seen.event, **bodies(text)}, at=text.at, arrived=text.arrived, stages=text.stages)

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
        log.warning("keyframe skipped", session=self.id, stage=stage, reason=error.code)

    async def _pass_on(self, ring: Ring[T], item: T) -> None:
        if self._lossless:
            await ring.put_when_room(item)
        else:
            ring.put(item)

    # --- answering ---

    def ask(
        self,
        text: str,
        *,
        number: str | None = None,
        deadline_ms: float | None = None,
        audience: str = "asker",
        client: str | None = None,
        image: bytes | None = None,
    ) -> Question:
        """Queue a question; its answer comes as events.

        Args:
            text: plain words.
            number: the asker's id for it; None: one is made.
            deadline_ms: milliseconds for the whole answer; None: the budget's.
            audience: "asker" or "session".
            client: the subscriber that asks (who alone gets the answer where the audience is "asker").
            image: JPEG or PNG sent along.

        Raises:
            InvalidRequest: no text, or a deadline that is none. TooLarge: over the limits. CapacityError: too many wait.
            NotFound: the session has ended.
        """
        limits = self.settings.limits
        text = text.strip()
        if not text:
            raise InvalidRequest("the question has no text", code="empty_question")
        if len(text) > limits.question_chars:
            raise TooLarge(f"a question has at most {limits.question_chars} characters", code="question_too_long")
        if image is not None and len(image) > limits.image_bytes:
            raise TooLarge(f"an image has at most {limits.image_bytes} bytes", code="image_too_large")
        if deadline_ms is not None and not 1 <= deadline_ms <= 120_000:
            raise InvalidRequest("deadline_ms is between 1 and 120000", code="bad_deadline")
        if audience not in ("asker", "session"):
            raise InvalidRequest('audience is "asker" or "session"', code="bad_audience")
        if self.state is State.ENDED:
            raise NotFound("this session has ended", code="session_ended")
        if len(self._questions) >= limits.questions_waiting:
            raise CapacityError(f"{limits.questions_waiting} questions wait already", retry_after=2.0, code="too_many_questions")
        now = clock.now()
        seconds = deadline_ms / 1000 if deadline_ms is not None else self.settings.think.deadline
        question = Question(number or f"q_{secrets.token_hex(6)}", text, self.position(), now + seconds, audience, image)
        self._questions.put((question, now, client if audience == "asker" else None))
        return question

    def hold(self, texts: Sequence[str], client: str) -> None:
        """Ask these when the stream has ended and all of it has been understood; at most as many as may wait."""
        if len(texts) > self.settings.limits.questions_waiting:
            raise InvalidRequest(f"at most {self.settings.limits.questions_waiting} questions at once", code="too_many_questions")
        self._held = [(text, client) for text in texts]

    def failure(self) -> StreamsvcError | None:
        """Why the stream ended, where that was an error."""
        return self._end_error

    async def _answer(self) -> None:
        async for batch in _batches(self._questions, 1):
            question, asked, client = batch[0]
            first = True
            try:
                async with contextlib.aclosing(reason.answer(question, self.timeline, self.roles.think, self.settings.think)) as parts:
                    async for part in parts:
                        if isinstance(part, Delta):
                            if first:
                                metrics.answer_first_delta.observe(clock.now() - asked)
                                self.report.age("first_delta", clock.now() - asked)
                                first = False
                            self.log.emit(
                                "answer.delta",
                                {"question_id": question.id, "text": part.text},
                                at=question.asked,
                                arrived=asked,
                                audience=client,
                            )
                        else:
                            self._answered(part, question, asked, client)
            except StreamsvcError as error:
                told = {"question_id": question.id, "text": "", "supported": False, "evidence": [], "error": error.body()["error"]}
                self.log.emit("answer.done", told, at=question.asked, arrived=asked, audience=client)

    def _answered(self, answer: Answer, question: Question, asked: float, client: str | None) -> None:
        self.report.age("answer", clock.now() - asked)
        body = bodies(answer, self.frame_url)
        self.log.emit("answer.done", body, at=question.asked, arrived=asked, stages=answer.stages, audience=client)

    # --- what others read ---

    def frame_url(self, at: float) -> str:
        """Where the keyframe of session second `at` can be loaded."""
        return self._sign(f"/v1/sessions/{self.id}/frames/{at:.3f}.jpg")

    def describe(self) -> dict[str, Any]:
        """The session as the REST door shows it."""
        base = f"/v1/sessions/{self.id}"
        return {
            "id": self.id,
            "started_utc": _stamp(self.started_utc),
            "state": self.state.value,
            "tracks": sorted(self._tracks),
            "events_url": f"{base}/events",
            "whip_url": f"/whip/{self.id}",
            "overlay_url": f"/overlay/{self.id}",
            "captions_url": f"{base}/captions.vtt",
        }

    def _emit_created(self) -> None:
        self.log.emit("session.created", {"started_utc": _stamp(self.started_utc), "tracks": sorted(self._tracks)})


def _stamp(moment: Any) -> str:
    return str(moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"))


async def _batches(ring: Ring[T], most: int | None = None) -> AsyncIterator[list[T]]:
    """What comes out of a ring until it is closed and empty."""
    with contextlib.suppress(Closed):
        while True:
            yield await ring.take(most)
