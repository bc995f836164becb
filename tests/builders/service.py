"""A real service with its workers, on a free loopback port, in the test's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
from websockets.asyncio.client import ClientConnection, connect

from streamsvc.__main__ import _listen as listening
from streamsvc.answers import router, watch_router
from streamsvc.core import config
from streamsvc.events import schema
from streamsvc.service import app
from streamsvc.service.service import Service

VALIDATOR = jsonschema.Draft202012Validator(schema.document())


@contextlib.asynccontextmanager
async def serving(
    folder: Path, **groups: dict[str, Any]
) -> AsyncIterator[tuple[Service, str, httpx.AsyncClient]]:
    """Run the service; yields it, "127.0.0.1:PORT" and an HTTP client."""
    settings = config.load(
        None, **(groups | {"server": {"data_dir": folder / "data", **groups.get("server", {})}})
    )
    listener = listening("127.0.0.1", 0)
    place = f"127.0.0.1:{listener.getsockname()[1]}"
    with contextlib.closing(listener):
        async with (
            app.listening(settings, listener) as (service, _),
            httpx.AsyncClient(base_url=f"http://{place}", timeout=60) as client,
        ):
            yield service, place, client


async def warm(service: Service) -> None:
    """Wait until all models are loaded, as they are a little after the start."""
    await service.ready()
    assert service.roles.embed is not None
    assert await router.prepare(service.roles.embed)
    assert await watch_router.prepare(service.roles.embed, folder=service.settings.models.dir)
    await service.roles.embed.call("rank", {"query": "a", "texts": ["a"]}, deadline_in_s=30)


async def open_session(client: httpx.AsyncClient, **body: Any) -> str:
    """Create a session; returns its id."""
    answer = await client.post("/v1/sessions", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def error_of(answer: httpx.Response) -> tuple[int, str]:
    """Status and error code of a refused request."""
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["code"]


def socket_of(place: str, session: str, query: str = "?after=0", **options: Any) -> connect:
    """The event socket of a session."""
    return connect(f"ws://{place}/v1/sessions/{session}/events{query}", **options)


async def until(events: ClientConnection, kind: str, seconds: float = 60.0) -> list[dict[str, Any]]:
    """All events up to the first of type `kind`, each validated against the schema."""
    got: list[dict[str, Any]] = []
    async with asyncio.timeout(seconds):
        while not got or got[-1]["type"] != kind:
            event = json.loads(await events.recv())
            VALIDATOR.validate(event)
            got.append(event)
    return got
