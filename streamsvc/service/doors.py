"""The doors that outside programs serve, as the settings say: open while the service listens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from streamsvc.service import rtmp_hooks, srt_door
from streamsvc.service.service import Service


@contextlib.asynccontextmanager
async def opened(service: Service) -> AsyncIterator[None]:
    """Keep the doors of a service open within the block. Raises ConfigError: one cannot be opened."""
    async with contextlib.AsyncExitStack() as stack:
        if service.settings.ingest.rtmp_listen:
            await stack.enter_async_context(rtmp_hooks.opened(service))
        if service.settings.ingest.srt_listen:
            await stack.enter_async_context(srt_door.opened(service.settings, service.stream_publishers))
        yield
