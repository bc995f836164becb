"""Routes of a session's watches: add, list and remove."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from fastapi import APIRouter, params
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from streamsvc.answers.watch_conditions import MAX_LENGTH
from streamsvc.answers.watches import COOLDOWN, MAX_COOLDOWN, Watches


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


def router(
    find: Callable[[str], Awaitable[Watched]], publish: params.Depends, subscribe: params.Depends
) -> APIRouter:
    """The routes.

    Args:
        find: a session by its id; raises NotFound.
        publish: checks the permission to add and remove watches.
        subscribe: checks the permission to list them.
    """
    routes = APIRouter(prefix="/v1/sessions/{session_id}/watches", tags=["watches"])

    @routes.post("", status_code=201, dependencies=[publish])
    async def add(session_id: str, body: NewWatch) -> dict[str, Any]:
        """Add a watch. Alerts are published as `alert.fired` and POSTed to the webhook, if given.

        The webhook's secret is in this response only.
        """
        watches = (await find(session_id)).watches
        if body.webhook is None:
            return await watches.add(body.when, body.cooldown_s)
        return await watches.add_with_webhook(body.when, body.cooldown_s, body.webhook.get_secret_value())

    @routes.get("", dependencies=[subscribe])
    async def show(session_id: str) -> list[dict[str, Any]]:
        """The watches of a session. Webhooks are shown as counts, never with their URL."""
        return (await find(session_id)).watches.all()

    @routes.delete("/{watch_id}", dependencies=[publish])
    async def remove(session_id: str, watch_id: str) -> dict[str, Any]:
        """Remove a watch."""
        return (await find(session_id)).watches.remove(watch_id)

    return routes
