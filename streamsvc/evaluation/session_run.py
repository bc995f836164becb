"""Sessions played before an examiner: a recording at its times, questions at theirs, and every event of it.

In real time the models run in the service's workers, as under `serve` (`working`). Else the clock jumps, the models run in this process,
and each call takes a fixed time of that clock (`steady`): so every run hears, sees and reads at the same moments, and only a change of
the code, a model, a prompt or a quantisation changes what comes out. The ages of such a run mean nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from streamsvc.answers.question_queue import NewQuestion
from streamsvc.core import clock
from streamsvc.core.config import Settings
from streamsvc.core.context import Roles
from streamsvc.core.errors import StreamsvcError, WorkerError
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.types import EncodedFrame, MediaTrack
from streamsvc.evaluation.scenario import Scenario
from streamsvc.evaluation.transcriber_run import spent
from streamsvc.ingest.container import choose, open_file, packets
from streamsvc.ingest.source_policy import Place, check_file
from streamsvc.ingest.timestamps import TrackClock
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from streamsvc.workers.look_cache import LookCache

ASKER = "examiner"  # the client name of the subscription
PATIENCE = 60.0  # seconds after the last question in which all answers must have come
SETTLE = 3.0  # seconds after the end until the questions that come behind it are asked
SPACING = 1.0  # seconds between these
WEIGH = 2.0  # seconds between two looks at memory and CPU
# Seconds that a call takes on the jumping clock, about as long as on one core of the machine that FIELD_NOTES was measured on.
TAKES = {
    "vad": 0.002,
    "transcribe": 0.1,
    "translate": 0.1,
    "look": 0.05,
    "read": 0.8,
    "texts": 0.01,
    "generate": 0.03,
}
ELSE = 0.02  # ... of any other; of a stream, each item

Event = dict[str, Any]
Load = Callable[[str, Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one session.

    `events`: as published, with "received" (session seconds). `asked`: question id -> session seconds. `seconds`: of media played.
    `cost`: memory and CPU of all processes, in real time. `watches`: the ids of those that were made, in order.
    """

    events: list[Event]
    asked: Mapping[str, float]
    seconds: float
    cost: Mapping[str, Any] = field(default_factory=dict)
    watches: tuple[str, ...] = ()


# --- the service --------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Service]:
    """A service with its worker processes, ready. Raises ModelMissing, WorkerError: they do not come up."""
    async with Service(settings) as service:
        await service.ready()
        yield service


def loaded(module: str, options: Mapping[str, Any]) -> Any:
    """The engine of a module, by its dotted name. Raises ModelMissing."""
    return importlib.import_module(module).load({**options, "workers": 1})


@contextlib.asynccontextmanager
async def steady(settings: Settings, load: Load = loaded) -> AsyncIterator[Service]:
    """A service whose models run in this process, each call for a fixed time. On a `clock.Threadless` loop.

    Args:
        settings: of the service.
        load: makes an engine of a module's dotted name and its options, at the first call.

    Raises:
        ModelMissing: at the first call of a model that is not there.
    """
    async with Service(
        settings, at_once=()
    ) as service:  # no worker starts before its first call, and none is called
        roles: dict[str, Any] = {
            role: Steady(functools.partial(load, module, worker.options))
            for worker in service.workers.values()
            for role, module in worker.roles.items()
        }
        service.use_roles(Roles(**{**roles, "see": LookCache(roles["see"])}))
        yield service


