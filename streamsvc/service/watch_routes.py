"""Routes of a session's watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from fastapi import APIRouter, params
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from streamsvc.answers.watch_conditions import MAX_LENGTH
from streamsvc.answers.watches import COOLDOWN, Watches


class NewWatch(BaseModel):
    """Body of POST /v1/sessions/{id}/watches."""

    model_config = ConfigDict(extra="forbid")

    when: str = Field(
        min_length=1,
        max_length=MAX_LENGTH,
        description='plain words: "when a bus appears", "someone says budget"',
    )
    cooldown_s: float = Field(COOLDOWN, ge=0, le=86_400)
    webhook: SecretStr | None = Field(None, max_length=2048, description="where alerts are POSTed, signed")


class Watched(Protocol):
    """What the door needs of a session."""

    @property
    def watches(self) -> Watches: ...  # noqa: D102


def router(find: Callable[[str], Watched], publish: params.Depends, subscribe: params.Depends) -> APIRouter:
    """The routes of the door.

    Args:
        find: a session of an id; raises NotFound.
        publish: checks the right to make and remove watches.
        subscribe: checks the right to read them.
    """
    routes = APIRouter(prefix="/v1/sessions/{session_id}/watches", tags=["watches"])

    @routes.post("", status_code=201, dependencies=[publish])
    async def add(session_id: str, body: NewWatch) -> dict[str, Any]:
        """Watch for something, in plain words; `alert.fired` tells of it, and a webhook, if one is given. The secret is shown this once."""
        alerts = find(session_id).watches
        if body.webhook is None:
            return alerts.add(body.when, body.cooldown_s)
        return await alerts.add_with_webhook(body.when, body.cooldown_s, body.webhook.get_secret_value())

    @routes.get("", dependencies=[subscribe])
    async def show(session_id: str) -> list[dict[str, Any]]:
        """The watches of a session; of webhooks counts alone, never the address."""
        return find(session_id).watches.all()

    @routes.delete("/{watch_id}", dependencies=[publish])
    async def remove(session_id: str, watch_id: str) -> dict[str, Any]:
        """Forget a watch."""
        return find(session_id).watches.remove(watch_id)

    return routes
