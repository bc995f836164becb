"""The events of a session, as Server-Sent Events and over a WebSocket (the event socket).

A subscriber resumes with `epoch` and `after`, or with `Last-Event-ID: EPOCH.SEQ`: it gets the durable events
that it missed, then new ones. A subscriber that reads too slowly is disconnected and can resume.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response, WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from streamsvc.core.errors import InvalidRequest, RateLimited, StreamsvcError
from streamsvc.events import schema
from streamsvc.events.subscription import Subscription
from streamsvc.service import client_messages, rights
from streamsvc.service.audience import audience_of
from streamsvc.service.auth import SUBPROTOCOL
from streamsvc.service.client_messages import Subscriber
from streamsvc.service.closing_stream import ClosingStream
from streamsvc.service.compat.websocket import receive
from streamsvc.service.question_routes import SSE_HEADERS
from streamsvc.service.rate_limit import MessageLimit
from streamsvc.service.service import Service
from streamsvc.service.session import Session

SUBPROTOCOL_PLAIN = "streamsvc.v1"
_KEEPALIVE = 15.0  # seconds between comments on an idle SSE stream
_PATTERNS = 32  # type patterns of one subscriber; security limit
_CLIENT_LENGTH = 64  # characters of a client id; security limit
_MOST_SEQ = 2**62  # SQLite holds no more


@dataclass(frozen=True, slots=True)
class EventQuery:
    """The query of a subscriber.

    types: patterns such as "caption.*"; empty: all.
    epoch, after: the last event seen; after None: new events only.
    client: the name by which the subscriber finds its own answers again.
    """

    types: tuple[str, ...] = ()
    epoch: str | None = None
    after: int | None = None
    client: str = ""


def router(service: Service) -> APIRouter:
    """The routes."""
    routes = APIRouter(prefix="/v1/sessions", tags=["sessions"])

    @routes.get("/{session_id}/events")
    async def follow(
        request: Request,
        session_id: str,
        types: str = "",
        epoch: str | None = None,
        after: int | None = None,
        client: str = "",
    ) -> Response:
        """The session's events as Server-Sent Events; with a WebSocket upgrade, the event socket."""
        session = await service.sessions.open(session_id)
        last_id = request.headers.get("last-event-id", "")
        if last_id and after is None:
            last_epoch, _, seq = last_id.partition(".")
            if seq.isascii() and seq.isdecimal():
                epoch, after = last_epoch, int(seq[:20])
        query = EventQuery(_patterns(types), epoch, _bounded(after), client[:_CLIENT_LENGTH])
        grants = service.auth.of(request.scope)
        subscription = session.log.subscribe(
            query.types, audience_of(grants, query.client), share=rights.share_of(grants)
        )
        return ClosingStream(
            _event_stream(session, subscription, query),
            lambda: session.log.unsubscribe(subscription),
            "text/event-stream",
            SSE_HEADERS,
        )

    @routes.websocket("/{session_id}/events")
    async def events(
        socket: WebSocket,
        session_id: str,
        types: str = "",
        epoch: str | None = None,
        after: int | None = None,
        client: str = "",
    ) -> None:
        query = EventQuery(_patterns(types), epoch, _bounded(after), client[:_CLIENT_LENGTH])
        await serve_socket(service, socket, session_id, query)

    return routes


def _bounded(after: int | None) -> int | None:
    return None if after is None else max(0, min(after, _MOST_SEQ))


def _patterns(types: str) -> tuple[str, ...]:
    return tuple(pattern.strip() for pattern in types.split(",") if pattern.strip())[:_PATTERNS]


async def _missed_events(
    session: Session, subscription: Subscription, query: EventQuery
) -> list[tuple[int | None, str]]:
    """The durable events after `query.after`, as (seq, JSON text).

    A gap event comes first if some are no longer stored.
    """
    if query.after is None:
        return []
    entries, gap = await session.log.since(query.after, query.epoch, session.log.seq)
    replayed = subscription.replay(entries)
    if entries:
        subscription.skip_to(entries[-1].seq or 0)
    elif query.epoch == session.log.epoch:  # of another node, which has shown more than this one has heard of
        subscription.skip_to(query.after)
    return ([(None, gap.text + "}")] if gap is not None else []) + replayed


