"""The running service: its workers, its sessions, and who gets in.

One object for one process; `server` puts doors in front of it, the command line uses it without any.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

import streamsvc
from streamsvc.core import clock, metrics
from streamsvc.core.config import LANGUAGES, Settings
from streamsvc.core.errors import CapacityError, Conflict, InvalidRequest, NotFound, StreamsvcError
from streamsvc.events.caption_push import Push, Target
from streamsvc.events.log import Subscription
from streamsvc.events.store import Store, clear, sweep
from streamsvc.ingest import peer as webrtc
from streamsvc.ingest.aiortc_hooks import check_hooks
from streamsvc.ingest.decode import count_dropped
from streamsvc.ingest.source import open_source
from streamsvc.ingest.whip import Publication
from streamsvc.service.auth import Auth
from streamsvc.service.engine_table import ENGINES, NICENESS
from streamsvc.service.load_controller import LoadController
from streamsvc.service.session import Roles, Session, State
from streamsvc.speech.pipeline import hangover_of
from streamsvc.timeline.ranking import Hit
from streamsvc.vision import keyframes
from streamsvc.vision.vlm import check_adapter
from streamsvc.workers.look_cache import LookCache
from streamsvc.workers.supervisor import Worker

log = structlog.get_logger()
_JANITOR = 5.0  # seconds between looks for sessions whose retention has passed
_DECODERS = 2  # threads that decode media, all sessions together
_ENDED = 200  # ended sessions kept readable at once; the oldest go first


class Service:
    """The running service: `async with Service(settings) as service`.

    Args:
        settings: validated.
        at_once: roles whose workers start now; the others start at their first call.
    """

    def __init__(self, settings: Settings, at_once: Sequence[str] = ("hear", "see")) -> None:
        self.settings = settings
        self.auth = Auth(settings.server)
        self.sessions: dict[str, Session] = {}
        self.publications: dict[str, Publication] = {}
        self.pushes: dict[
            str, dict[str, Push]
        ] = {}  # session -> id -> push; stopped ones too, until they are deleted
        self.draining, self._at_once = False, tuple(at_once)
        self._opening = 0  # sessions that are being opened and count against the limit already
        self._media = ThreadPoolExecutor(_DECODERS, thread_name_prefix="media")
        self._pictures = keyframes.Budget(
            settings.sample.budget_all, settings.sample.burst, lambda: count_dropped("budget_all")
        )
        self._tasks: set[asyncio.Task[None]] = set()
        options = {
            "models": str(settings.models.dir / "models"),
            "hear": settings.hear.model_dump(),
            "see": settings.see.model_dump(),
            "think": settings.think.model_dump() | {"remote": settings.remote.options()},
            "embed": settings.embed.model_dump(),
        }
        self.workers = {
            name: Worker(
                name, engines, {**options, **options[name]}, nice=NICENESS[name], lazy=name not in at_once
            )  # type: ignore[dict-item]
            for name, engines in ENGINES[settings.models.profile].items()
        }
        roles = {role: worker.role(role) for worker in self.workers.values() for role in worker.roles}
        sight = roles["think"] if settings.models.profile != "embedded" else None
        self.roles = Roles(**{**roles, "see": LookCache(roles["see"])}, sight=sight)
        self.load_controller = LoadController(
            self._realtime_sessions, lambda name: self.workers[name].ready, settings.budget
        )
        metrics.build_info.info({"version": streamsvc.__version__, "engine": settings.models.profile})

    async def __aenter__(self) -> Self:
        check_hooks()  # a changed aiortc is told at start, not at the first publisher
        removed = await asyncio.to_thread(sweep, self.settings.data_dir, self.settings.store.retention)
        if removed:
            log.info("old sessions removed", count=removed)
        for worker in self.workers.values():
            self._spawn(worker.run())
        self._spawn(self._janitor())
        self._spawn(self.load_controller.run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in self.sessions.values():
            await asyncio.to_thread(session.store.close, purge=False)
        self._media.shutdown(wait=True)

    async def ready(self) -> None:
        """Wait until the models that every session needs are loaded.

        Raises:
            StreamsvcError: they cannot be (ModelMissing, WorkerError).
        """
        await asyncio.gather(*(self.workers[role].wait_ready() for role in self._at_once))

    async def drain(self, reason: str = "shutdown", seconds: float = 5.0) -> None:
        """Admit nobody more, tell all subscribers, and let the live sessions end."""
        self.draining = True
        live = [session for session in self.sessions.values() if session.state is not State.ENDED]
        for session in live:
            session.log.emit("session.going_away", {"reason": reason, "time_left_ms": seconds * 1000})
            session.end(reason)
        pushes = [each for of_one in self.pushes.values() for each in of_one.values()]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for session in live:
                    await session.over.wait()
                while any(not each.over for each in pushes):
                    await clock.sleep(0.05)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- sessions ---

    async def create(
        self,
        source: str | None = None,
        *,
        speed: float | None = 1.0,
        language: str | None = None,
        vocabulary: Sequence[str] = (),
        translate: bool | None = None,
        replace: Mapping[str, str] | None = None,
        hangover: float | None = None,
        adapter: str | None = None,
        no_store: bool = False,
        roots: Sequence[Path] | None = (),
        sees: bool = True,
    ) -> Session:
        """Open a session: with a source it plays at once, without one it waits for a publisher.

        Args:
            source: a URL or path, or None.
            speed: of a file; None: as fast as possible.
            language: of the speech.
            vocabulary: names and terms to expect.
            translate: captions in English too; None: as the settings say.
            replace: phrases of captions that are written otherwise; on top of those of the settings.
            hangover: seconds of silence that end an utterance, within `ear.HANGOVER`; None: as the settings say.
            adapter: of the model that sees (profile gpu); None: the model as it is.
            no_store: nothing is written to the disk.
            roots: folders below which files may lie; None: anywhere.
            sees: False: pictures are not looked at.

        Raises:
            CapacityError: as many sessions as may be are live. SourceError, Forbidden: the source cannot be had.
            InvalidRequest: the model does not know the language, or cannot translate; the hangover cannot be; there is no such adapter.
        """
        self._check_language(language)
        hangover_of(hangover, 0.0)
        check_adapter(adapter, self.settings)
        if translate and self.settings.hear.model.endswith(".en"):
            told = f"translation needs a multilingual model, such as whisper-base: {self.settings.hear.model} knows English alone"
            raise InvalidRequest(told, code="cannot_translate")
        self._admit()
        name = f"0.{secrets.token_urlsafe(12)}"
        opened = None
        if source is not None:
            self._opening += 1
            try:
                opened = await open_source(
                    source,
                    self.settings.ingest,
                    session=name,
                    speed=speed,
                    roots=roots,
                    private_urls=self.settings.server.private_urls,
                )
            except StreamsvcError as error:
                metrics.sessions_rejected.labels(error.code).inc()
                raise
            finally:
                self._opening -= 1
        try:
            self._refuse_if_draining()  # it may have begun while the source was opened
            heard: dict[str, Any] = {"language": language, "vocabulary": vocabulary, "hangover": hangover}
            heard |= {"translate": translate, "replace": replace, "adapter": adapter}
            session = self._session(name, lossless=speed is None, no_store=no_store, sees=sees, **heard)
        except BaseException:
            if opened is not None:
                await opened.close()
            raise
        if opened is not None:
            self._spawn(self._play(session, opened, speed))
            await asyncio.sleep(
                0
            )  # both tasks have begun: the tracks are known, and a cancelled player closes its source
        return session

    def _refuse_if_draining(self) -> None:
        if self.draining:
            metrics.sessions_rejected.labels("draining").inc()
            raise CapacityError("this server is going away")

    def _admit(self) -> None:
        self._refuse_if_draining()
        limit = self.settings.limits.sessions
        live = sum(session.state is not State.ENDED for session in self.sessions.values()) + self._opening
        if live >= limit:
            metrics.sessions_rejected.labels("capacity").inc()
            raise CapacityError(f"{live} of {limit} sessions are live; try again later")
        self.load_controller.admit()

    def _realtime_sessions(self) -> list[tuple[Session, float]]:
        return [
            (session, session.zero)
            for session in self.sessions.values()
            if session.state is State.LIVE and not session.lossless
        ]

    def _session(
        self,
        name: str,
        *,
        no_store: bool = False,
        translate: bool | None = None,
        replace: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Session:
        keep, hear = self.settings.store, self.settings.hear
        options["translate"] = hear.translate if translate is None else translate
        options["replace"] = {**hear.replace, **(replace or {})}
        folder = self.settings.data_dir / name
        clear(folder)
        store = Store(None if no_store else folder, events=keep.events, frames=keep.frames)
        sign = functools.partial(self.auth.sign, seconds=keep.retention + 3600)
        session = Session(
            name, self.settings, self.roles, store, self._media, sign, pictures=self._pictures, **options
        )
        self.sessions[name] = session
        self._spawn(self._live(session))
        return session

    async def _live(self, session: Session) -> None:
        """Run a session; its failure is its own, and is told without what was said or shown."""
        try:
            await session.run()
        except Exception as error:
            log.error("session failed", session=session.id, error=_names(error), exc_info=True)
        finally:  # a publisher that lost its connection does not come back to end its publication
            for resource in [
                publication.resource
                for publication in self.publications.values()
                if publication.session == session.id
            ]:
                del self.publications[resource]
        log.info("session ended", session=session.id)

    async def _play(self, session: Session, source: Any, speed: float | None) -> None:
        try:
            await session.play(source, speed)
        except Exception as error:
            log.error("source failed", session=session.id, error=_names(error), exc_info=True)
            session.end("source_failed")

    def _check_language(self, code: str | None) -> None:
        """Raises InvalidRequest: the model does not know the language."""
        model = self.settings.hear.model
        if code is not None and (code not in LANGUAGES or (model.endswith(".en") and code != "en")):
            raise InvalidRequest(
                f'{code[:16]!r} is no language that {model} knows; they are named as in "en"',
                code="unknown_language",
            )

    def update(self, name: str, language: str | None) -> None:
        """Fix the language of a session from now on; None: it is detected again.

        Raises:
            NotFound: no such session. Conflict: it has ended. InvalidRequest: the model does not know the language.
        """
        session = self.find(name)
        self._check_language(language)
        if session.state is State.ENDED:
            raise Conflict("this session has ended", code="session_ended")
        session.ear.language = language
        session.log.emit("session.updated", session.told() | {"reason": "language"})

    def find(self, name: str) -> Session:
        """A live or ended session.

        Raises:
            NotFound: there is none of that id.
        """
        session = self.sessions.get(name)
        if session is None:
            raise NotFound(f"there is no session {name!r}", code="no_session")
        return session

    async def search(self, name: str, query: str, limit: int = 10) -> list[Hit]:
        """What was said and shown in a session that fits a query, best first. Raises NotFound: no such session."""
        session = self.find(name)
        pictures = session.timeline.pictures() if self.settings.see.clip else ()
        return await session.index.search(session.timeline.lines(), query, limit, self._spawn, pictures)

    async def delete(self, name: str, *, purge: bool = False) -> None:
        """End a session; `purge` erases it at once, else it stays readable for its retention."""
        session = self.find(name)
        session.end("deleted")
        if purge:
            await session.over.wait()  # not only ended, but written: what is closed cannot be written to
            await self._forget(session, purge=True)

    async def _forget(self, session: Session, *, purge: bool) -> None:
        for each in self.pushes.pop(session.id, {}).values():
            each.stop()
        await asyncio.to_thread(
            session.store.close, purge=purge
        )  # first: a new session of that name has the same folder
        if self.sessions.get(session.id) is session:
            del self.sessions[session.id]

    async def _discard(self, session: Session) -> None:
        """Leave nothing of a session that never began."""
        await session.over.wait()
        await self._forget(session, purge=True)

    async def _janitor(self) -> None:
        while True:
            await clock.sleep(_JANITOR)
            ended = [session for session in self.sessions.values() if session.ended_at is not None]
            surplus = len(ended) - _ENDED
            for number, session in enumerate(ended):
                if number < surplus or clock.now() - (session.ended_at or 0) > self.settings.store.retention:
                    await self._forget(session, purge=True)

    # --- captions pushed outward (the door is in push.py) ---

    async def push(self, name: str, where: Target) -> Push:
        """Push a session's closed captions to a target, from now on.

        Raises:
            NotFound: no such session. Conflict: it has ended, or pushes there already.
            CapacityError: it has as many pushes as it may have. Forbidden, Unprocessable: the host may not be reached, or is not known.
        """
        session = self.find(name)
        of = where, self.settings.server.private_urls, session.started_utc, session.zero, session.position
        made = Push(*of, lambda error: session.log.emit("error", error.body()))
        await made.check()
        if session.state is State.ENDED or name not in self.sessions:
            raise Conflict("this session has ended", code="session_ended")
        of_one = self.pushes.setdefault(name, {})
        if any(each.where == where and not each.over for each in of_one.values()):
            raise Conflict("this session pushes there already", code="already_pushed")
        if len(of_one) >= self.settings.limits.pushes:
            raise CapacityError(
                f"this session has {len(of_one)} pushes already; delete one", code="too_many_pushes"
            )
        captions = session.log.subscribe(["caption.final"], made.id)
        of_one[made.id] = made
        self._spawn(self._push(session, made, captions))
        return made

    async def _push(self, session: Session, made: Push, captions: Subscription) -> None:
        try:
            await made.run(captions.next)
        finally:
            session.log.unsubscribe(captions)

    def pushed(self, name: str) -> list[Push]:
        """The pushes of a session, stopped ones too. Raises NotFound: no such session."""
        self.find(name)
        return list(self.pushes.get(name, {}).values())

    def unpush(self, name: str, number: str) -> Push:
        """Stop a push and forget it. Raises NotFound: no such session or push."""
        self.find(name)
        made = self.pushes.get(name, {}).pop(number, None)
        if made is None:
            raise NotFound("there is no such push", code="no_push")
        made.stop()
        return made

    # --- WHIP (the door is ingest/whip.py) ---

    async def publish(self, name: str | None, offer: str) -> Publication:
        """Answer an offer and publish its media to a session, which is made where there is none of that id.

        Raises:
            Conflict: somebody publishes there already. CapacityError, InvalidRequest, Unprocessable: no answer is possible.
        """
        session = self.sessions.get(name) if name is not None else None
        if (
            session is not None and session.state is State.ENDED
        ):  # OBS comes back under the same address: its log starts anew
            await self._forget(session, purge=True)
            session = self.sessions.get(session.id)
        made = session is None
        if session is None:
            if name is not None and not _is_id(name):
                raise InvalidRequest(
                    "a session id has 1 to 64 letters, digits, '.', '_' or '-'", code="bad_session_id"
                )
            self._admit()
            session = self._session(name or f"0.{secrets.token_urlsafe(12)}")
        elif session.publisher is not None:
            raise Conflict("somebody publishes to this session already", code="already_publishing")
        told: list[webrtc.Peer] = []
        resource = secrets.token_urlsafe(18)

        def on_state(state: str, why: str) -> None:
            if state == "closed":
                self.publications.pop(resource, None)
                if why in ("handshake", "failed"):
                    metrics.ice_failures.labels(why).inc()
            if told:
                session.publisher_state(told[0], state, why)
                if state == "closed":
                    self._spawn(told[0].close())

        try:
            peer = await webrtc.answer(
                offer,
                self.settings.ingest,
                self.settings.limits,
                session=session.id,
                zero=session.zero,
                tap=session.tap,
                on_state=on_state,
            )
            told.append(peer)
            try:
                session.attach(peer)
            except BaseException:
                await peer.close()
                raise
        except BaseException:
            if made and session.state is State.CREATED:  # nobody else has begun to publish to it meanwhile
                session.end("never_published")
                await asyncio.shield(self._spawn(self._discard(session)))
            raise
        publication = Publication(session.id, resource, peer)
        self.publications[resource] = publication
        return publication

    async def unpublish(self, resource: str) -> None:
        """End a publication; its session waits for the next one.

        Raises:
            NotFound: there is none.
        """
        publication = self.publications.pop(resource, None)
        if publication is None:
            raise NotFound("there is no such publication", code="no_publication")
        session = self.sessions.get(publication.session)
        if session is not None:
            session.publisher_state(publication.peer, "closed", "unpublished")
        await publication.peer.close()


def _is_id(name: str) -> bool:
    return (
        0 < len(name) <= 64
        and all(char.isascii() and (char.isalnum() or char in "._-") for char in name)
        and name.strip(".") != ""
    )


def _names(error: BaseException) -> str:
    """The classes of an error, without its text: that may quote what was said."""
    if isinstance(error, BaseExceptionGroup):
        return ", ".join(_names(inner) for inner in error.exceptions)
    return type(error).__name__
