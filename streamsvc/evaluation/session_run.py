"""Session run: play a recording into a session, ask questions at given times, and collect every event.

In real time the models run in the worker processes, as under `serve` (`worker_service`). Otherwise on a
virtual clock the models run in this process, and each call takes a fixed time (`fixed_time_service`): every
run is the same until code, a model, a prompt or a quantisation changes. The ages of such a run mean nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from streamsvc.answers import router, watch_router
from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.core import clock
from streamsvc.core.config import Settings
from streamsvc.core.errors import DeadlineMissed, InvalidRequest, StreamsvcError, WorkerError
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.evaluation.resource_meter import ResourceMeter
from streamsvc.evaluation.scenario import Scenario
from streamsvc.ingest.container import choose, open_file, packets
from streamsvc.ingest.source_policy import Place, check_file
from streamsvc.ingest.timestamps import MediaClock, stamps_of
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.workers.look_cache import LookCache

ASKER = "examiner"  # the client name of the subscription
ANSWER_TIMEOUT = 60.0  # seconds after the last question
SETTLE = 3.0  # seconds from the end of the recording to the questions after it
SPACING = 1.0  # seconds between these questions
# Seconds of a call on the virtual clock by op, about as long as on one x86-64 core.
CALL_SECONDS = {
    "vad": 0.002,
    "transcribe": 0.1,
    "translate": 0.1,
    "look": 0.05,
    "read": 0.8,
    "texts": 0.01,
    "rank": 0.3,
    "extend": 0.1,
    "count": 0.002,
    "generate": 0.03,
}
OTHER_CALL_SECONDS = 0.02  # of any other op; in a stream, of each item
SILENCE_SECONDS = 0.1  # of an item of a stream that only says that a remote endpoint is still silent

Event = dict[str, Any]
Load = Callable[[str, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class SessionRun:
    """The output of one session.

    `events`: as published, with "received" (session seconds). `asked`: question id -> session seconds.
    `seconds`: of media played. `cost`: memory and CPU of all processes, in real time only. `watches`: ids, in
    the order of the argument.
    """

    events: list[Event]
    asked: Mapping[str, float]
    seconds: float
    cost: Mapping[str, Any] = field(default_factory=dict)
    watches: tuple[str | None, ...] = ()


# --- the service --------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def worker_service(settings: Settings) -> AsyncIterator[Service]:
    """A service with its worker processes, ready.

    Raises ModelMissing, WorkerError: a worker does not start.
    """
    async with Service(settings, keeps=False) as service:
        await service.ready()
        yield service


def load_engine(module: str, options: Mapping[str, Any]) -> Any:
    """Load the engine of a module (dotted name). Raises ModelMissing."""
    return importlib.import_module(module).load({**options, "workers": 1})


@contextlib.asynccontextmanager
async def fixed_time_service(settings: Settings, load: Load = load_engine) -> AsyncIterator[Service]:
    """A service whose models run in this process, a fixed time a call. Requires a `clock.Threadless` loop.

    Args:
        settings: of the service.
        load: (dotted name of the module, options) -> engine; called at the first call of the role.

    Raises:
        ModelMissing: at the first call, no weights.
    """
    # Workers start at their first call: never here.
    async with Service(settings, at_once=(), keeps=False) as service:
        roles: dict[str, Any] = {
            role: FixedTimeRole(functools.partial(load, module, worker.options))
            for worker in service.workers.values()
            for role, module in worker.roles.items()
        }
        sight = roles.pop("sight", None)
        vlm = sight or (roles["think"] if service.roles.vlm is not None else None)
        service.use_roles(replace(service.roles, **{**roles, "see": LookCache(roles["see"]), "vlm": vlm}))
        for prepare in (router.prepare, watch_router.prepare):  # so that the first is routed as the last
            await prepare(roles["embed"])
        yield service


class FixedTimeRole:
    """A `Role` whose engine runs in this process, one call at a time.

    Streams of an op with several threads run beside each other. Deadlines are kept between the items of a
    stream, and ignored by calls.

    Args:
        load: makes the engine, at the first call.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._engine = functools.cache(load)
        self._lock = asyncio.Lock()
        self._turns: dict[str, asyncio.Semaphore] = {}  # by op with several threads

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        """See Role."""
        async with self._lock:
            (result,) = self._engine().ops[op].run([payload])
            await clock.sleep(CALL_SECONDS.get(op, OTHER_CALL_SECONDS))
        if isinstance(result, Exception):
            raise _published(result)
        return dict(result)

    async def stream(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """See Role."""
        latest = clock.now() + deadline_in_s
        async with self._turn(op):
            items = iter(self._engine().ops[op].run(payload))
            try:
                for item in items:
                    silent = dict(item) == {"text": ""}
                    await clock.sleep(SILENCE_SECONDS if silent else CALL_SECONDS.get(op, OTHER_CALL_SECONDS))
                    if clock.now() > latest:
                        raise DeadlineMissed("the deadline passed before the stream ended")
                    yield dict(item)
            except Exception as error:
                raise _published(error) from None
            finally:
                if isinstance(items, Generator):
                    items.close()

    def _turn(self, op: str) -> asyncio.Lock | asyncio.Semaphore:
        threads = getattr(self._engine().ops[op], "threads", 1)
        return self._lock if threads == 1 else self._turns.setdefault(op, asyncio.Semaphore(threads))


def _published(error: Exception) -> StreamsvcError:
    """The error as a worker would report it: never the text of an exception that is not ours."""
    if isinstance(error, StreamsvcError):
        return error
    return WorkerError(f"the engine failed with {type(error).__name__}")


# --- one session --------------------------------------------------------------------------------------------


class ObservedSession:
    """A session whose events are collected: `async with observed_session(service) as observed`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self.asked: dict[str, float] = {}
        self._answers: dict[str, asyncio.Event] = {}

    def now(self) -> float:
        """Session seconds."""
        return clock.now() - self.session.clock.zero

    async def watch(self) -> None:
        """Collect every event until the session has ended."""
        subscription = self.session.log.subscribe(client=ASKER)
        while (batch := await subscription.next()) is not None:
            for _, text in batch:
                event = json.loads(text)
                self.events.append({"received": round(self.now(), 3), **event})
                if event["type"] == "answer.done" and event["question_id"] in self._answers:
                    self._answers[event["question_id"]].set()

    def ask(self, number: str, text: str, image: bytes | None = None) -> None:
        """Ask a question. If it is refused, the error is added to the events and there is no answer."""
        self.asked[number] = self.now()
        try:
            self.session.answering.queue.ask(
                QuestionRequest(text, question_id=number, client=ASKER, image=image)
            )
        except StreamsvcError as error:
            self.events.append({"received": round(self.now(), 3), "type": "error", **error.body()})
        else:
            self._answers[number] = asyncio.Event()

    async def answered(self) -> None:
        """Wait for the answers to all questions; at most ANSWER_TIMEOUT seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                for answer in self._answers.values():
                    await answer.wait()


@contextlib.asynccontextmanager
async def observed_session(
    service: Service, speech: SpeechOptions | None = None, vision: VisionOptions | None = None
) -> AsyncIterator[ObservedSession]:
    """An observed session without storage.

    On exit it is ended, all events are collected, and it is deleted.
    """
    options = SessionOptions(speech or SpeechOptions(), vision or VisionOptions(), stored=False)
    session = await service.sessions.create(options=options)
    observed = ObservedSession(session)
    watching = asyncio.create_task(observed.watch())
    try:
        yield observed
    finally:
        session.end("evaluated")
        await session.over.wait()
        await watching
        await service.sessions.delete(session.id, purge=True)


async def play(
    service: Service, scenario: Scenario, *, language: str | None = None, watches: Sequence[str] = ()
) -> SessionRun:
    """Play a recording in session time, ask the scenario's questions at their times, and collect all events.

    `watches`: conditions of watches that are added at the start, without a cooldown; one that is refused has
    no id.

    Raises:
        SourceError: the recording cannot be read.
    """
    questions = sorted(scenario.truth.get("qa") or (), key=lambda question: float(question["ask_at_s"]))
    with open_recording(scenario.media) as (tracks, frames):
        end = max((due for due, _ in frames), default=0.0)
        end = end if scenario.seconds is None else min(end, scenario.seconds)
        sees = any(track.kind == "video" for track in tracks)
        meter = ResourceMeter() if not isinstance(asyncio.get_running_loop(), clock.VirtualLoop) else None
        async with observed_session(service, SpeechOptions(language), VisionOptions(sees)) as observed:
            watch_ids = [await _watched(observed, when) for when in watches]
            observed.session.media.attach(RecordingPublisher(tracks))
            async with asyncio.TaskGroup() as group:
                sampling = group.create_task(meter.watch()) if meter is not None else None
                asking = group.create_task(
                    _ask(observed, [question for question in questions if question["ask_at_s"] <= end])
                )
                for due, frame in frames:
                    if due > end:
                        break
                    await tap_when_due(observed.session, due, frame)
                await observed.session.speech.flush(ASKER)
                await asking
                await clock.sleep(SETTLE)
                for question in questions:
                    if question["ask_at_s"] > end:
                        observed.ask(question["id"], question["question"])
                        await clock.sleep(SPACING)
                await observed.answered()
                if sampling is not None:
                    sampling.cancel()
    cost = meter.figures(end) if meter is not None else {}
    return SessionRun(observed.events, observed.asked, end, cost, tuple(watch_ids))


async def _watched(observed: ObservedSession, when: str) -> str | None:
    """Add a watch without a cooldown. Returns its id; None: it is refused."""
    try:
        return str((await observed.session.watches.add(when, 0.0))["id"])
    except InvalidRequest:
        return None


async def tap_when_due(session: Session, due: float, frame: EncodedFrame) -> None:
    """Give a session a frame at session second `due`."""
    await clock.sleep(session.clock.zero + due - clock.now())
    session.media.tap(replace(frame, session=session.id, arrived=clock.now()))


async def _ask(observed: ObservedSession, questions: list[Mapping[str, Any]]) -> None:
    for question in questions:
        await clock.sleep(question["ask_at_s"] - observed.now())
        observed.ask(question["id"], question["question"])


async def ask_about_image(service: Service, text: str, image: bytes) -> Event:
    """Ask a question with an attached image in a new session, so that no other question is in its history.

    Returns:
        The body of answer.done; without an answer, an empty text with "supported" false.
    """
    async with observed_session(service) as observed:
        observed.ask("q", text, image)
        await observed.answered()
    done = [event for event in observed.events if event["type"] == "answer.done"]
    return done[0] if done else {"text": "", "supported": False, "evidence": []}


# --- the recording ------------------------------------------------------------------------------------------


@dataclass
class RecordingPublisher:
    """The publisher of a session (`media_input.Publisher`)."""

    tracks: tuple[MediaTrack, ...]

    def stats(self) -> dict[str, float]:
        """See media_input.Publisher."""
        return {}

    def request_keyframe(self) -> None:
        """See media_input.Publisher."""

    async def close(self) -> None:
        """See media_input.Publisher."""


@contextlib.contextmanager
def open_recording(path: Path) -> Iterator[tuple[tuple[MediaTrack, ...], list[tuple[float, EncodedFrame]]]]:
    """Open a file: its tracks, and (due second, packet) in order of the due time.

    The tracks can be decoded while the context is open.

    Raises:
        SourceError: the file cannot be read.
    """
    check_file(path, path.name)
    with contextlib.ExitStack() as stack:
        container = open_file(Place("file", path.name, path), stack)
        streams, tracks = choose(container, path.name)
        codecs = {track.kind: track.codec for track in tracks}
        known = [
            float(stream.start_time * stream.time_base) for stream in streams if stream.start_time is not None
        ]
        media = MediaClock(min(known, default=0.0))
        frames = []
        for packet in packets(container, streams, path.name, lambda: None):
            kind, stamps = packet.stream.type, stamps_of(packet)
            at = media.place(kind, stamps)
            due = media.advance_due(kind, at)
            frame = EncodedFrame(
                "",
                "main",
                at,
                0.0,
                kind,
                bytes(packet),
                codecs[kind],
                bool(packet.is_keyframe),
                stamped=stamps.order is not None,
                loss="missing",
            )
            frames.append((due, frame))
        yield tracks, sorted(frames, key=lambda pair: pair[0])
