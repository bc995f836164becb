"""Publishers that come by a stream key: NAME, or NAME?token=... where the server has a key.

For doors whose protocol knows no header (RTMP, SRT), and for media servers that tell of a publisher (hooks).
A key leads to a session as a WHIP address does: the same grants, places, limits and resume window. What is
published is pulled as a source (ingest/source.py), but the session outlives it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import structlog

from streamsvc.core.config import Limits
from streamsvc.core.errors import StreamsvcError, Unauthorized
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.core.types import Grants
from streamsvc.ingest.source import SourceSink
from streamsvc.service import rights
from streamsvc.service.auth import LOCAL, OWNER, Auth, root_of
from streamsvc.service.broadcast_ids import check_name
from streamsvc.service.media_input import MediaInput, MediaSource
from streamsvc.service.publications import Publications
from streamsvc.service.rate_limit import RateLimiter
from streamsvc.service.started_by import StartedBy

log = structlog.get_logger()
KEY_LENGTH = 4096  # characters; security limit
T = TypeVar("T")
Opener = Callable[[str], Coroutine[Any, Any, MediaSource]]  # session id -> the source, opened


@dataclass(frozen=True, slots=True)
class StreamKey:
    """The session that a publisher names, and its token; "": it shows none."""

    name: str
    token: str = field(default="", repr=False)


def parse(key: str) -> StreamKey:
    """Read NAME or NAME?token=TOKEN, as publishers write it; other fields of the query are left out.

    Raises:
        InvalidRequest: "bad_session_id": there is no such name.
    """
    name, _, query = key[:KEY_LENGTH].partition("?")
    check_name(name)
    return StreamKey(name, token_of(query))


def token_of(query: str) -> str:
    """The token in a query, with or without its question mark; "": there is none."""
    return dict(parse_qsl(query[:KEY_LENGTH].lstrip("?"))).get("token", "")


class _Stopped(Exception):
    """A publication was told to end."""


class StreamPublication:
    """One publisher: from its admission to its end.

    Attributes:
        session: id of the session.
        over: set at its end, whatever ended it.
        why: code of what ended it; "": it goes on.
    """

    def __init__(self, session: str) -> None:
        self.session = session
        self.over = asyncio.Event()
        self.why = ""
        self._stopping = asyncio.Event()

    def stop(self, why: str) -> None:
        """End it; the session waits for the next publisher. Idempotent."""
        self.why = self.why or why
        self._stopping.set()

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled once `stop` is called. Raises _Stopped then."""
        working, stopping = asyncio.ensure_future(work), asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise _Stopped
            return working.result()
        finally:
            for task in (working, stopping):
                task.cancel()
            await asyncio.gather(working, stopping, return_exceptions=True)

    def end(self, why: str) -> None:
        """Tell that it is over."""
        self.why = self.why or why
        self.over.set()


class StreamPublishers:
    """Admits publishers by their stream keys, and runs what they send.

    Args:
        auth: checks tokens.
        publications: of the service, with its sessions.
        started: ends what a token has started when the token ends.
        tasks: where publications run.
        limits: `failures_per_minute`: wrong keys of one address; `requests_per_minute`: publications.
    """

    def __init__(
        self,
        auth: Auth,
        publications: Publications,
        started: StartedBy,
        tasks: BackgroundTasks,
        limits: Limits,
    ) -> None:
        self._auth = auth
        self._publications = publications
        self._started = started
        self._tasks = tasks
        self._failures = RateLimiter(limits.failures_per_minute)
        self._limiter = RateLimiter(limits.requests_per_minute)

    def check(self, key: StreamKey, client: str, permission: str = "publish") -> Grants:
        """The grants of a key, which hold a permission for its session.

        Args:
            key: what the publisher shows.
            client: its address; wrong keys of one are counted.
            permission: "publish", or "subscribe" for somebody who plays it.

        Raises:
            Unauthorized, Forbidden, RateLimited.
        """
        headers = {"authorization": f"Bearer {key.token}"} if key.token else {}
        try:
            grants = self._auth.grants(headers)
        except Unauthorized:
            self._failures.take(client)
            raise
        rights.require(grants, permission)
        rights.require_session(grants, key.name)
        return grants

    async def publish(
        self, door: str, name: str, grants: Grants, client: str, opened: Opener
    ) -> StreamPublication:
        """Admit a publisher, then open and run its source in the background.

        Returns as soon as it is admitted: a place is held, and its session has begun. What fails after that
        ends the publication.

        Args:
            door: "rtmp", "srt" or the kind of a hook; for logs.
            name: of the session.
            grants: as `check` returned them.
            client: address of the publisher; what tokens do not count is counted by it.
            opened: opens its source.

        Raises:
            Conflict: the session has a publisher already. CapacityError, RateLimited, InvalidRequest.
        """
        by_owner = grants.holder in (OWNER, LOCAL)
        self._limiter.take(f"host:{client}" if by_owner else f"token:{root_of(grants.holder)}")
        admitted: asyncio.Future[StreamPublication] = asyncio.get_running_loop().create_future()
        running = self._tasks.spawn(self._run(door, name, grants.holder, opened, admitted))
        publication = await asyncio.shield(admitted)
        self._started.add(grants, lambda: not running.done(), lambda why: publication.stop(why.code))
        return publication

    async def _run(
        self,
        door: str,
        name: str,
        holder: str,
        opened: Opener,
        admitted: asyncio.Future[StreamPublication],
    ) -> None:
        """Hold a place until the source is open, then publish it to its end."""
        publication: StreamPublication | None = None
        source: MediaSource | None = None
        why = "failed"
        try:
            async with self._publications.session_for(name, holder, reserved=True) as session:
                publication = StreamPublication(session.id)
                admitted.set_result(publication)
                source = await publication.unless_stopped(opened(session.id))
                self._publications.attach(session, source, holder, publication.stop)
            try:
                await publication.unless_stopped(source.run(_sink(session.media, source)))
                why = "publisher_left"
            finally:
                session.media.publisher_state(source, "closed", publication.why or "publisher_left")
        except _Stopped:
            pass
        except StreamsvcError as error:
            if not admitted.done():
                admitted.set_exception(error)  # the door tells it
                return
            why = error.code
            log.warning("publisher lost", door=door, session=publication and publication.session, code=why)
        except Exception as error:
            log.error("publisher failed", door=door, error=type(error).__name__, exc_info=True)
            if not admitted.done():
                admitted.set_exception(StreamsvcError("Internal error. The server log records its class."))
        finally:
            if not admitted.done():
                admitted.cancel()
            if publication is not None:
                publication.end(why)
            if source is not None:
                await source.close()


def _sink(media: MediaInput, source: MediaSource) -> SourceSink:
    """Where a publisher's frames go: at its end it leaves at once, not when the last of them is decoded."""
    sink = media.sink_of(source)

    async def taken() -> None:
        media.publisher_state(source, "closed", "publisher_left")
        await sink.taken()

    return replace(sink, taken=taken)
