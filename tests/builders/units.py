"""Units of the timeline: cues, sights and readings of a screen."""

from __future__ import annotations

import numpy as np

from streamsvc.core.types import Box, Cue, ScreenText, Sight, TextLine, Word

NO_EMBEDDING = np.zeros(2, np.float32)


def cue(text: str, start: float, final: bool = True, stable: int | None = None) -> Cue:
    """A cue from session second `start`, 0.4 s a word."""
    words = tuple(Word(word, start + n * 0.4, start + n * 0.4 + 0.3) for n, word in enumerate(text.split()))
    return Cue("s", "main", start, 0.0, text, words, len(words) if stable is None else stable, final)


def sight(at: float, label: str = "cat", blank: bool = False) -> Sight:
    """A sight with one box over the whole picture, or a blank one."""
    boxes = () if blank else (Box(label, 0.9, 0, 0, 1, 1),)
    return Sight("s", "main", at, 0.0, NO_EMBEDDING, (), boxes, blank)


def screen(at: float, *lines: str, seen: float | None = None) -> ScreenText:
    """A reading of a screen; the first line is its title."""
    read = tuple(TextLine(line, 0.9, 0, 0, 1, 0.1) for line in lines)
    return ScreenText("s", "main", at, 0.0, lines[0] if lines else None, read, at if seen is None else seen)
