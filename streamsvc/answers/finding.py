"""What a tool or a reader found: a text with its evidence, and how times and quotations are written. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from streamsvc.core.types import Evidence


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer with its evidence.

    `values`: what was asked for, without words around it, where it is known: a count, the things of a list.
    """

    text: str
    evidence: tuple[Evidence, ...]
    values: tuple[str, ...] = ()


def timestamp(seconds: float) -> str:
    """Session seconds as m:ss, or h:mm:ss."""
    whole = int(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def quoted(text: str, most: int) -> str:
    """At most `most` words from the beginning of a text; double quotes become single ones."""
    words = text.replace('"', "'").replace("\u201c", "'").replace("\u201d", "'").split()
    return " ".join(words) if len(words) <= most else " ".join(words[:most]) + " \u2026"
