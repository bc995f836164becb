"""A service whose workers never start, with stand-in models and stand-in WebRTC peers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

import tests.builders.service
from streamsvc.core import config, metrics
from streamsvc.service import app
from streamsvc.service.media_input import State
from streamsvc.service.service import Service
from streamsvc.service.session import Session
from tests.builders.session import OPUS, Models, Sender


@contextlib.asynccontextmanager
async def serving(
    folder: Path, models: Models | None = None, /, **groups: dict[str, Any]
) -> AsyncIterator[Service]:
    """A service whose workers never start, with stand-in models."""
    server = {"data_dir": folder, **groups.get("server", {})}
    async with Service(config.load(None, **(groups | {"server": server})), at_once=()) as running:
        running.use_roles((models or Models()).roles())
        yield running


@contextlib.asynccontextmanager
async def at_the_door(
    folder: Path, **groups: dict[str, Any]
) -> AsyncIterator[tuple[Service, str, httpx.AsyncClient]]:
    """The HTTP server of `streamsvc serve` before such a service: it, "127.0.0.1:PORT" and an HTTP client."""
    with mock.patch.object(app, "Service", functools.partial(Service, at_once=())):
        async with tests.builders.service.serving(folder, **groups) as (service, place, client):
            service.use_roles(Models().roles())
            yield service, place, client


class Peer(Sender):
    """A WebRTC peer as the WHIP door sees it; `tell` is what it says of itself."""

    sdp, etag = "v=0", '"tag"'

    def __init__(self, tell: Any) -> None:
        super().__init__(OPUS)
        self.tell = tell

    async def add_candidates(self, fragment: str) -> None:
        """Taken."""


def rejected(reason: str) -> float:
    return float(metrics.sessions_rejected.labels(reason)._value.get())


def kept(folder: Path) -> set[str]:
    """Names of the sessions that have files."""
    return {path.name for path in folder.glob("[!.]*")} if folder.exists() else set()


def at(session: Session, state: State) -> bool:
    return session.state is state
