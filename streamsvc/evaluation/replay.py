"""Replay of a recorded session on a virtual clock: the same media, clients, replies and choices, in order.

Whatever was recorded has its turn when all before it has had its own, at its recorded second. Media, clients
and load are acted out; a stage that waits for a model's reply, for its share of a queue or for its moment is
let on. So the events do not depend on the machine. A request that differs from the recorded one, and a stage
that does not come to where it was, is a divergence.

With engines the replies come from real models in this process, and the shares of the queues stay as recorded:
the closed captions must be the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import defaultdict, deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from streamsvc.answers.question_queue import QuestionRequest
from streamsvc.answers.watch_conditions import checks_from
from streamsvc.core import clock, config
from streamsvc.core.context import Roles
from streamsvc.core.degradation import Costs
from streamsvc.core.errors import InvalidRequest, StreamsvcError
from streamsvc.core.options import SessionOptions, SpeechOptions, VisionOptions
from streamsvc.core.queues import Ring
from streamsvc.core.tape import Tape
from streamsvc.evaluation import session_run
from streamsvc.evaluation.bundle import Record, frame_of, records, tracks_of
from streamsvc.evaluation.replay_outcome import Outcome, compare
from streamsvc.evaluation.replayed_roles import Examples, ReplayedRole
from streamsvc.events.store import Store
from streamsvc.service.session import Session, SharedResources

T = TypeVar("T")
Key = tuple[str, ...]
_SETTLE = 1e-8  # virtual seconds: passes when nothing else is left to do
_PATIENCE = 60.0  # virtual seconds for a stage to come to where it was recorded
_END_SECONDS = 120.0  # the same, for the session to end after the last record
_REPLIES = ("reply", "item", "done", "failed", "dropped")


def run(path: Path, settings: config.Settings, load: session_run.Load | None = None) -> Outcome:
    """Replay a bundle, and compare its events with the recorded ones.

    Args:
        path: of the bundle, or of the session's folder.
        settings: of this machine: where models are.
        load: makes the engines; None: the replies are the recorded ones.

    Raises:
        InvalidRequest: the bundle cannot be read.
    """
    with asyncio.Runner(loop_factory=clock.Threadless) as runner:
        return runner.run(_replay(path, settings, load))


async def _replay(path: Path, local: config.Settings, load: session_run.Load | None) -> Outcome:
    told = records(path)
    first = next(told, None)
    if first is None or first.kind != "session":
        raise InvalidRequest(f"{path} is an empty recording", code="no_bundle")
    settings = _settings(first.fields["settings"], local)
    player = Replayer(engines=load is not None)
    async with contextlib.AsyncExitStack() as stack:
        media = stack.enter_context(ThreadPoolExecutor(1))
        if load is None:
            shared = SharedResources(settings, player.roles(first), media)
        else:
            service = await stack.enter_async_context(session_run.fixed_time_service(settings, load))
            shared = service.sessions.shared
        shared.roles.cost_tracker.costs = _costs(first.fields["costs"])
        store = Store(None, events=settings.store.events, frames=settings.store.frames)
        stack.callback(store.close, purge=True)
        session = Session(first.fields["name"], shared, store, _options(first.fields), player)
        await player.play(session, told)
    compare(player.outcome, closed_captions_only=load is not None)
    return player.outcome


def _settings(groups: Mapping[str, Mapping[str, Any]], local: config.Settings) -> config.Settings:
    """The recorded settings, with the models' folder of this machine."""
    recorded = {name: dict(group) for name, group in groups.items()}
    recorded["hear"].setdefault("screen_vocabulary", False)  # recordings from before there was one
    recorded["models"]["dir"] = local.models.dir
    recorded["remote"]["url"] = local.remote.url or "http://127.0.0.1:9/v1"
    return config.load(None, **recorded)


def _options(told: Mapping[str, Any]) -> SessionOptions:
    return SessionOptions(
        _speech(told["speech"]), VisionOptions(**told["vision"]), lossless=told["lossless"], stored=False
    )


def _speech(told: Mapping[str, Any]) -> SpeechOptions:
    return SpeechOptions(**{**told, "vocabulary": tuple(told["vocabulary"])})


def _costs(told: Sequence[Sequence[Any]]) -> Costs:
    return Costs({(role, unit): tuple(samples) for role, unit, samples in told})