async def _event_stream(
    session: Session, subscription: Subscription, query: EventQuery
) -> AsyncGenerator[str, None]:
    batch: list[tuple[int | None, str]] | None = await _missed_events(session, subscription, query)
    while batch is not None:
        for seq, text in batch:
            event_id = f"id: {session.log.epoch}.{seq}\n" if seq is not None else ""
            yield f"{event_id}event: {json.loads(text)['type']}\ndata: {text}\n\n"
        try:
            async with asyncio.timeout(_KEEPALIVE):
                batch = await subscription.next()
        except TimeoutError:
            batch = []
            yield ": keepalive\n\n"
        except StreamsvcError:
            return  # too slow: an EventSource reconnects by itself, with Last-Event-ID


# --- the event socket ---------------------------------------------------------------------------------------


async def serve_socket(service: Service, socket: WebSocket, session_id: str, query: EventQuery) -> None:
    """Serve one event socket until either side closes it.

    A refused client gets an error event, then a close code.
    """
    offered = tuple(socket.scope.get("subprotocols", ()))
    chosen = next(
        (name for name in offered if name.startswith(SUBPROTOCOL) or name == SUBPROTOCOL_PLAIN), None
    )
    subscriber: Subscriber | None = None
    refusal: StreamsvcError | None = None
    try:
        subscriber = await _subscribe(service, socket, session_id, query)
    except StreamsvcError as error:
        refusal = error
    try:
        await socket.accept(chosen)
        if subscriber is None:
            assert refusal is not None
            await refuse(socket, refusal)
            return
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(_send_events(socket, subscriber, query))
            receiving = group.create_task(_receive_messages(service, socket, subscriber))
            sending.add_done_callback(lambda _: receiving.cancel())
            receiving.add_done_callback(lambda _: sending.cancel())
    except* (WebSocketDisconnect, RuntimeError, OSError):
        pass  # the client disconnected, perhaps during the handshake
    finally:
        if subscriber is not None:
            subscriber.session.log.unsubscribe(subscriber.subscription)


async def _subscribe(service: Service, socket: WebSocket, session_id: str, query: EventQuery) -> Subscriber:
    grants = rights.check(service.auth, socket)
    session = await service.sessions.open(session_id)
    audience = audience_of(grants, query.client)
    subscription = session.log.subscribe(query.types, audience, share=rights.share_of(grants))
    return Subscriber(session, subscription, grants)


async def refuse(socket: WebSocket, error: StreamsvcError) -> None:
    """Tell an accepted client why it is refused, as an event and by the close code."""
    with contextlib.suppress(RuntimeError, OSError):
        session = str(socket.path_params.get("session_id", ""))
        await socket.send_text(json.dumps(schema.refusal(error.body(), session)))
        await socket.close(error.close_code, error.code)


async def _send_events(socket: WebSocket, subscriber: Subscriber, query: EventQuery) -> None:
    session, subscription = subscriber.session, subscriber.subscription
    try:
        for _, text in await _missed_events(session, subscription, query):
            await socket.send_text(text)
        while (batch := await subscription.next()) is not None:
            for _, text in batch:
                await socket.send_text(text)  # SlowReaders limits its time
        await socket.close(1000, "session_closed")
    except StreamsvcError as error:
        await socket.close(error.close_code, error.code)


async def _receive_messages(service: Service, socket: WebSocket, subscriber: Subscriber) -> None:
    """Handle the client's messages. A bad message only causes an error event; too many close the socket."""
    limit = MessageLimit(service.settings.limits.messages_per_second)
    while socket.client_state is WebSocketState.CONNECTED:
        data = await receive(socket)
        try:
            limit.take()
        except RateLimited as error:
            await refuse(socket, error)
            return
        try:
            if isinstance(data, bytes):
                raise InvalidRequest("A message must be text: one JSON object", code="bad_json")
            await client_messages.handle(service, subscriber, data)
        except StreamsvcError as error:
            subscriber.reply("error", error.body())
