"""What a collector receives: OTLP that decodes, with the ids and times given; no word of the stream."""

from __future__ import annotations

import asyncio
import gzip
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import streamsvc
from streamsvc.core.config import Tracing
from streamsvc.core.spans import Span
from streamsvc.core.types import Answer, Delta
from streamsvc.core.units import Reply
from streamsvc.service import span_export
from streamsvc.service.otlp import OtlpExporter
from streamsvc.service.service import Service
from tests.builders import units
from tests.builders.fake_service import serving
from tests.fakes.http_receiver import Listener, listening

CANARY = "xylophone-canary"
ROOT = Span("utterance", 0xA << 64, 0xB, 0, 1_000, 9_000, {"streamsvc.session": "s", "streamsvc.parts": 1})
CHILD = Span("words", 0xA << 64, 0xC, 0xB, 2_000, 8_000, {"streamsvc.blank": False}, failed=True)


def received(collector: Listener) -> list[tuple[dict[str, Any], trace_pb2.Span]]:
    """All spans that a collector got, each with its resource; every field of the requests is known."""
    found = []
    for target, headers, body in collector.got:
        assert target == "/v1/traces"
        assert headers["content-type"] == "application/x-protobuf"
        assert headers["content-encoding"] == "gzip"
        plain = gzip.decompress(body)
        request = ExportTraceServiceRequest()
        assert request.ParseFromString(plain) == len(plain)
        assert request.SerializeToString() == plain, "there is a field that OTLP does not know"
        for resource in request.resource_spans:
            about = {item.key: item.value.string_value for item in resource.resource.attributes}
            found += [(about, span) for scope in resource.scope_spans for span in scope.spans]
    return found


def test_spans_keep_their_ids_times_and_attributes() -> None:
    memory = InMemorySpanExporter()
    exporter = OtlpExporter(Tracing(), memory)
    assert exporter.export([CHILD, ROOT])
    child, root = memory.get_finished_spans()
    assert (root.name, root.start_time, root.end_time) == ("utterance", 1_000, 9_000)
    assert dict(root.attributes or {}) == {"streamsvc.session": "s", "streamsvc.parts": 1}
    assert root.parent is None
    assert (root.context.trace_id, root.context.span_id) == (0xA << 64, 0xB)
    assert child.parent is not None
    assert (child.parent.trace_id, child.parent.span_id) == (0xA << 64, 0xB)
    assert (child.context.trace_id, child.context.span_id) == (0xA << 64, 0xC)
    assert (child.status.status_code, root.status.status_code) == (StatusCode.ERROR, StatusCode.UNSET)
    assert exporter.export([ROOT])
    assert len(memory.get_finished_spans()) == 3, "a batch is sent once"
    exporter.close()


async def test_a_collector_gets_otlp_that_decodes_strictly() -> None:
    async with listening() as collector:
        exporter = OtlpExporter(Tracing(endpoint=collector.url, service="captions", timeout=60))
        assert await asyncio.to_thread(exporter.export, [CHILD, ROOT])
        await asyncio.to_thread(exporter.close)
    (about, child), (_, root) = received(collector)
    assert about["service.name"] == "captions"
    assert about["service.version"] == streamsvc.__version__
    assert int.from_bytes(root.span_id, "big") == 0xB
    assert child.parent_span_id == root.span_id
    assert child.trace_id == root.trace_id
    assert not root.parent_span_id
    assert (child.start_time_unix_nano, child.end_time_unix_nano) == (2_000, 8_000)


async def test_a_batch_that_is_refused_is_told_and_one_that_fails_for_a_moment_is_sent_again() -> None:
    async with listening(400, 503) as collector:
        exporter = OtlpExporter(Tracing(endpoint=collector.url, timeout=60))
        assert not await asyncio.to_thread(exporter.export, [ROOT])
        assert await asyncio.to_thread(exporter.export, [ROOT])
        assert len(collector.got) == 3
        await asyncio.to_thread(exporter.close)
        assert not await asyncio.to_thread(exporter.export, [ROOT])
    assert len(collector.got) == 3


async def test_no_collector_is_a_batch_refused() -> None:
    exporter = OtlpExporter(Tracing(endpoint="http://127.0.0.1:9", timeout=0.2))
    assert not await asyncio.to_thread(exporter.export, [ROOT])
    exporter.close()


async def test_what_a_service_sends_holds_no_speech_screen_text_question_token_or_address(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(span_export, "CLOSE_SECONDS", 60.0)  # on a loaded machine too
    key = f"{CANARY}-key"
    async with listening() as collector:
        tracing = {"endpoint": collector.url, "service": "captions", "timeout": 60}
        async with serving(tmp_path, server={"api_key": key}, tracing=tracing) as service:
            await _tell(service)
        assert len(collector.got) >= 1
    found = received(collector)
    assert {span.name for _, span in found} >= {
        "utterance",
        "keyframe",
        "question",
        "caption.final",
        "answer.done",
    }
    assert CANARY not in repr(found)
    allowed = {"session", "event_id", "level", "parts", "words", "reason", "boxes", "blank", "lines", "by",
               "outcome", "evidence", "error"}  # fmt: skip
    named = {item.key for _, span in found for item in span.attributes}
    assert {name.removeprefix("streamsvc.") for name in named} <= allowed
    assert all(
        not (span.events or span.links or span.trace_state or span.status.message) for _, span in found
    )


async def _tell(service: Service) -> None:
    """A session of which all is secret but its id."""
    session = await service.sessions.create()
    for unit in (
        units.cue(CANARY, 1.0),
        units.keyframe(1.0),
        units.sight(1.0, CANARY),
        units.screen(1.0, CANARY),
        Reply(CANARY, 1.0, 0.0, Delta(CANARY, CANARY), None, first=True, question=CANARY, asker=CANARY),
        Reply(CANARY, 1.0, 0.0, Answer(CANARY, CANARY, True, values=(CANARY,)), None, question=CANARY),
    ):
        session.dispatcher.dispatch(unit)
    session.end("test_over")
    await session.over.wait()