# --- the order ----------------------------------------------------------------------------------------------


@dataclass
class _Waiter:
    """A stage that waits for its turn. `digest`: of the request, where it is a call."""

    future: asyncio.Future[Record | None]
    digest: str = ""


class Replayer(Tape):
    """The tape of a replayed session: lets each stage on in the recorded order.

    Args:
        engines: real models reply, at moments of their own.

    `outcome`: what was found so far.
    """

    decides = True

    def __init__(self, *, engines: bool = False) -> None:
        self.outcome = Outcome()
        self._engines = engines
        self._base = 0.0  # monotonic seconds of the recording's 0
        self._waiting: dict[Key, deque[_Waiter]] = defaultdict(deque)
        self._came = asyncio.Event()
        self._over = False  # nothing is left to be told: everybody goes on by himself
        self._tasks: set[asyncio.Task[Any]] = set()
        self._examples = Examples()
        self._watches: dict[str, str] = {}  # recorded id -> id

    def roles(self, first: Record) -> Roles:
        """Roles that reply as recorded."""
        has = first.fields["roles"]
        names = ("hear", "see", "think", "embed")
        hear, see, think, embed = (ReplayedRole(name, self.turn, self._examples) for name in names)
        vlm = think if has["vlm"] else None
        return Roles(hear, see, think, embed if has["embed"] else None, vlm, has["reads"])

    # --- Tape ---

    def note(self, kind: str, told: object = None) -> None:
        """See Tape: keeps the events."""
        if kind == "event":
            self.outcome.events.append(json.loads(f"{told}}}"))

    async def point(self, name: str) -> None:
        """See Tape."""
        await self.turn(("point", name))

    async def take(
        self, name: str, ring: Ring[T], most: int | None = None, *, wanted: bool = True
    ) -> list[T]:
        """See Tape: takes as much as was taken."""
        record = await self.turn(("take", name))
        if record is None:
            return await ring.take(most) if wanted else []
        count = record.fields["count"]
        if count == 0 and name == "video":
            raise TimeoutError
        return await ring.take_exactly(count) if count > 0 else await ring.take(most) if count < 0 else []

    # --- turns ---

    async def turn(self, key: Key, asked: str = "") -> Record | None:
        """Wait for the turn of a stage; None: the recording has ended, or does not tell."""
        if self._over or not self._tells(key[0]):
            return None
        waiter = _Waiter(asyncio.get_running_loop().create_future(), asked)
        self._waiting[key].append(waiter)
        self._came.set()
        return await waiter.future

    def _tells(self, kind: str) -> bool:
        """Whether the recording decides about records of a kind: engines reply when they do."""
        return kind == "take" or not self._engines

    async def play(self, session: Session, told: Iterator[Record]) -> None:
        """Act out the records until they or the session end."""
        self._base = session.clock.zero
        running = asyncio.create_task(session.run())
        await clock.sleep(_SETTLE)
        try:
            for record in told:
                if record.kind == "event":
                    self.outcome.recorded.append(json.loads(record.fields["told"] + "}"))
                    continue
                if record.kind in ("over", "cut"):
                    self.outcome.cut = record.fields.get("reason", "")
                    break
                if not await self._act(session, record):
                    break
                await clock.sleep(_SETTLE)
            else:
                self.outcome.cut = "torn"
        finally:
            self._release()
        session.end(self.outcome.cut or "replayed")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await session.over.wait()
        running.cancel()
        await asyncio.gather(running, *self._tasks, return_exceptions=True)

    def _release(self) -> None:
        """Let everybody on who waits: there are no turns any more."""
        self._over = True
        self._examples.give_up()
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.future.done():
                    waiter.future.set_result(None)

    async def _act(self, session: Session, record: Record) -> bool:
        """Give a record its turn. False: nobody came for it, and the replay cannot go on."""
        key = _key(record)
        if key is None:
            await self._until(record)
            try:
                self._perform(session, record)
            except StreamsvcError as error:
                self.outcome.diverge(f"{_place(record)}: {record.kind} was refused ({error.code})")
            return True
        if not self._tells(key[0]) or await self._let_on(record, key) or _may_miss(record):
            return True
        self.outcome.diverge(f"{_place(record)}: {' '.join(key)} did not come")
        return self._engines and self._leave_free()

    def _leave_free(self) -> bool:
        """Act out the rest without deciding for the stages."""
        self._release()
        return True

    async def _let_on(self, record: Record, key: Key) -> bool:
        """Let the stage on that waits at `key`. False: none comes there."""
        if self._over:
            return True
        # A stage that was at such a point may have ended by now: the replay is no slower than the recording.
        patience = _SETTLE if _may_miss(record) else _PATIENCE
        latest = max(clock.now(), self._base + record.t) + patience
        asked = record.fields.get("digest", "")
        while True:
            waiting = self._waiting[key]
            while waiting and waiting[0].future.done():  # cancelled
                waiting.popleft()
            if waiting:
                await self._until(record)
                alive = [waiter for waiter in waiting if not waiter.future.done()]
                if alive:
                    chosen = next((waiter for waiter in alive if waiter.digest == asked), alive[0])
                    waiting.remove(chosen)
                    if chosen.digest != asked:
                        self.outcome.diverge(f"{_place(record)}: {' '.join(key[1:])} was asked another thing")
                    chosen.future.set_result(record)
                    return True
                continue
            if key[-1].startswith("routed"):
                self._examples.give_up()
            self._came.clear()
            try:
                async with asyncio.timeout_at(latest):
                    await self._came.wait()
            except TimeoutError:
                return False

    async def _until(self, record: Record) -> None:
        """Wait for the second of a record; of a question, for the one that its asker has on his clock."""
        if (left := self._base + record.fields.get("asked", record.t) - clock.now()) > 0:
            await clock.sleep(left)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        return task

    # --- what comes from outside ---

    def _perform(self, session: Session, record: Record) -> None:
        """Do what came from outside. Raises StreamsvcError: it is refused now."""
        told: Any = record.fields.get("told")
        match record.kind:
            case "examples":
                self._examples.tell(record.payload["vectors"])
            case "zero":
                session.clock.zero = self._base + record.fields["zero"]
                session.clock.media_paced = record.fields["media_paced"]
            case "frame":
                session.media.tap(frame_of(record, session.id, self._base))
            case "attach":
                session.media.attach(session_run.RecordingPublisher(tracks_of(record)))
            case "state":
                session.media.publisher_state(session.media.publisher, *told)
            case "level":
                session.apply_level(*told)
            case "outage":
                session.tell_outage(str(told))
            case "end":
                session.end(told[0], _error(told[1]))
            case _:
                self._serve(session, record, told)

    def _serve(self, session: Session, record: Record, told: Any) -> None:
        """Do what a client asked for."""
        match record.kind:
            case "ask":
                session.context.roles.cost_tracker.costs = _costs(record.fields["costs"])
                image = record.payload["image"].tobytes() if "image" in record.payload else None
                session.questions.ask(QuestionRequest(**told, image=image))
            case "cancel":
                session.answering.cancel(*told)
            case "watch":
                self._watches[told[0]] = session.watches.put(told[1], checks_from(told[3]), told[2])["id"]
            case "unwatch":
                session.watches.remove(self._watches.get(told, ""))
            case "update":
                session.speech.use(_speech(told[0]))
                session.log.emit("session.updated", session.media.summary() | {"reason": told[1]})
            case "reconfigure":
                session.speech.reconfigure(_speech(told))
            case "flush":
                self._spawn(session.speech.flush(told))
            case "search":
                pictures = bool(session.settings.see.clip)
                found = session.index.search(told[0], told[1], self._spawn, with_pictures=pictures)
                self._spawn(found)


def _error(told: Mapping[str, Any] | None) -> StreamsvcError | None:
    if told is None:
        return None
    error = StreamsvcError(told["message"], code=told["code"])
    error.type, error.retryable = told["type"], told["retryable"]
    return error


def _may_miss(record: Record) -> bool:
    """Whether nobody may come for a record: its stage has ended, or has itself cancelled its call."""
    return record.kind in ("point", "dropped")


def _key(record: Record) -> Key | None:
    """Where a stage waits for this record; None: it comes from outside."""
    told = record.fields
    if record.kind == "call":
        return "call", told["role"], told["op"]
    if record.kind in _REPLIES:
        return "reply", str(told["call"])
    return (record.kind, told["name"]) if record.kind in ("take", "point") else None


def _place(record: Record) -> str:
    return f"step {record.place} at {record.t:.3f} s"
