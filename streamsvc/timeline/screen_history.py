"""The screens of text of one session: slides, pages, terminals. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from streamsvc.core.types import ScreenText
from streamsvc.timeline.text_tracks import TextTracks, normalized

SAME_SCREEN = 0.9  # share of equal text from which two readings are of the same screen


@dataclass(frozen=True, slots=True)
class Screen:
    """One screen of text, from its first keyframe until it differed. `end` None: shown now."""

    start: float
    end: float | None
    title: str | None
    lines: tuple[str, ...]
    frame: float  # `at` of the keyframe it was read from

    @property
    def text(self) -> str:
        """All lines, separated by line feeds."""
        return "\n".join(self.lines)


class ScreenHistory:
    """Screens by time, and the text tracks of their lines.

    Args:
        limit: screens kept. Over it the oldest without a title is dropped: questions name slides by title.
        track_limit: ended text tracks kept.
    """

    def __init__(self, limit: int, track_limit: int) -> None:
        self.screens: list[Screen] = []
        self.tracks = TextTracks(track_limit)
        self.dropped = 0  # screens
        self._limit = limit

    def read(self, reading: ScreenText) -> None:
        """Add a reading of the whole screen: the current screen again, or a new one."""
        seen = min(reading.first_seen, reading.at)
        self.tracks.read(reading.lines, seen)
        lines = tuple(track.text for track in self.tracks.shown)
        current = self._current()
        if current is not None and lines and _same_text(current.lines, lines):
            title = _title(current.title, reading.title, lines)
            self.screens[-1] = replace(current, lines=lines, title=title)
            return
        if current is not None:
            if seen <= current.start:  # the same screen, read again after it was complete
                self.screens[-1] = Screen(current.start, None, reading.title, lines, reading.at)
                return
            self.screens[-1] = replace(current, end=seen)
        if lines:
            self.screens.append(Screen(seen, None, reading.title, lines, reading.at))
            if len(self.screens) > self._limit:
                self._drop_one()

    def clear(self, at: float) -> None:
        """End the current screen: the picture is blank since session second `at`."""
        current = self._current()
        if current is not None and current.start < at:
            self.screens[-1] = replace(current, end=at)
            self.tracks.clear(at)

    def at(self, when: float) -> Screen | None:
        """The screen shown at session second `when`."""
        shown = (
            screen
            for screen in reversed(self.screens)
            if screen.start <= when and (screen.end is None or when < screen.end)
        )
        return next(shown, None)

    def _current(self) -> Screen | None:
        return self.screens[-1] if self.screens and self.screens[-1].end is None else None

    def _drop_one(self) -> None:
        older = self.screens[: self._limit // 2]
        del self.screens[next((n for n, screen in enumerate(older) if screen.title is None), 0)]
        self.dropped += 1


def _title(before: str | None, after: str | None, lines: Sequence[str]) -> str | None:
    """The title of a screen that was read again: the one before while it stands in the text."""
    if before is not None and normalized(before) in normalized("".join(lines)):
        return before
    return after or before


def _same_text(one: Sequence[str], other: Sequence[str]) -> bool:
    a, b = (re.sub(r"\W+", "", "".join(lines)).lower() for lines in (one, other))
    return a == b or difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= SAME_SCREEN
