"""Spans leave in batches; what does not leave is counted, and nobody waits for a collector."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from streamsvc.core import metrics
from streamsvc.core.config import Tracing
from streamsvc.core.errors import ConfigError
from streamsvc.core.spans import Span
from streamsvc.service import span_export as module
from streamsvc.service.span_export import SpanExport, span_export
from tests.fakes.span_exporter import ScriptedExporter

RESULTS = ("exported", "queue", "refused", "ended")


def span(number: int) -> Span:
    return Span("words", 1, number + 1, 0, 0, 1, {})


def counted() -> dict[str, float]:
    return {result: float(metrics.spans.labels(result)._value.get()) for result in RESULTS}


@pytest.fixture
def since() -> Iterator[Any]:
    """How many spans were counted, by result, since the test began."""
    before = counted()
    yield lambda: {name: now - before[name] for name, now in counted().items() if now != before[name]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.01)


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_spans_are_sent_in_their_order_and_the_last_ones_at_the_end(since: Any) -> None:
    exporter = ScriptedExporter()
    export = SpanExport(Tracing(), exporter)
    export.start()
    for number in range(module.BATCH + 3):
        export.put(span(number))
    await until(lambda: len(exporter.batches) == 2)
    export.put(span(module.BATCH + 3))
    await export.close()
    sent = [one.id - 1 for batch in exporter.batches for one in batch]
    assert sent == list(range(module.BATCH + 4))
    assert max(map(len, exporter.batches)) == module.BATCH
    assert since() == {"exported": module.BATCH + 4}
    assert exporter.closed == 1
    export.put(span(0))
    assert since()["ended"] == 1


async def test_while_a_collector_hangs_the_oldest_spans_are_dropped_and_counted(since: Any) -> None:
    exporter = ScriptedExporter()
    exporter.hold.clear()
    export = SpanExport(Tracing(spans=64), exporter)
    export.start()
    export.put(span(0))
    await until(exporter.entered.is_set)
    for number in range(1, 101):
        export.put(span(number))
    assert since() == {"queue": 36}
    exporter.hold.set()
    await export.close()
    assert [one.id - 1 for one in exporter.batches[1]] == list(range(37, 101))
    assert since() == {"queue": 36, "exported": 65}


async def test_a_collector_that_refuses_is_told_once_and_again_when_it_takes_spans(since: Any) -> None:
    exporter = ScriptedExporter()
    exporter.takes = False
    export = SpanExport(Tracing(), exporter)
    export.start()
    with capture_logs() as lines:
        for number in range(3):
            export.put(span(number))
            await until(lambda number=number: since().get("refused") == number + 1)
        exporter.takes = True
        export.put(span(3))
        await until(lambda: since().get("exported") == 1)
        await export.close()
    assert [line["event"] for line in lines] == [
        "the collector takes no spans",
        "the collector takes spans again",
    ]


async def test_the_end_of_the_service_waits_a_little_for_a_collector_that_hangs(
    since: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    exporter = ScriptedExporter()
    exporter.hold.clear()
    export = SpanExport(Tracing(), exporter)
    export.start()
    export.put(span(0))
    await until(exporter.entered.is_set)
    export.put(span(1))
    await asyncio.wait_for(export.close(), 20)  # the exporter's own `close` ends the call
    assert since() == {"exported": 1, "ended": 1}


async def test_an_export_that_never_began_can_be_closed() -> None:
    exporter = ScriptedExporter()
    await SpanExport(Tracing(), exporter).close()
    assert exporter.closed == 1


def test_without_an_endpoint_there_is_no_export_and_nothing_of_opentelemetry_is_loaded() -> None:
    assert span_export(Tracing()) is None
    program = (
        "import sys; from streamsvc.service import app, span_export as it; from streamsvc.core import config;"
        "assert it.span_export(config.Tracing()) is None;"
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk', 'opentelemetry.ex'))])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")


def test_an_endpoint_without_the_packages_is_told_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "streamsvc.service.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigError, match=r"tracing\.endpoint needs .*streamsvc\[otel\]"):
        span_export(Tracing(endpoint="http://127.0.0.1:9"))
