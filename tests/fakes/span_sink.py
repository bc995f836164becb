"""Where traces go in tests: a list of spans, by trace."""

from __future__ import annotations

from streamsvc.core.spans import Span


class SpanList:
    """Keeps all spans. `sample`: share of the traces that it wants."""

    def __init__(self, sample: float = 1.0) -> None:
        self.sample = sample
        self.spans: list[Span] = []

    def put(self, span: Span) -> None:
        self.spans.append(span)

    def roots(self, name: str = "") -> list[Span]:
        """The roots, of one kind of trace or of all."""
        return [span for span in self.spans if not span.parent and name in ("", span.name)]

    def below(self, span: Span) -> list[Span]:
        """The children of a span, by time."""
        found = [one for one in self.spans if one.trace == span.trace and one.parent == span.id]
        return sorted(found, key=lambda one: (one.start, one.end))

    def names(self, span: Span) -> list[str]:
        """The names of its children, by the end of each."""
        return [one.name for one in sorted(self.below(span), key=lambda one: one.end)]
