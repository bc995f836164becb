"""What was said when, and whether anybody speaks, is told from the words and their times."""

from __future__ import annotations

import pytest

from streamsvc.answers.route import Arguments
from streamsvc.answers.tools.speech import speaker, transcript, voice_between
from streamsvc.core.types import Gap, Speech
from streamsvc.timeline.timeline import Timeline
from tests.builders.timelines import ferries
from tests.builders.units import cue


def two_talks() -> Timeline:
    found = Timeline()
    found.add(cue("The stone cutter shook his head.", 2.0))
    found.add(cue("Nobody saw the spirit of the mountain.", 20.0))
    return found


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (Arguments(), 'At 0:20: "Nobody saw the spirit of the mountain."'),
        (Arguments(span=(3.0, 3.0)), 'At 0:02: "The stone cutter shook his head."'),
        (Arguments(span=(20.0, 40.0)), 'At 0:20: "Nobody saw the spirit of the mountain."'),
        (Arguments(ordinal=1), 'At 0:02: "The stone cutter shook his head."'),
        (Arguments(ordinal=2), 'At 0:20: "Nobody saw the spirit of the mountain."'),
        (Arguments(ordinal=3), None),
        (Arguments(span=(8.0, 16.0)), None),
    ],
)
def test_words_are_quoted_with_their_time(arguments: Arguments, text: str | None) -> None:
    found = transcript(two_talks(), arguments, 40.0)
    assert (found and found.text) == text
    assert found is None or found.evidence[0].kind == "speech"


def test_a_sentence_that_has_only_begun_is_told_with_the_one_before() -> None:
    found = Timeline()
    found.add(cue("The inspector looked into the old boiler of the ferry and then", 2.0))
    found.add(cue("left. So he", 8.0))
    told = transcript(found, Arguments(), 10.0)
    assert told is not None
    assert told.text.endswith('left. So he"')
    assert "inspector" in told.text


def test_a_long_span_is_told_by_its_points() -> None:
    told = transcript(ferries(), Arguments(span=(0.0, 50.0)), 50.0)
    assert told is not None
    assert len(told.evidence) == 3


@pytest.mark.parametrize(
    ("arguments", "now", "begins"),
    [
        (Arguments(form="yes/no"), 22.0, "Yes, somebody is speaking, at 0:20: "),
        (Arguments(form="yes/no"), 40.0, "No, nobody has spoken since 0:22."),
        (Arguments(form="yes/no", span=(8.0, 16.0)), 40.0, "No, nobody spoke between 0:08 and 0:16."),
        (Arguments(form="yes/no", span=(1.0, 16.0)), 40.0, "Yes, somebody spoke, at 0:02: "),
        (Arguments(), 22.0, "Somebody is speaking, at 0:20: "),
        (Arguments(form="how often"), 40.0, "2 so far, from 0:02, 0:20 on."),
        (Arguments(form="when", ordinal=2), 40.0, "At 0:20."),
        (Arguments(form="how long", ordinal=1), 40.0, "2 seconds, from 0:02 to 0:04."),
        (Arguments(form="how long"), 22.0, "2 seconds so far, since 0:20. The pause before it: 16 seconds."),
    ],
)
def test_whether_and_how_often_somebody_speaks(arguments: Arguments, now: float, begins: str) -> None:
    found = speaker(two_talks(), arguments, now)
    assert found is not None
    assert found.text.startswith(begins)
    assert found.evidence


def test_silence_is_not_told_of_what_was_lost_or_of_a_voice_without_words() -> None:
    heard = two_talks()
    heard.add(Speech("s", "main", 30.0, 0.0, True))
    assert voice_between(heard, 29.0, 33.0) == 3.0
    assert speaker(heard, Arguments(form="yes/no"), 33.0) is None
    lost = two_talks()
    lost.add(Gap("s", "main", 30.0, 0.0, 30.0, 35.0, "overload"))
    assert speaker(lost, Arguments(form="yes/no"), 34.0) is None


def test_of_an_empty_session_it_is_told_that_nobody_has_spoken() -> None:
    found = speaker(Timeline(), Arguments(form="yes/no"), 5.0)
    assert found is not None
    assert found.text == "No, nobody has spoken so far."
    assert transcript(Timeline(), Arguments(), 5.0) is None
