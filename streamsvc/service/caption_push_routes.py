"""Routes of a session's caption pushes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from streamsvc.core.types import Grants
from streamsvc.events.caption_push import Push, Target, parse_target
from streamsvc.service.started_by import StartedBy


class NewPush(BaseModel):
    """Body of POST /v1/sessions/{id}/pushes."""

    model_config = ConfigDict(extra="forbid")

    to: Literal["youtube", "zoom", "ome"]
    url: SecretStr = Field(
        max_length=4096,
        description="YouTube: the captions ingestion URL; Zoom: the caption API token, a URL; "
        "OvenMediaEngine: .../streams/STREAM:sendSubtitles, or :sendEvent, of its API",
    )
    lang: str = Field("en-US", pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8}){0,3}$")
    token: SecretStr = Field(
        SecretStr(""), max_length=512, description="OvenMediaEngine: the access token of its API"
    )
    label: str = Field(
        "", max_length=100, description="OvenMediaEngine: of its subtitle track; else the language"
    )


class _Pushes(Protocol):
    """What the routes need of `Pushes`. All raise NotFound for an unknown session or push."""

    async def add(self, session: str, target: Target) -> Push:
        """Start a push.

        Raises:
            Conflict: the session has ended, or has a push to this target. CapacityError: too many pushes.
            Forbidden, Unprocessable: the host may not be reached, or is not known.
        """

    async def all(self, session: str) -> Sequence[Push]:
        """The pushes of a session, stopped ones too."""

    async def remove(self, session: str, push: str) -> Push:
        """Stop and delete a push."""


def router(pushes: _Pushes, grants_of: Callable[[Request], Grants], started: StartedBy) -> APIRouter:
    """The routes.

    Args:
        pushes: of the service.
        grants_of: a request's grants.
        started: ends a push with the token that it was made with.
    """
    routes = APIRouter(prefix="/v1/sessions/{session_id}/pushes", tags=["pushes"])

    @routes.post("", status_code=201)
    async def add(session_id: str, body: NewPush, request: Request) -> dict[str, Any]:
        """Push this session's closed captions to a target, from now on. It ends with its token."""
        url, token = body.url.get_secret_value(), body.token.get_secret_value()
        target = parse_target(body.to, url, body.lang, token, body.label)
        push = await pushes.add(session_id, target)
        started.add(grants_of(request), lambda: not push.over, push.stop)
        return push.describe()

    @routes.get("")
    async def show(session_id: str) -> list[dict[str, Any]]:
        """The pushes of a session: state, counts and last error, never the URL."""
        return [push.describe() for push in await pushes.all(session_id)]

    @routes.delete("/{push_id}")
    async def remove(session_id: str, push_id: str) -> dict[str, Any]:
        """Stop a push and forget it; what waits is not posted."""
        return (await pushes.remove(session_id, push_id)).describe()

    return routes
