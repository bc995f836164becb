"""Words are found where they were said or written, however compounds are cut and a letter is misread."""

from __future__ import annotations

import pytest

from streamsvc.answers.tools.matching import holds_any, is_complete, mentions, spoken, written
from streamsvc.core.types import Gap
from streamsvc.timeline.timeline import Timeline
from tests.builders.timelines import ferries
from tests.builders.units import cue, screen


def line() -> Timeline:
    found = Timeline()
    found.add(cue("The stone cutter shook his head.", 2.0))
    found.add(cue("Two stone cutters saw the spirit of the stone.", 10.0))
    return found


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("stone cutter", [2.4, 10.4]),
        ("stonecutter", [2.4, 10.4]),
        ("stone", [2.4, 10.4, 13.2]),
        ("saw the spirit", [11.2]),
        ("spirit of stone cutters", [10.4]),
        ("mountain", []),
        ("stone butter", []),
        ("", []),
    ],
)
def test_a_mention_begins_with_its_first_word(text: str, starts: list[float]) -> None:
    assert [span.start for span in spoken(line(), text)] == pytest.approx(starts)


def test_a_misread_word_of_a_line_is_forgiven_and_another_word_is_not() -> None:
    found = Timeline()
    found.add(screen(1.0, "The brave night fery", "Slide 1 of 3"))
    assert [span.start for span in written(found, "The brave night ferry")] == [1.0]
    assert written(found, "The brave night train") == []


def test_mentions_are_by_time_whether_said_or_written() -> None:
    assert [(span.start, span.kind) for span in mentions(ferries(), "ferry")] == [(20.0, "screen")]
    assert holds_any(ferries(), "shipyard princess")
    assert not holds_any(ferries(), "princess")


def test_what_was_lost_makes_absence_unknown() -> None:
    found = line()
    assert is_complete(found)
    found.add(Gap("s", "main", 20.0, 0.0, 20.0, 22.0, "overload"))
    assert not is_complete(found)
