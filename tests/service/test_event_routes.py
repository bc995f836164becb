"""Subscribers of the event socket that disconnect during the handshake."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from fastapi import WebSocket, WebSocketDisconnect

from streamsvc.service.event_routes import EventQuery, serve_socket
from tests.builders.service import open_session, serving, socket_of, until


class DisconnectedSocket:
    """A socket whose client disconnects before it is accepted."""

    scope: dict[str, Any] = {"subprotocols": ()}  # noqa: RUF012

    def __init__(self, place: str) -> None:
        self.headers = {"host": place}

    async def accept(self, _: str | None) -> None:
        raise WebSocketDisconnect(1006)


async def test_a_subscriber_that_disconnects_at_the_handshake_takes_no_place(tmp_path: Path) -> None:
    async with serving(tmp_path, limits={"subscribers": 2}) as (service, place, client):
        session = await open_session(client, no_store=True)
        for _ in range(3):
            socket = cast(WebSocket, DisconnectedSocket(place))
            await serve_socket(service, socket, session, EventQuery())
        async with socket_of(place, session) as events:
            await until(events, "session.created")
