"""Spans of traces: what they say, and where they go. The service exports them (`service.span_export`)."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

Attributes = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class Span:
    """One named stretch of time of a trace, made when it is over.

    `trace`: 128 bits, `id` and `parent`: 64 bits; 0 is a root's parent alone. `start`, `end`: nanoseconds
    since 1970. `attributes`: numbers, ids and words of fixed lists; never text of a stream or of a question,
    an address or a token. `failed`: an error was told instead of a result.
    """

    name: str
    trace: int
    id: int
    parent: int
    start: int
    end: int
    attributes: Attributes
    failed: bool = False


class SpanSink(Protocol):
    """Takes finished spans. `put` never blocks and never raises."""

    @property
    def sample(self) -> float:
        """Share of the traces that are wanted, 0 to 1."""
        ...

    def put(self, span: Span) -> None:
        """Take one span; what cannot be taken is counted."""
        ...


def random_id(size: int) -> int:
    """A random id of `size` bytes; never 0, which means none (W3C Trace Context)."""
    return secrets.randbelow((1 << 8 * size) - 1) + 1
