"""Units of a session, made from what a test cares about: captions, sights, screen text."""

from __future__ import annotations

import numpy as np

from streamsvc.core.types import Box, Cue, Keyframe, ScreenText, Sight, TextLine, VideoFrame, Word

NO_EMBEDDING = np.zeros(2, np.float32)


def cue(text: str, start: float, final: bool = True, stable: int | None = None) -> Cue:
    """A caption, a word each 0.4 s."""
    words = tuple(Word(word, start + n * 0.4, start + n * 0.4 + 0.3) for n, word in enumerate(text.split()))
    return Cue("s", "main", start, 0.0, text, words, len(words) if stable is None else stable, final)


def keyframe(at: float, arrived: float = 0.0) -> Keyframe:
    """A keyframe without pixels."""
    return Keyframe("s", "main", at, arrived, VideoFrame("s", "main", at, arrived, None, 4, 4), "scene")


def sight(at: float, label: str = "cat", blank: bool = False) -> Sight:
    """A picture that shows one thing, or nothing."""
    return Sight(
        "s", "main", at, 0.0, NO_EMBEDDING, (), () if blank else (Box(label, 0.9, 0, 0, 1, 1),), blank
    )


def screen(at: float, *lines: str, seen: float | None = None) -> ScreenText:
    """A screen of text lines, all at one place; `seen`: when its text was first shown."""
    told = tuple(TextLine(line, 0.9, 0, 0, 1, 0.1) for line in lines)
    return ScreenText("s", "main", at, 0.0, lines[0] if lines else None, told, at if seen is None else seen)
