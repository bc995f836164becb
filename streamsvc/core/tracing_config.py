"""The settings of traces. A group of `core.config`."""

from __future__ import annotations

from pydantic import Field, field_validator

from streamsvc.core import web_address
from streamsvc.core.media_config import Group

PATH = "/v1/traces"  # of OTLP over HTTP (opentelemetry.io/docs/specs/otlp)


class Tracing(Group):
    """OpenTelemetry traces: one per utterance, keyframe and question. Extra "otel"."""

    # "http://127.0.0.1:4318", a collector's (OTLP by HTTP); "": none. Its key: OTEL_EXPORTER_OTLP_HEADERS
    endpoint: str = ""
    sample: float = Field(1.0, ge=0, le=1)  # share of the traces that is exported
    service: str = Field("streamsvc", min_length=1, max_length=100)  # service.name of the spans
    spans: int = Field(4096, ge=64)  # that wait for the collector; the oldest are dropped and counted
    timeout: float = Field(5.0, gt=0)  # seconds for a batch, retries included; then it is dropped and counted

    @field_validator("endpoint")
    @classmethod
    def _is_plain(cls, url: str) -> str:
        if url:
            web_address.http_url(url, "http://127.0.0.1:4318")
        return url.rstrip("/").removesuffix(PATH)
