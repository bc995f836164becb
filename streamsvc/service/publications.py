"""WebRTC publications: an SDP offer is answered by a peer that publishes to a session (WHIP, RFC 9725)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from streamsvc.core import metrics
from streamsvc.core.errors import Conflict, NotFound
from streamsvc.core.tasks import BackgroundTasks
from streamsvc.ingest import peer as webrtc
from streamsvc.ingest.ice_servers import IceServers
from streamsvc.ingest.whip import Publication
from streamsvc.service import broadcast_ids
from streamsvc.service.capacity import Kind
from streamsvc.service.media_input import MediaSource, State
from streamsvc.service.publish_places import PublishPlaces
from streamsvc.service.session import Session
from streamsvc.service.sessions import Sessions

_VIDEO = re.compile(r"^m=video [1-9]", re.MULTILINE)  # a media section that is not refused
TAKEN_OVER = "published from elsewhere"


@dataclass(frozen=True, slots=True)
class _Pulled:
    """A publisher by stream key. `stop`: ends it, for a reason."""

    source: MediaSource
    holder: str
    stop: Callable[[str], None]


def kind_of(offer: str) -> Kind:
    """What a publisher sends, as its offer says."""
    return "audio_video" if _VIDEO.search(offer) else "audio"


class Publications:
    """The WebRTC publications of a service, and what publishers of all doors have in common.

    Args:
        sessions: that are published to.
        tasks: for closing peers in the background.

    `by_resource`: publications by the unguessable name in their URL.
    """

    def __init__(self, sessions: Sessions, tasks: BackgroundTasks) -> None:
        self.by_resource: dict[str, Publication] = {}
        self._owners: dict[str, Session] = {}  # by resource
        self._watched: set[Session] = set()  # sessions whose end removes their publications
        self._joined: set[Session] = set()  # sessions reserved for a publisher that is admitted
        self._pulled: dict[Session, _Pulled] = {}  # the last publisher by stream key
        self._sessions = sessions
        self._tasks = tasks
        self._cluster: PublishPlaces | None = None
        self._ice_servers: IceServers | None = None  # made from the settings of the first session

    def join(self, cluster: PublishPlaces) -> None:
        """Publish to sessions of a cluster from now on, each at the node that it lives on."""
        self._cluster = cluster

    async def publish(self, name: str | None, offer: str, holder: str = "") -> Publication:
        """Answer an offer and publish its media to a session.

        Args:
            name: of the session; where none of that name is live, a new broadcast begins. None: no name.
            offer: SDP, untrusted.
            holder: of the token.

        Raises:
            Conflict: the session has a publisher already, or has ended. CapacityError: no place is free; no
                peer is made then. InvalidRequest, Unprocessable: no answer is possible.
        """
        async with self.session_for(name, holder, kind_of(offer)) as session:
            resource = secrets.token_urlsafe(18)
            peer = await self._answer(session, resource, offer, holder)
        publication = Publication(session.id, resource, peer)
        self.by_resource[resource] = publication
        if session not in self._watched:
            self._watched.add(session)
            self._tasks.spawn(self._remove_at_end(session))
        self._owners[resource] = session
        return publication

    @contextlib.asynccontextmanager
    async def session_for(
        self, name: str | None, holder: str = "", kind: Kind = "audio_video", *, reserved: bool = False
    ) -> AsyncIterator[Session]:
        """The session that a publisher of any door is attached to within the block; it has a place meanwhile.

        Where none of that name is live, a new broadcast begins; of one that never began nothing is left.
        `reserved`: no other publisher is admitted meanwhile.

        Raises:
            Conflict, CapacityError, InvalidRequest: see `publish`. LivesElsewhere: on another node.
        """
        if self._cluster is not None and name is not None:
            place = functools.partial(self._sessions.place, None, holder, kind)
            await self._cluster.prepare(name, place)
        live = self._live(name, holder) if name is not None else None
        with self._sessions.place(live, holder, kind):
            session = live or self._begin(name, holder)
            if reserved:
                self._joined.add(session)
            try:
                yield session
            except BaseException:
                # Unless another publisher has come meanwhile, nothing of a session that never began is left.
                if live is None and session.state is State.CREATED:
                    session.end("never_published")
                    await asyncio.shield(self._tasks.spawn(self._erase(session)))
                raise
            finally:
                if reserved:
                    self._joined.discard(session)

    def _live(self, name: str, holder: str) -> Session | None:
        """The live session at an address; None: a new broadcast may begin there."""
        session = self._sessions.by_id.get(self._sessions.resolve(name))
        if session is not None and not session.media.closed:
            taken = session.media.publisher is not None and self._silent(session, holder) is None
            if session in self._joined or taken:
                raise Conflict("this session has a publisher already", code="already_publishing")
            return session
        if broadcast_ids.is_id(name):
            door = f"/whip/{broadcast_ids.name_of(name) or ''}".rstrip("/")
            raise Conflict(f"this broadcast is not live; {door} begins another", code="session_ended")
        broadcast_ids.check_name(name)
        return None

    def _silent(self, session: Session, holder: str) -> Callable[[], None] | None:
        """What cuts the publisher of a session off whose media have stopped; None: it stays.

        It may come from elsewhere: one by WebRTC once it is stalled, which its connection tells soon; one by
        stream key, whose connection may be open for long after its end, once it is silent, for its holder.
        """
        publisher: object = session.media.publisher
        pulled = self._pulled.get(session)
        if pulled is not None and pulled.source is publisher:
            if holder != pulled.holder:
                return None
            silent = session.media.silent_seconds > session.settings.ingest.takeover_seconds
            return functools.partial(self._cut_pulled, session, pulled) if silent else None
        if session.state is not State.STALLED:
            return None
        known = next((name for name, known in self.by_resource.items() if known.peer is publisher), None)
        return functools.partial(self.cut, known, TAKEN_OVER) if known is not None else None

    def attach(self, session: Session, source: MediaSource, holder: str, stop: Callable[[str], None]) -> None:
        """Attach the opened source of a publisher by stream key.

        Args:
            session: see `session_for`.
            source: it is not closed here.
            holder: of the token.
            stop: ends it for a reason, where its holder publishes from elsewhere.

        Raises:
            Conflict: the session has a publisher that sends, or has ended.
        """
        self._make_room(session, holder)
        session.media.attach(source)
        if session not in self._pulled:
            self._tasks.spawn(self._forget_at_end(session))
        self._pulled[session] = _Pulled(source, holder, stop)

    def _make_room(self, session: Session, holder: str) -> None:
        """Cut off the publisher of a session where its media have stopped."""
        if (cut := self._silent(session, holder)) is not None:
            cut()

    def _cut_pulled(self, session: Session, pulled: _Pulled) -> None:
        session.media.publisher_state(pulled.source, "closed", TAKEN_OVER)
        pulled.stop("taken_over")

    async def _forget_at_end(self, session: Session) -> None:
        await session.over.wait()
        del self._pulled[session]

    def _begin(self, name: str | None, holder: str) -> Session:
        """A session that waits for its publisher as long as for one that comes back."""
        self._sessions.places.admit_waiting(holder, publishes=True)
        session = self._sessions.start(self._sessions.new_id(name), holder=holder)
        session.media.unused_seconds = session.settings.ingest.resume_seconds
        return session

    async def _answer(self, session: Session, resource: str, offer: str, holder: str) -> webrtc.Peer:
        """Answer an offer with a peer that is attached to the session."""
        peers: list[webrtc.Peer] = []  # the peer, once there is one

        def on_state(state: str, why: str) -> None:
            if state == "closed":
                self._remove(resource)
                if why in ("handshake", "failed"):
                    metrics.ice_failures.labels(why).inc()
            if peers:
                session.media.publisher_state(peers[0], state, why)
                if state == "closed":
                    self._tasks.spawn(peers[0].close())

        settings = session.settings
        sink = webrtc.FrameSink(session.id, session.clock.zero, session.media.tap, on_state)
        if self._ice_servers is None:
            self._ice_servers = webrtc.configured(settings.ingest, settings.limits)
        peer = await webrtc.answer(offer, settings.ingest, settings.limits, sink, self._ice_servers)
        peers.append(peer)
        try:
            self._make_room(session, holder)
            session.media.attach(peer)
        except BaseException:
            await peer.close()
            raise
        return peer

    async def _erase(self, session: Session) -> None:
        await session.over.wait()
        await self._sessions.erase(session)

    async def _remove_at_end(self, session: Session) -> None:
        """Remove the publications of a session at its end: a publisher that lost its connection does not."""
        await session.over.wait()
        self._watched.discard(session)
        for resource in [resource for resource, owner in self._owners.items() if owner is session]:
            self._remove(resource)

    def _remove(self, resource: str) -> Publication | None:
        self._owners.pop(resource, None)
        return self.by_resource.pop(resource, None)

    async def unpublish(self, resource: str) -> None:
        """End a publication; its session waits for the next one. Raises NotFound."""
        publication = self._detach(resource, "unpublished")
        if publication is None:
            raise NotFound("there is no such publication", code="no_publication")
        await publication.peer.close()

    def cut(self, resource: str, why: str) -> None:
        """End a publication that may not go on, if it does."""
        publication = self._detach(resource, why)
        if publication is not None:
            self._tasks.spawn(publication.peer.close())

    def _detach(self, resource: str, why: str) -> Publication | None:
        publication = self._remove(resource)
        session = self._sessions.by_id.get(publication.session) if publication is not None else None
        if publication is not None and session is not None:
            session.media.publisher_state(publication.peer, "closed", why)
        return publication
