"""The sessions of a service: creation, look-up, change and deletion."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import structlog

from streamsvc.core import clock, metrics
from streamsvc.core.config import LANGUAGES
from streamsvc.core.errors import CapacityError, Conflict, InvalidRequest, NotFound, StreamsvcError
from streamsvc.core.options import SessionOptions, SpeechOptions
from streamsvc.core.tape import LIVE, Tape
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.events.store import FAILURES, Store
from streamsvc.events.stored import StoredSession
from streamsvc.ingest.source import Source, open_source
from streamsvc.service import broadcast_ids
from streamsvc.service.capacity import KINDS, Kind, Room
from streamsvc.service.media_input import State
from streamsvc.service.places import Admission, Places, holds
from streamsvc.service.recording import Recorder, check_recording
from streamsvc.service.session import Session, SharedResources
from streamsvc.service.stored_sessions import Elsewhere, StoredSessions
from streamsvc.timeline.ranking import Hit
from streamsvc.vision.vlm import check_adapter

log = structlog.get_logger()


class Sessions:
    """The sessions of a service.

    Args:
        shared: what all sessions share.
        tasks: where sessions run.
        admission: by load.

    `by_id`: all sessions in memory, ended ones too, by their own ids. `stored`: ended ones that are on disk
    alone. `places`: of live ones. `draining`: admits none any more.

    Wherever a session is asked for, its name does as well as its id: `resolve`.
    """

    def __init__(self, shared: SharedResources, tasks: BackgroundTasks, admission: Admission) -> None:
        self.by_id: dict[str, Session] = {}
        self.stored = StoredSessions(shared.settings.data_dir)
        self.draining = False
        self.shared = shared
        self._elsewhere: Elsewhere | None = None
        self._share: Callable[[Session], None] | None = None
        self._tasks = tasks
        self.places = Places(shared.settings.limits, self.by_id, admission)

    def join(self, elsewhere: Elsewhere) -> None:
        """Read sessions of other nodes too, from now on."""
        self._elsewhere = elsewhere

    def share(self, share: Callable[[Session], None]) -> None:
        """Have each new session shared with other nodes, before it publishes anything."""
        self._share = share

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
        holder: str = "",
    ) -> Session:
        """Create a session: with a source it plays at once, without one it waits for a publisher.

        Args:
            source: a URL or path, or None.
            options: what the session is to do; `lossless` follows from `speed`.
            name: to publish to and to follow; earlier broadcasts of the name stay. None: it has none.
            speed: of a file; None: as fast as possible.
            roots: folders below which files may lie; None: anywhere.
            holder: of the token.

        Raises:
            CapacityError: as many sessions as may be are live, or wait. Conflict: a live one has the name.
            SourceError, Forbidden: the source cannot be opened.
            InvalidRequest: there can be no such name; the model does not know the language, or cannot
                translate; the hangover is out of range; there is no such adapter.
        """
        options = replace(options or SessionOptions(), lossless=speed is None)
        self.check(options)
        if self._elsewhere is not None and name is not None:
            await self._elsewhere.check_name(name)
        self._check_name(name)
        if source is None:
            self._refuse_if_draining()
            self.places.admit_waiting(holder)
            return self.start(self.new_id(name), options, holder=holder)
        with self.place(holder=holder):
            new_id = self.new_id(name)
            opened = await self._open(source, new_id, speed, roots)
            try:
                self._refuse_if_draining()  # draining may have begun while the source was opened
                self._check_name(name)
                session = self.start(new_id, options, holder=holder)
            except BaseException:
                await opened.close()
                raise
            self._tasks.spawn(self._play(session, opened, speed))
            # Let both tasks begin: the tracks are known then, and a cancelled player closes its source.
            await asyncio.sleep(0)
        return session

    def _check_name(self, name: str | None) -> None:
        """Raises Conflict: a live session has the name. InvalidRequest: none can have it."""
        if name is None:
            return
        broadcast_ids.check_name(name)
        session = self.by_id.get(self.resolve(name))
        if session is not None and session.state is not State.ENDED:
            raise Conflict(f"a live session is named {name!r} already", code="name_taken")

    def new_id(self, name: str | None) -> str:
        """An id that no session has or had."""
        while True:
            made = broadcast_ids.new_id(name)
            if made not in self.by_id and not (self.shared.settings.data_dir / made).exists():
                return made

    async def _open(
        self, source: str, session_id: str, speed: float | None, roots: Sequence[Path] | None
    ) -> Source:
        settings = self.shared.settings
        try:
            return await open_source(
                source,
                settings.ingest,
                session=session_id,
                speed=speed,
                roots=roots,
                private_urls=settings.server.private_urls,
            )
        except StreamsvcError as error:
            metrics.sessions_rejected.labels(error.code).inc()
            raise

    def start(self, new_id: str, options: SessionOptions | None = None, *, holder: str = "") -> Session:
        """Start a session without a source, under an id of `new_id`."""
        options = options or SessionOptions()
        keep = self.shared.settings.store
        folder = self.shared.settings.data_dir / new_id if options.stored else None
        store = Store(folder, events=keep.events, frames=keep.frames, sync=keep.sync)
        tape: Tape = LIVE
        if folder is not None and (options.record if options.record is not None else keep.record == "all"):
            try:
                tape = Recorder(folder, self.shared.settings, options, self.shared.roles)
            except CapacityError:
                store.close(purge=True)  # nothing of a session that never began is left
                raise
        session = Session(new_id, self.shared, store, options, tape)
        session.holder = holder
        with contextlib.suppress(*FAILURES):  # then a write of the log fails too, and tells it
            store.put_meta(started_utc=clock.stamp(session.clock.started_utc))
        if self._share is not None:
            self._share(session)
        self.by_id[new_id] = session
        self._tasks.spawn(self._run(session))
        return session

    def adopt(self, session: Session) -> None:
        """Have a session here that another node has begun, and run it unless it has ended."""
        self.by_id[session.id] = session
        if session.state is not State.ENDED:
            self._tasks.spawn(self._run(session))

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

    @contextlib.contextmanager
    def place(
        self, session: Session | None = None, holder: str = "", kind: Kind = "audio_video"
    ) -> Iterator[None]:
        """Hold a place for a publisher that is attached within the block; some sessions have theirs already.

        Args:
            session: None: it is made within the block.
            holder: of the token that a new session is made with.
            kind: what the publisher will send.

        Raises:
            CapacityError: none is free, or the holder has its share.
        """
        if session is not None and holds(session):
            yield
            return
        self._refuse_if_draining()
        with self.places.held(session.holder if session is not None else holder, kind):
            yield

    def room(self) -> Room:
        """How many sessions more get a place now, by kind."""
        if self.draining:
            return Room(dict.fromkeys(KINDS, 0), "draining")
        return self.places.room()

    def _refuse_if_draining(self) -> None:
        if self.draining:
            metrics.sessions_rejected.labels("draining").inc()
            raise CapacityError("this server is going away")

    # --- access ---

    def resolve(self, address: str) -> str:
        """The id of the session at an address, which is an id, or a name.

        A name leads to its live broadcast, else to the newest that had media, else to the newest. An address
        that leads nowhere is returned as it is.
        """
        if broadcast_ids.is_id(address):
            return address
        everything: list[Session | StoredSession] = [*self.by_id.values(), *self.stored.by_id.values()]
        prefix = f"{address}."
        found = [
            one
            for one in everything
            if one.id == address or (one.id.startswith(prefix) and broadcast_ids.name_of(one.id) == address)
        ]
        return max(found, key=_standing).id if found else address

    async def open(self, name: str) -> Session:
        """A live or ended session; one that is on disk alone is read, one of another node followed.

        Raises NotFound.
        """
        if self._elsewhere is not None and (session := await self._elsewhere.open(name)) is not None:
            return session
        session_id = self.resolve(name)
        if session_id not in self.by_id:
            session = await self.stored.load(session_id, self.shared)
            if session is not None:
                self.by_id[session_id] = session
        session = self.find(session_id)
        session.used_at = clock.now()
        return session

    def find(self, name: str) -> Session:
        """A live or ended session that is in memory. Raises NotFound."""
        session = self.by_id.get(self.resolve(name))
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
        stored = self.resolve(name) in self.stored.by_id
        session = None if stored else self.find(name)
        self.check(SessionOptions(wanted))
        if session is None or session.state is State.ENDED:
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
        session.log.put_facts(options=replace(session.options, speech=options).to_json())
        session.log.emit("session.updated", session.media.summary() | {"reason": reason})
        return session

    async def search(self, name: str, query: str, limit: int = 10) -> list[Hit]:
        """What was said and shown in a session that fits a query, best first. Raises NotFound."""
        session = await self.open(name)
        session.context.tape.note("search", (query, limit))
        with_pictures = bool(self.shared.settings.see.clip)
        return await session.index.search(query, limit, self._tasks.spawn, with_pictures=with_pictures)

    # --- deletion ---

    async def delete(self, name: str, *, purge: bool = False) -> str:
        """End a session; `purge` erases it at once, else it stays readable for its retention.

        What has come in is still understood, within `limits.delete_seconds`; then the session ends, at the
        latest CLOSE_SECONDS of `media_input` later, whatever its models and its source wait for.

        Returns its id. Other broadcasts of its name stay. Raises NotFound.
        """
        if self._elsewhere is not None and (found := await self._elsewhere.delete(name, purge=purge)):
            return found
        session_id = self.resolve(name)
        if session_id in self.stored.by_id:
            if purge:
                await self.stored.erase(session_id)
        else:
            session = self.find(session_id)
            session.end("deleted", within=self.shared.settings.limits.delete_seconds)
            if purge:
                await session.over.wait()  # everything is written then: a closed store cannot be written to
                await self.erase(session)
        if purge and self._elsewhere is not None:
            await self._elsewhere.forget(session_id)
        return session_id

    async def erase(self, session: Session) -> None:
        """Erase an ended session and all that it has stored."""
        for push in session.pushes.values():
            push.stop()
        await session.questions.close()
        await asyncio.to_thread(session.store.close, purge=True)
        if self.by_id.get(session.id) is session:
            del self.by_id[session.id]

    async def close_stores(self) -> None:
        """Close the stores of all sessions, at the end of the service."""
        for session in self.by_id.values():
            await session.questions.close()
            await asyncio.to_thread(session.store.close, purge=False)


def _standing(session: Session | StoredSession) -> tuple[int, datetime]:
    """What is preferred among the broadcasts of one name: a live one, one that had media, a newer one."""
    if isinstance(session, StoredSession):
        return int(bool(session.tracks)), session.started_utc
    live = session.state is not State.ENDED
    return 2 if live else int(session.media.state is not State.CREATED), session.clock.started_utc


def _class_names(error: BaseException) -> str:
    """The classes of an error, without its text: that may quote what was said."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_class_names(inner) for inner in error.exceptions)
    return type(error).__name__
