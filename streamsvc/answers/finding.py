"""What a tool or a reader found: a text with its evidence, and how times and quotations are written. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.types import Evidence
from streamsvc.timeline.lines import timestamp as timestamp

MAX_WORDS = 40  # of an answer


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer with its evidence.

    `values`: what was asked for, without words around it, where it is known: a count, the things of a list.
    """

    text: str
    evidence: tuple[Evidence, ...]
    values: tuple[str, ...] = ()


def quoted(text: str, most: int) -> str:
    """At most `most` words from the beginning of a text; double quotes become single ones."""
    words = text.replace('"', "'").replace("\u201c", "'").replace("\u201d", "'").split()
    return " ".join(words) if len(words) <= most else " ".join(words[:most]) + " \u2026"
