"""A session's log holds what its window was made of: units replayed from it make the same window."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import numpy as np

from streamsvc.core.config import Limits
from streamsvc.core.session_clock import SessionClock
from streamsvc.core.types import (
    Box,
    Cue,
    Gap,
    Keyframe,
    Scene,
    ScreenText,
    Sight,
    Speech,
    Tag,
    TextLine,
    Translation,
    VideoFrame,
    Word,
)
from streamsvc.events.log import EventLog
from streamsvc.events.replay import units_of
from streamsvc.events.store import Store
from streamsvc.service.dispatch import Dispatcher
from streamsvc.timeline.timeline import Timeline
from streamsvc.timeline.window import Window, extended, folded, known_at
from tests.fakes.host import context


def count(text: str) -> int:
    return len(text) // 4 + 1


class Fold:
    """A window made as a session makes it: after each unit."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline
        self.window = Window()
        self.now = 0.0

    def note(self, unit: Any) -> None:
        self.now = max(self.now, known_at(unit))
        self.window = folded(extended(self.window, self.timeline, self.now, count), count, 400)


def head(at: float) -> tuple[str, str, float, float]:
    return "s", "main", at, 77.0


def cue(at: float, text: str, *, final: bool = True) -> Cue:
    words = tuple(
        Word(word, at + 0.29994 * n, at + 0.29994 * n + 0.25006, 0.98765)
        for n, word in enumerate(text.split())
    )
    return Cue(*head(at), text, words, len(words), final)


def sight(at: float, *labels: str, blank: bool = False) -> Sight:
    boxes = tuple(
        Box(label, 0.87654, 0.123456, 0.1, 0.5, 0.5, ("white", "red")[:n]) for n, label in enumerate(labels)
    )
    seen = Sight(*head(at), np.ones(3, np.float32), (Tag("lawn", 0.51234),), boxes, blank, of="e.1")
    if blank:
        return seen
    return replace(seen, colours=("blue", "white"), background=("blue",), same_as=0.5 if at > 2 else None)


def screen(at: float, *lines: str, score: float = 0.99) -> ScreenText:
    told = tuple(
        TextLine(line, score, 0.123456, 0.1 + 0.1 * n, 0.512345, 0.05) for n, line in enumerate(lines)
    )
    return ScreenText(*head(at + 0.4), lines[0] if lines else None, told, at, of="e.1")


def keyframe(at: float) -> Keyframe:
    return Keyframe(*head(at), VideoFrame(*head(at), None, 2, 2), "scene")


def session() -> list[Any]:
    """Units in the order in which a session dispatches them, of all kinds and with odd times."""
    units: list[Any] = []
    for n in range(40):
        at = 6.0 * n + 0.12345
        units += [
            Speech(*head(at), True),
            keyframe(at + 0.01),
            cue(at, f"Of the {n} ferry", final=False),
            cue(at, f"Of the {n} ferry the captain told"),
            sight(at + 0.01, *["boat", "gull"][: n % 3], blank=n % 10 == 9),
            cue(at + 2.1, "that it leaves." if n % 4 else "that it leaves"),
            Translation(*head(at), "e.1", "Fähre", "de", at, at + 1),
            Scene(*head(at), "A boat.", at, at, (), by="model" if n % 2 else "rule"),
            Speech(*head(at + 3.5), False),
            screen(at + 1, f"Slide {n // 5}", f"Timetab1e {n // 2}", score=0.7),
            screen(at + 3, f"Slide {n // 5}", f"Timetable {n // 2}"),
        ]
        if n % 7 == 0:
            units.append(Gap(*head(at + 3.6), at + 3.6, at + 4.2, "overload"))
    return units


def logged(units: list[Any]) -> tuple[Fold, list[dict[str, Any]]]:
    """The window of a session that dispatched these units, and its events as they were stored."""

    async def main() -> tuple[Fold, list[dict[str, Any]]]:
        store = Store(None, events=10_000, frames=10)
        try:
            log = EventLog("s", SessionClock(), Limits(), store)
            timeline = Timeline()
            live = Fold(timeline)
            dispatcher = Dispatcher(context(), timeline, None, log, lambda at: f"/frames/{at:.3f}.jpg")
            for unit in units:
                dispatcher.dispatch(unit)
                open_cue = isinstance(unit, Cue) and not unit.final
                if not open_cue and not isinstance(unit, Translation):
                    live.note(unit)
            await log.flush()
            rows = store.read(0, 1 << 60, 1 << 20)
            return live, [json.loads(row[3] + "}") for row in rows]
        finally:
            store.close(purge=True)

    return asyncio.run(main())


def test_the_window_of_the_replayed_units_is_the_one_that_was_made_live() -> None:
    live, events = logged(session())
    again = Fold(Timeline())
    for unit in units_of(events):
        again.timeline.add(unit)
        again.note(unit)
    assert again.window == live.window
    assert live.window.generation > 1
    kinds = {line.kind for line in live.window.lines}
    assert kinds == {"speech", "screen", "sight", "note"}


def test_units_come_back_as_they_were_but_for_what_the_log_does_not_hold() -> None:
    units = [
        Speech(*head(1.0), True),
        cue(1.0, "One word."),
        sight(1.2, "boat", "gull"),
        sight(1.5, "boat", blank=True),
        screen(1.5, "Plan", score=0.5),
        Gap(*head(2.0), 2.0, 3.0, "overload"),
        keyframe(2.5),
        Scene(*head(1.0), "A boat.", 1.0, 2.0, ()),
        Scene(*head(1.0), "A calm sea.", 1.0, 2.0, (), by="model"),
    ]
    speech, said, bright, seen, text, gap, picture, scene = units_of(logged(units)[1])
    assert speech == Speech("s", "main", 1.0, 0.0, True)
    assert isinstance(said, Cue)
    assert (said.text, said.final, said.words[1]) == ("One word.", True, Word("word.", 1.3, 1.55, 0.988))
    assert isinstance(seen, Sight)
    assert (seen.blank, seen.of) == (True, "e.1")
    assert seen.boxes == (Box("boat", 0.877, 0.1235, 0.1, 0.5, 0.5),)
    assert isinstance(bright, Sight)
    assert [box.colours for box in bright.boxes] == [(), ("white",)]
    assert (bright.colours, bright.background) == (("blue", "white"), ("blue",))
    assert isinstance(text, ScreenText)
    assert (text.first_seen, text.lines[0].score, text.title) == (1.5, 0.5, "Plan")
    assert isinstance(gap, Gap)
    assert (gap.start, gap.end, gap.reason) == (2.0, 3.0, "overload")
    assert isinstance(picture, Keyframe)
    assert (picture.at, picture.reason) == (2.5, "scene")
    assert isinstance(scene, Scene)
    assert (scene.text, scene.by) == ("A boat.", "rule")


def test_other_events_are_passed_over() -> None:
    assert list(units_of([{"type": "session.created"}, {"type": "answer.done", "text": "Yes."}])) == []
