"""What was said when, and beside what, is told from the words and their times."""

from __future__ import annotations

import pytest

from streamsvc.answers.rules.parse import parse
from streamsvc.answers.rules.speech import addressed, beside, nth, stretch
from streamsvc.timeline.timeline import Timeline
from tests.builders.units import cue


def line() -> Timeline:
    found = Timeline()
    found.add(cue("The stone cutter shook his head.", 2.0))
    found.add(cue("Nobody saw the spirit.", 10.0))
    return found


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ('What did the speaker say right after "the stone cutter"?', 'At 0:03: "shook his head."'),
        ('What was said after "stone gutter shook his"?', 'At 0:04: "head. Nobody saw the spirit."'),
        ('What was said after "Nobody paw the"?', None),
        ('What came next after "cutter shook his head. Nobody saw the"?', 'At 0:11: "spirit."'),
        ('What was said before "saw the spirit"?', 'At 0:02: "The stone cutter shook his head. Nobody"'),
        ('What did he say after "something else entirely"?', None),
        ('What was shown after "the stone cutter"?', ""),
    ],
)
def test_what_was_said_beside_a_quote_is_told_even_if_a_word_of_it_was_heard_otherwise(
    question: str, text: str | None
) -> None:
    found = beside(parse(question), line(), 20.0)
    if text == "":
        assert found is None, "other rules tell what was shown"
        return
    assert found is not None
    assert found.supported == (text is not None)
    assert text is None or found.text == text


@pytest.mark.parametrize(
    "quote",
    [
        "the stonecutter shook",
        "the stone cutter he shook",
        "the old stone cutter shook",
        "the stone butter shook",
        "thestone cutter shook",
    ],
)
def test_words_of_a_quote_may_be_heard_apart_together_besides_or_not_at_all(quote: str) -> None:
    found = beside(parse(f'What follows "{quote}"?'), line(), 20.0)
    assert found is not None
    assert found.text == 'At 0:03: "his head. Nobody saw the spirit."'


def test_whom_the_speaker_addresses_is_told_by_the_words_that_address() -> None:
    spoken = Timeline()
    spoken.add(cue("And so, my fellow islanders, let us begin.", 1.0))
    for question in (
        "Whom does the speaker address?",
        "Who is the speaker talking to?",
        "Who is being addressed?",
    ):
        found = addressed(parse(question), spoken, 5.0)
        assert found is not None
        assert "islanders" in found.text
        assert not addressed(parse(question), line(), 20.0).supported  # type: ignore[union-attr]
    assert addressed(parse("Who is the speaker?"), spoken, 5.0) is None


def test_a_question_names_a_stretch_of_time_or_all_so_far() -> None:
    assert stretch(parse("What was said between 10 s and 20 s?"), 60.0) == (10.0, 20.0)
    assert stretch(parse("What was said before 0:20?"), 60.0) == (0.0, 20.0)
    assert stretch(parse("What was said after 0:20?"), 60.0) == (20.0, 60.0)
    assert stretch(parse("What was said in the last 20 seconds?"), 60.0) == (40.0, 60.0)
    assert stretch(parse("What was said 20 seconds ago?"), 60.0) == (39.0, 41.0)
    assert stretch(parse("What was said?"), 60.0) == (0.0, 60.0)


def test_the_second_speech_begins_after_a_pause() -> None:
    second = nth(parse("How does the second speech begin?"), line())
    assert second is not None
    assert second[0].text == "Nobody saw the spirit."
    assert nth(parse("How does the third speech begin?"), line()) is None
