"""The SRT door: publishers that call `ingest.srt_listen`, many on one port, each by its stream id."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator

import structlog

from streamsvc.core.config import Settings
from streamsvc.ingest import srt_stream_id
from streamsvc.ingest.door_process import DoorProcess
from streamsvc.ingest.source import Source, open_pushed
from streamsvc.ingest.srt_program import Connected, SrtProgram
from streamsvc.service import broadcast_ids
from streamsvc.service.stream_keys import StreamKey, StreamPublishers

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def opened(settings: Settings, publishers: StreamPublishers) -> AsyncIterator[int]:
    """Keep the SRT door open within the block; gives the port that it listens on.

    Args:
        settings: with `ingest.srt_listen`.
        publishers: of the service.

    Raises:
        ConfigError: libsrt is missing, or the address cannot be used.
    """
    with contextlib.closing(SrtProgram(settings.ingest, _Callers(settings, publishers))) as program:
        async with DoorProcess(program):
            log.info("SRT publishers are taken", port=program.port, latency_ms=settings.ingest.srt_latency_ms)
            yield program.port


class _Callers:
    """Implements `srt_program.Callers`."""

    def __init__(self, settings: Settings, publishers: StreamPublishers) -> None:
        self._settings = settings
        self._publishers = publishers

    async def admit(self, stream_id: str, host: str, connected: Connected) -> None:
        """Admit a caller as a publisher of the session that its stream id names."""
        asked = srt_stream_id.parse(stream_id)
        broadcast_ids.check_name(asked.name)
        grants = self._publishers.check(StreamKey(asked.name, asked.token), host)

        async def opened(session: str) -> Source:
            media: socket.socket = await connected()
            return await open_pushed(media, "the SRT stream", self._settings.ingest, session)

        await self._publishers.publish("srt", asked.name, grants, host, opened)
