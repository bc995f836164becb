"""Spans on their way to a collector: a bounded queue, and one task that sends them in batches.

OpenTelemetry itself is imported where an endpoint is set alone (`service.otlp`, extra "otel").
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

import structlog

from streamsvc.core import metrics
from streamsvc.core.config import Tracing
from streamsvc.core.errors import ConfigError
from streamsvc.core.queues import Ring
from streamsvc.core.spans import Span

log = structlog.get_logger()
BATCH = 512  # spans of one request
GATHER_SECONDS = 1.0  # between two requests, unless a whole batch waits
CLOSE_SECONDS = 2.0  # for the last spans, at the end of the service


class Exporter(Protocol):
    """Sends spans; both calls block, and run on a thread."""

    def export(self, spans: Sequence[Span]) -> bool:
        """Send a batch. Returns whether it was taken; never raises."""
        ...

    def close(self) -> None:
        """Send nothing more; a running `export` ends soon."""
        ...


class SpanExport:
    """Takes the spans of all sessions (`core.spans.SpanSink`) and sends them.

    A full queue drops the oldest span; each one that is not taken by the collector is counted
    (streamsvc_spans_total). A failed batch is not sent again: the exporter has retried it in its time.

    Args:
        settings: of tracing.
        exporter: what sends them.
    """

    def __init__(self, settings: Tracing, exporter: Exporter) -> None:
        self.sample = settings.sample
        self._exporter = exporter
        self._queue = Ring[Span](settings.spans, lambda span: _count("queue", 1))
        self._closing = asyncio.Event()
        self._over = False  # what still waits is not sent any more
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def put(self, span: Span) -> None:
        """Take one span."""
        if self._queue.closed:
            _count("ended", 1)
        else:
            self._queue.put(span)

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Send what waits, at most for CLOSE_SECONDS, and end."""
        self._queue.close()
        self._closing.set()
        task = self._task
        if task is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await asyncio.shield(task)
        self._over = True
        await asyncio.to_thread(self._exporter.close)
        if task is not None:
            await task

    async def _run(self) -> None:
        async for batch in self._queue.batches(BATCH):
            if self._over:
                _count("ended", len(batch))
                continue
            taken = await asyncio.to_thread(self._exporter.export, batch)
            _count("exported" if taken else "refused", len(batch))
            if self._failing == taken:
                self._failing = not taken
                log.warning(
                    "the collector takes no spans" if self._failing else "the collector takes spans again"
                )
            if len(self._queue) < BATCH:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_SECONDS):
                        await self._closing.wait()


def span_export(settings: Tracing) -> SpanExport | None:
    """The export that the settings ask for; None: no traces.

    Raises:
        ConfigError: the packages that it needs are not installed.
    """
    if not settings.endpoint:
        return None
    try:
        from streamsvc.service.otlp import OtlpExporter
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"tracing.endpoint needs the package {error.name}: pip install 'streamsvc[otel]'"
        ) from None
    return SpanExport(settings, OtlpExporter(settings))


def _count(result: str, number: int) -> None:
    metrics.spans.labels(result).inc(number)