class Steady:
    """The asking end of a role (`worker.Role`) whose engine runs in this process, one call after the other. Deadlines are not kept.

    Args:
        load: makes the engine, at the first call.
    """

    def __init__(self, load: Callable[[], Any]) -> None:
        self._engine = functools.cache(load)
        self._turn = asyncio.Lock()

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        """See worker.Role."""
        async with self._turn:
            (result,) = self._engine().ops[op].run([payload])
            await clock.sleep(TAKES.get(op, ELSE))
        if isinstance(result, Exception):
            raise (
                result
                if isinstance(result, StreamsvcError)
                else WorkerError(f"the engine failed with {type(result).__name__}")
            )
        return dict(result)

    async def stream(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        """See worker.Role."""
        async with self._turn:
            for item in self._engine().ops[op].run(payload):
                await clock.sleep(TAKES.get(op, ELSE))
                yield dict(item)


# --- one session --------------------------------------------------------------------------------------------------


class Sitting:
    """A session that is watched: `async with sitting(service) as watched`."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.events: list[Event] = []
        self.asked: dict[str, float] = {}
        self._answers: dict[str, asyncio.Event] = {}

    def now(self) -> float:
        """Session seconds."""
        return clock.now() - self.session.clock.zero

    async def watch(self) -> None:
        """Take every event until the session has ended."""
        subscription = self.session.log.subscribe(client=ASKER)
        while (batch := await subscription.next()) is not None:
            for _, text in batch:
                event = json.loads(text)
                self.events.append({"received": round(self.now(), 3), **event})
                if event["type"] == "answer.done" and event["question_id"] in self._answers:
                    self._answers[event["question_id"]].set()

    def ask(self, number: str, text: str, image: bytes | None = None) -> None:
        """Ask a question; one that is refused at the door stays unanswered, with the error among the events."""
        self.asked[number] = self.now()
        try:
            self.session.answering.queue.ask(NewQuestion(text, number=number, client=ASKER, image=image))
        except StreamsvcError as error:
            self.events.append({"received": round(self.now(), 3), "type": "error", **error.body()})
        else:
            self._answers[number] = asyncio.Event()

    async def answered(self) -> None:
        """Wait until all that was asked is answered; at most PATIENCE seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                for answer in self._answers.values():
                    await answer.wait()


@contextlib.asynccontextmanager
async def sitting(
    service: Service, speech: SpeechOptions | None = None, vision: VisionOptions | None = None
) -> AsyncIterator[Sitting]:
    """A watched session, in memory; it has ended, with all events in, and is forgotten afterwards."""
    options = SessionOptions(speech or SpeechOptions(), vision or VisionOptions(), stored=False)
    session = await service.sessions.create(options=options)
    watched = Sitting(session)
    watching = asyncio.create_task(watched.watch())
    try:
        yield watched
    finally:
        session.end("evaluated")
        await session.over.wait()
        await watching
        await service.sessions.delete(session.id, purge=True)


async def play(
    service: Service, scenario: Scenario, *, language: str | None = None, watches: Sequence[str] = ()
) -> Run:
    """Play a recording at its times, ask the scenario's questions at theirs, and collect all events.

    `watches`: plain words that are watched for from the start, without a cooldown.

    Raises:
        SourceError: the recording cannot be read.
    """
    questions = sorted(scenario.truth.get("qa") or (), key=lambda question: float(question["ask_at_s"]))
    with recorded(scenario.media) as (tracks, frames):
        end = max((due for due, _ in frames), default=0.0)
        end = end if scenario.seconds is None else min(end, scenario.seconds)
        sees = any(track.kind == "video" for track in tracks)
        scales = Scales() if not isinstance(asyncio.get_running_loop(), clock.VirtualLoop) else None
        async with sitting(service, SpeechOptions(language), VisionOptions(sees)) as watched:
            made = tuple(watched.session.watches.add(when, 0.0)["id"] for when in watches)
            watched.session.media.attach(_Publisher(tracks))
            async with asyncio.TaskGroup() as group:
                weighing = group.create_task(scales.watch()) if scales is not None else None
                asking = group.create_task(
                    _ask(watched, [question for question in questions if question["ask_at_s"] <= end])
                )
                for due, frame in frames:
                    if due > end:
                        break
                    await clock.sleep(watched.session.clock.zero + due - clock.now())
                    watched.session.media.tap(replace(frame, session=watched.session.id, arrived=clock.now()))
                await watched.session.speech.flush(ASKER)
                await asking
                await clock.sleep(SETTLE)
                for question in questions:
                    if question["ask_at_s"] > end:
                        watched.ask(question["id"], question["question"])
                        await clock.sleep(SPACING)
                await watched.answered()
                if weighing is not None:
                    weighing.cancel()
    return Run(watched.events, watched.asked, end, scales.told(end) if scales is not None else {}, made)


async def _ask(watched: Sitting, questions: list[Mapping[str, Any]]) -> None:
    for question in questions:
        await clock.sleep(question["ask_at_s"] - watched.now())
        watched.ask(question["id"], question["question"])


async def inquire(service: Service, text: str, image: bytes) -> Event:
    """The answer to a question about a picture that is sent along, in a session of its own: no other question is known to it.

    Returns:
        The body of answer.done; an empty one with "supported" false where none came.
    """
    async with sitting(service) as watched:
        watched.ask("q", text, image)
        await watched.answered()
    done = [event for event in watched.events if event["type"] == "answer.done"]
    return done[0] if done else {"text": "", "supported": False, "evidence": []}


# --- the recording ------------------------------------------------------------------------------------------------


@dataclass
class _Publisher:
    """Whoever sends the media of a session (`types.Publisher`)."""

    tracks: tuple[MediaTrack, ...]

    def stats(self) -> dict[str, float]:
        """See types.Publisher."""
        return {}

    def request_keyframe(self) -> None:
        """See types.Publisher."""

    async def close(self) -> None:
        """See types.Publisher."""


@contextlib.contextmanager
def recorded(path: Path) -> Iterator[tuple[tuple[MediaTrack, ...], list[tuple[float, EncodedFrame]]]]:
    """The tracks of a file, ready to decode while it is open, and its packets, each with the second at which it is due, in that order.

    Raises:
        SourceError: it cannot be read.
    """
    check_file(path, path.name)
    with contextlib.ExitStack() as stack:
        container = open_file(Place("file", path.name, path), stack)
        streams, tracks = choose(container, path.name)
        codecs = {track.kind: track.codec for track in tracks}
        known = [
            float(stream.start_time * stream.time_base) for stream in streams if stream.start_time is not None
        ]
        clocks = {stream.type: TrackClock(min(known, default=0.0)) for stream in streams}
        frames = []
        for packet in packets(container, streams, path.name, lambda: None):
            kind, stamp = packet.stream.type, packet.pts if packet.pts is not None else packet.dts
            lasts = float(packet.duration * packet.time_base) if packet.duration else 0.0
            at = clocks[kind].place(None if stamp is None else float(stamp * packet.time_base), lasts)
            due = clocks[kind].advance_due(kind, at, lasts)
            frame = EncodedFrame(
                "", "main", at, 0.0, kind, bytes(packet), codecs[kind], bool(packet.is_keyframe)
            )
            frames.append((due, frame))
        yield tracks, sorted(frames, key=lambda pair: pair[0])


# --- the cost -----------------------------------------------------------------------------------------------------


class Scales:
    """Memory (PSS, the highest sum) and CPU seconds of this process and all its children. Linux only, for PSS."""

    def __init__(self) -> None:
        self._root = psutil.Process()
        self._most = 0
        self._before = self._spent()
        self._after = dict(self._before)

    def _spent(self) -> dict[int, float]:
        told = {}
        for process in [self._root, *self._root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                told[process.pid] = spent([process])
        return told

    def look(self) -> None:
        """Weigh everything now."""
        total = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += int(process.memory_full_info().pss)
        self._most = max(self._most, total)
        self._after |= self._spent()

    async def watch(self) -> None:
        """Weigh again and again until cancelled."""
        while True:
            await asyncio.to_thread(self.look)
            await clock.sleep(WEIGH)

    def told(self, seconds: float) -> dict[str, float]:
        """The figures of a run of so many seconds; a child that was born meanwhile counts from its birth."""
        self.look()
        cpu = sum(self._after.values()) - sum(self._before.values())
        return {
            "pss_max_mb": round(self._most / 1e6),
            "cpu_s_per_stream_s": round(cpu / max(seconds, 1e-9), 3),
        }
