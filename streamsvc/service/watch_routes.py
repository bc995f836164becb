"""Routes of a session's watches: add, list and remove."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from streamsvc.answers.watch_conditions import MAX_LENGTH
from streamsvc.answers.watches import COOLDOWN, MAX_COOLDOWN, Watches
from streamsvc.core.errors import StreamsvcError, Unauthorized
from streamsvc.core.types import Grants
from streamsvc.events.log import EventLog
from streamsvc.service.auth import Auth
from streamsvc.service.rights import require
from streamsvc.service.started_by import StartedBy
from streamsvc.service.token_lifetime import signed_text


class NewWatch(BaseModel):
    """Body of POST /v1/sessions/{id}/watches."""

    model_config = ConfigDict(extra="forbid")

    when: str = Field(
        min_length=1,
        max_length=MAX_LENGTH,
        description='the condition in plain English: "when a bus appears", "someone says budget"',
    )
    cooldown_s: float = Field(COOLDOWN, ge=0, le=MAX_COOLDOWN)
    webhook: SecretStr | None = Field(
        None, max_length=2048, description="URL to which alerts are POSTed, signed"
    )


class Watched(Protocol):
    """The part of a session that the routes use."""

    @property
    def watches(self) -> Watches: ...  # noqa: D102

    @property
    def log(self) -> EventLog: ...  # noqa: D102


def router(find: Callable[[str], Awaitable[Watched]], auth: Auth, started: StartedBy) -> APIRouter:
    """The routes.

    Args:
        find: a session by its id; raises NotFound.
        auth: of the service.
        started: ends a webhook with the token that it was added with.
    """

    def grants_of(request: Request) -> Grants:
        return auth.of(request.scope)

    routes = APIRouter(prefix="/v1/sessions/{session_id}/watches", tags=["watches"])

    @routes.post("", status_code=201)
    async def add(session_id: str, body: NewWatch, request: Request) -> dict[str, Any]:
        """Add a watch. Alerts are published as `alert.fired` and POSTed to the webhook, if given.

        The webhook's secret is in this response only. A webhook takes the permission to publish: what is said
        leaves the service by it. It ends with the token that it was added with; the watch stays.
        """
        grants = grants_of(request)
        if body.webhook is not None:
            require(grants, "publish")
        session = await find(session_id)
        watches = session.watches
        if body.webhook is None:
            return await watches.add(body.when, body.cooldown_s)
        url = body.webhook.get_secret_value()
        signed = functools.partial(signed_text, auth, grants)
        watch = await watches.add_with_webhook(body.when, body.cooldown_s, url, signed)

        def stop(why: Unauthorized) -> None:
            watches.stop_webhook(watch["id"])
            told = f"the webhook of watch {watch['id']} has been stopped: {why.message} ({why.code})"
            session.log.emit("error", StreamsvcError(told, code="webhook_stopped").body())

        started.add(grants, lambda: watches.has_webhook(watch["id"]), stop)
        return watch

    @routes.get("")
    async def show(session_id: str) -> list[dict[str, Any]]:
        """The watches of a session. Webhooks are shown as counts, never with their URL."""
        return (await find(session_id)).watches.all()

    @routes.delete("/{watch_id}")
    async def remove(session_id: str, watch_id: str, request: Request) -> dict[str, Any]:
        """Remove a watch; one with a webhook takes the permission to publish."""
        return remove_watch((await find(session_id)).watches, watch_id, grants_of(request))

    return routes


def remove_watch(watches: Watches, watch_id: str, grants: Grants) -> dict[str, Any]:
    """Remove a watch, for either door.

    Raises:
        NotFound. Forbidden: it has a webhook, which `grants` could not have added.
    """
    if any(watch["id"] == watch_id and "webhook" in watch for watch in watches.all()):
        require(grants, "publish")
    return watches.remove(watch_id)
