"""The sessions of a service: admission, creation, look-up, deletion, and retention of ended ones."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.config import LANGUAGES
from streamsvc.core.errors import CapacityError, Conflict, InvalidRequest, NotFound, StreamsvcError
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.core.tape import LIVE, Tape
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.events.store import FAILURES, Store, clear, size_of
from streamsvc.ingest.source import Source, open_source
from streamsvc.service.media_input import State
from streamsvc.service.recording import Recorder, check_recording
from streamsvc.service.session import Session, SharedResources
from streamsvc.service.stored_sessions import StoredSessions
from streamsvc.timeline.ranking import Hit
from streamsvc.vision.vlm import check_adapter

log = structlog.get_logger()
_JANITOR_SECONDS = 5.0  # between searches for sessions whose retention has passed
_MAX_UNSTORED = 200  # ended sessions in memory alone (`no_store`); the oldest are removed first


class Sessions:
    """The sessions of a service.

    Args:
        shared: what all sessions share.
        tasks: where sessions run.
        admit: raises CapacityError where the load allows no further session.

    `by_id`: all sessions in memory, ended ones too. `stored`: those of earlier runs that nobody has
    asked for. `draining`: admits none any more.
    """

    def __init__(self, shared: SharedResources, tasks: BackgroundTasks, admit: Callable[[], None]) -> None:
        self.by_id: dict[str, Session] = {}
        self.stored = StoredSessions(shared.settings.data_dir)
        self.draining = False
        self.shared = shared
        self._tasks = tasks
        self._admit_load = admit
        self._opening = 0  # sessions whose source is being opened; they count against the limit already

    @property
    def live(self) -> list[Session]:
        """The sessions that have not ended."""
        return [session for session in self.by_id.values() if session.state is not State.ENDED]

    # --- creation ---

    async def create(
        self,
        source: str | None = None,
        options: SessionOptions | None = None,
        *,
        name: str | None = None,
        speed: float | None = 1.0,
        roots: Sequence[Path] | None = (),
    ) -> Session:
        """Create a session: with a source it plays at once, without one it waits for a publisher.

        Args:
            source: a URL or path, or None.
            options: what the session is to do; `lossless` follows from `speed`.
            name: its id; a session of that id that has ended is erased. None: one is made.
            speed: of a file; None: as fast as possible.
            roots: folders below which files may lie; None: anywhere.

        Raises:
            CapacityError: as many sessions as may be are live. Conflict: a live one has the name.
            SourceError, Forbidden: the source cannot be opened.
            InvalidRequest: the model does not know the language, or cannot translate; the hangover is out of
                range; there is no such adapter.
        """
        options = replace(options or SessionOptions(), lossless=speed is None)
        self.check(options)
        self.admit()
        name = name or f"0.{secrets.token_urlsafe(12)}"
        await self._free(name)
        opened = await self._open(source, name, speed, roots) if source is not None else None
        try:
            self._refuse_if_draining()  # draining may have begun while the source was opened
            await self._free(name)
            session = self.start(name, options)
        except BaseException:
            if opened is not None:
                await opened.close()
            raise
        if opened is not None:
            self._tasks.spawn(self._play(session, opened, speed))
            # Let both tasks begin: the tracks are known then, and a cancelled player closes its source.
            await asyncio.sleep(0)
        return session

    async def _free(self, name: str) -> None:
        """Erase an ended session of a name. Raises Conflict: a live one has it."""
        session = self.by_id.get(name)
        if session is None:
            await self.stored.erase(name)
            return
        if session.state is not State.ENDED:
            raise Conflict(f"a live session is named {name!r} already", code="name_taken")
        await session.over.wait()
        await self.erase(session)

    async def _open(
        self, source: str, name: str, speed: float | None, roots: Sequence[Path] | None
    ) -> Source:
        settings = self.shared.settings
        self._opening += 1
        try:
            return await open_source(
                source,
                settings.ingest,
                session=name,
                speed=speed,
                roots=roots,
                private_urls=settings.server.private_urls,
            )
        except StreamsvcError as error:
            metrics.sessions_rejected.labels(error.code).inc()
            raise
        finally:
            self._opening -= 1

    def start(self, name: str, options: SessionOptions | None = None) -> Session:
        """Start a session without a source; a stored session of that name is erased."""
        options = options or SessionOptions()
        keep = self.shared.settings.store
        folder = self.shared.settings.data_dir / name
        clear(folder)
        self.stored.by_id.pop(name, None)
        store = Store(folder if options.stored else None, events=keep.events, frames=keep.frames)
        tape: Tape = LIVE
        if options.stored and (options.record if options.record is not None else keep.record == "all"):
            tape = Recorder(folder, self.shared.settings, options, self.shared.roles)
        session = Session(name, self.shared, store, options, tape)
        with contextlib.suppress(*FAILURES):  # then a write of the log fails too, and tells it
            store.put_meta(started_utc=clock.stamp(session.clock.started_utc))
        self.by_id[name] = session
        self._tasks.spawn(self._run(session))
        return session

    async def _run(self, session: Session) -> None:
        """Run a session; a failure ends it alone, and is logged without what was said or shown."""
        try:
            await session.run()
        except Exception as error:
            log.error("session failed", session=session.id, error=_class_names(error), exc_info=True)

    async def _play(self, session: Session, source: Source, speed: float | None) -> None:
        try:
            await session.play(source, speed)
        except Exception as error:
            log.error("source failed", session=session.id, error=_class_names(error), exc_info=True)
            session.end("source_failed")

    # --- admission ---

    def check(self, options: SessionOptions) -> None:
        """Check what a client has asked for. Raises InvalidRequest."""
        model = self.shared.settings.hear.model
        self._check_language(options.speech.language)
        check_recording(options, self.shared.settings.store)
        options.speech.check()
        check_adapter(options.vision.adapter, self.shared.settings)
        if options.speech.translate and model.endswith(".en"):
            raise InvalidRequest(
                f"translation needs a multilingual model, such as whisper-base: {model} knows English alone",
                code="cannot_translate",
            )

    def _check_language(self, code: str | None) -> None:
        model = self.shared.settings.hear.model
        if code is not None and (code not in LANGUAGES or (model.endswith(".en") and code != "en")):
            raise InvalidRequest(
                f'{code[:16]!r} is no language that {model} knows; they are named as in "en"',
                code="unknown_language",
            )

    def admit(self) -> None:
        """Raise CapacityError where no further session may begin."""
        self._refuse_if_draining()
        limit = self.shared.settings.limits.sessions
        live = len(self.live) + self._opening
        if live >= limit:
            metrics.sessions_rejected.labels("capacity").inc()
            raise CapacityError(f"{live} of {limit} sessions are live; try again later")
        self._admit_load()

    def _refuse_if_draining(self) -> None:
        if self.draining:
            metrics.sessions_rejected.labels("draining").inc()
            raise CapacityError("this server is going away")

    # --- access ---

    async def open(self, name: str) -> Session:
        """A live or ended session; one of an earlier run is read from the disk. Raises NotFound."""
        if name not in self.by_id:
            session = await self.stored.load(name, self.shared)
            if session is not None:
                self.by_id[name] = session
        return self.find(name)

    def find(self, name: str) -> Session:
        """A live or ended session that is in memory. Raises NotFound."""
        session = self.by_id.get(name)
        if session is None:
            raise NotFound(f"there is no session {name!r}", code="no_session")
        return session

    def update(self, name: str, wanted: SpeechOptions, changed: Collection[str]) -> Session:
        """Change how a live session's speech is recognised, from now on. Returns the session.

        Args:
            name: of the session.
            wanted: the new values; None: the language is detected, the rest is as the settings say.
            changed: the fields of `wanted` that change: of language, vocabulary, replace and translate.

        Raises:
            NotFound: no such session. Conflict: it has ended. InvalidRequest: the model does not know the
                language, or cannot translate; nothing is changed then.
        """
        session = self.find(name)
        self.check(SessionOptions(wanted))
        if session.state is State.ENDED:
            raise Conflict("this session has ended, so nothing of it can be changed", code="session_ended")
        reason = ", ".join(sorted(changed))
        now, filled = session.speech.options, wanted.with_defaults(self.shared.settings.hear)
        options = SpeechOptions(
            language=wanted.language if "language" in changed else now.language,
            vocabulary=filled.vocabulary if "vocabulary" in changed else now.vocabulary,
            hangover=now.hangover,
            translate=filled.translate if "translate" in changed else now.translate,
            replace=filled.replace if "replace" in changed else now.replace,
        )
        session.context.tape.note("update", (options, reason))
        session.speech.use(options)
        session.log.emit("session.updated", session.media.summary() | {"reason": reason})
        return session

    async def search(self, name: str, query: str, limit: int = 10) -> list[Hit]:
        """What was said and shown in a session that fits a query, best first. Raises NotFound."""
        session = await self.open(name)
        session.context.tape.note("search", (query, limit))
        with_pictures = bool(self.shared.settings.see.clip)
        return await session.index.search(query, limit, self._tasks.spawn, with_pictures=with_pictures)

    # --- deletion and retention ---

    async def delete(self, name: str, *, purge: bool = False) -> None:
        """End a session; `purge` erases it at once, else it stays readable for its retention.

        Raises NotFound.
        """
        if name in self.stored.by_id and name not in self.by_id:
            if purge:
                await self.stored.erase(name)
            return
        session = self.find(name)
        session.end("deleted")
        if purge:
            await session.over.wait()  # everything is written then: a closed store cannot be written to
            await self.erase(session)

    async def erase(self, session: Session) -> None:
        """Erase an ended session and all that it has stored."""
        for push in session.pushes.values():
            push.stop()
        await session.questions.close()
        # The store before the name: a new session of that name has the same folder.
        await asyncio.to_thread(session.store.close, purge=True)
        if self.by_id.get(session.id) is session:
            del self.by_id[session.id]

    async def run_janitor(self) -> None:
        """Erase ended sessions that are kept no longer, and close the others' files, until cancelled.

        Those on disk go by time and by bytes, those in memory alone by time and number; the oldest go first.
        """
        keep = self.shared.settings.store
        while True:
            await clock.sleep(_JANITOR_SECONDS)
            ended = [session for session in self.by_id.values() if session.ended_at is not None]
            ended.sort(key=lambda session: session.ended_at or 0.0)
            surplus = sum(not session.options.stored for session in ended) - _MAX_UNSTORED
            for session in ended:
                surplus -= not session.options.stored
                crowded = surplus >= 0 and not session.options.stored
                if crowded or clock.now() - (session.ended_at or 0.0) > keep.retention:
                    await self.erase(session)
                elif not session.store.resting:
                    await asyncio.to_thread(session.store.rest)
            await self.stored.sweep(keep.retention, set(self.by_id))
            await self._erase_over(keep.bytes)

    async def _erase_over(self, most: int) -> None:
        """Erase the oldest ended sessions until the others have at most so many bytes on disk."""
        now, utc = clock.now(), clock.utc()
        by_age: list[tuple[float, str, Path]] = [
            ((utc - found.ended_utc).total_seconds(), name, found.folder)
            for name, found in self.stored.by_id.items()
        ]
        by_age += [
            (now - session.ended_at, name, session.store.folder)
            for name, session in self.by_id.items()
            if session.ended_at is not None and session.store.folder is not None
        ]
        by_age.sort()
        sizes = await asyncio.to_thread(lambda: [size_of(folder) for _, _, folder in by_age])
        for (_, name, _), total in zip(by_age, itertools.accumulate(sizes), strict=True):
            session = self.by_id.get(name)
            if total > most and session is None:
                await self.stored.erase(name)
            elif total > most and session is not None and session.ended_at is not None:
                await self.erase(session)

    async def close_stores(self) -> None:
        """Close the stores of all sessions, at the end of the service."""
        for session in self.by_id.values():
            await session.questions.close()
            await asyncio.to_thread(session.store.close, purge=False)


def _class_names(error: BaseException) -> str:
    """The classes of an error, without its text: that may quote what was said."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_class_names(inner) for inner in error.exceptions)
    return type(error).__name__
