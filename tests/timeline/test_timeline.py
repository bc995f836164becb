"""The timeline holds everything heard and seen, bounded, and lists it by time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from streamsvc.core.types import Gap, Keyframe, VideoFrame
from streamsvc.timeline.timeline import Timeline, TimelineLimits
from tests.builders import pages
from tests.builders.units import cue, screen, sight


def test_keyframes_and_sights_of_one_time_are_one_entry() -> None:
    timeline = Timeline()
    picture = VideoFrame("s", "main", 2.0, 0.0, None, 4, 4)
    timeline.add(sight(0.0))
    timeline.add(Keyframe("s", "main", 2.0, 0.0, picture, "scene"))
    timeline.add(sight(2.0, "dog"))
    assert [(entry.start, entry.end) for entry in timeline.shown] == [(0.0, 2.0), (2.0, None)]
    assert timeline.shown[1].reason == "scene"


def test_each_line_of_a_screen_has_its_own_times_and_an_edited_screen_its_newest_text() -> None:
    timeline = Timeline()
    for closed, at in ((12, 1.0), (13, 5.0)):
        rows = [("Weekly report of the team", 80, 50, 48), (f"Tickets closed: {closed}", 80, 200, 30)]
        timeline.add(pages.screen(rows, at))
    timeline.add(sight(9.0, blank=True))
    (screen_,) = timeline.screens
    assert (screen_.lines, screen_.start, screen_.end) == (
        ("Weekly report of the team", "Tickets closed: 13"),
        1.0,
        9.0,
    )
    assert [(line.quote, line.start, line.end) for line in timeline.lines() if line.kind == "screen"] == [
        ("Weekly report of the team", 1.0, 9.0),
        ("Tickets closed: 12", 1.0, 5.0),
        ("Tickets closed: 13", 5.0, 9.0),
    ]


def test_entries_over_the_limits_are_dropped_and_counted_by_kind() -> None:
    timeline = Timeline(limits=TimelineLimits(sentences=3, lines=3, shown=3, screens=8, gaps=2))
    for n in range(9):
        timeline.add(screen(float(n), "abcdefghi"[n] * 12))
        timeline.add(cue(f"Number {n} is told.", 10.0 * n))
        timeline.add(sight(float(n)))
        timeline.add(Gap("s", "main", float(n), 0.0, float(n), n + 0.5, "overload"))
    assert len(timeline.text_tracks.all()) == 4
    assert timeline.dropped == {"sentences": 5, "lines": 5, "shown": 6, "screens": 1, "gaps": 7}
    assert [gap.at for gap in timeline.gaps] == [7.0, 8.0]
    assert timeline.dropped["scenes"] == 0


def test_latest_is_the_newest_second_of_any_unit() -> None:
    timeline = Timeline()
    assert timeline.empty
    timeline.add(cue("One two three", 1.0, final=False, stable=2))
    assert (timeline.latest, timeline.empty) == (1.7, False)
    timeline.set_open_words(cue("One two three", 1.0).words)
    assert timeline.latest == 2.1
    timeline.add(Gap("s", "main", 0.5, 0.0, 0.5, 8.0, "overload"))
    timeline.add(sight(5.0))
    assert timeline.latest == 8.0
    assert timeline.end_of(timeline.shown[-1]) == 8.0


def test_lines_are_all_kinds_by_time_each_with_the_keyframe_shown_at_its_start() -> None:
    timeline = Timeline()
    timeline.add(cue("Too early.", 0.0))
    timeline.add(sight(2.0))
    timeline.add(sight(6.0, blank=True))
    timeline.add(screen(2.0, "Title"))
    timeline.add(cue("Later on.", 7.0))
    assert [(line.kind, line.quote, line.frame) for line in timeline.lines()] == [
        ("speech", "Too early.", None),
        ("screen", "Title", 2.0),
        ("sight", "cat", 2.0),
        ("sight", "blank picture", 6.0),
        ("speech", "Later on.", 6.0),
    ]


def test_pictures_are_the_keyframes_with_a_vector_with_or_without_labels() -> None:
    timeline = Timeline(limits=TimelineLimits(shown=3))
    for at, label in ((0.0, "dog"), (2.0, "cat"), (4.0, "")):
        vector = np.full(2, at, np.float16)
        unlabelled = replace(sight(at, blank=True), blank=False, clip=vector)
        timeline.add(replace(sight(at, label), clip=vector) if label else unlabelled)
    timeline.add(sight(6.0))  # no vector
    pictures = [
        (line.start, line.end, line.quote, line.frame, vector.tolist())
        for line, vector in timeline.pictures()
    ]
    expected = [(2.0, 4.0, "cat", 2.0, [2.0, 2.0]), (4.0, 6.0, "", 4.0, [4.0, 4.0])]
    assert pictures == expected, "the oldest has gone with its keyframe"
