"""Spans as OpenTelemetry's, sent to a collector by OTLP over HTTP. Extra "otel"; imported on demand.

Endpoint and batch are ours; headers (a collector's key) and certificates come from OpenTelemetry's own
variables (OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_RESOURCE_ATTRIBUTES).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags

import streamsvc
from streamsvc.core.config import Tracing
from streamsvc.core.spans import Span
from streamsvc.core.tracing_config import PATH


class OtlpExporter:
    """Sends batches of spans (`span_export.Exporter`). Used by one thread at a time.

    Args:
        settings: of tracing.
        exporter: what sends them; None: by OTLP to the endpoint.
    """

    def __init__(self, settings: Tracing, exporter: SpanExporter | None = None) -> None:
        # What it says of a failed batch, we say once ("the collector takes no spans").
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        self._exporter = exporter or OTLPSpanExporter(
            f"{settings.endpoint}{PATH}", timeout=settings.timeout, compression=Compression.Gzip
        )
        self._ids = _GivenIds()
        self._made = _Made()
        about = {
            "service.name": settings.service,
            "service.version": streamsvc.__version__,
            "service.instance.id": secrets.token_hex(8),
        }
        # A provider of our own: another of this process would send its spans elsewhere.
        self._provider = TracerProvider(
            ALWAYS_ON, Resource.create(about), shutdown_on_exit=False, id_generator=self._ids
        )
        self._provider.add_span_processor(SimpleSpanProcessor(self._made))
        self._tracer = self._provider.get_tracer("streamsvc", streamsvc.__version__)

    def export(self, spans: Sequence[Span]) -> bool:
        """See Exporter."""
        for span in spans:
            self._make(span)
        batch, self._made.spans = self._made.spans, []
        return self._exporter.export(batch) is SpanExportResult.SUCCESS

    def close(self) -> None:
        """See Exporter."""
        self._exporter.shutdown()
        self._provider.shutdown()

    def _make(self, span: Span) -> None:
        """Let OpenTelemetry begin and end a span that is long over, under the ids that it has."""
        self._ids.trace, self._ids.span = span.trace, span.id
        context = trace.set_span_in_context(trace.INVALID_SPAN)
        if span.parent:
            parent = SpanContext(span.trace, span.parent, False, TraceFlags(TraceFlags.SAMPLED))
            context = trace.set_span_in_context(NonRecordingSpan(parent))
        made = self._tracer.start_span(span.name, context, attributes=span.attributes, start_time=span.start)
        if span.failed:
            made.set_status(Status(StatusCode.ERROR))
        made.end(span.end)


class _GivenIds(IdGenerator):
    """The ids of the span that is made next."""

    def __init__(self) -> None:
        self.trace = self.span = 0

    def generate_trace_id(self) -> int:
        return self.trace

    def generate_span_id(self) -> int:
        return self.span


class _Made(SpanExporter):
    """Collects the spans that were made."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS
