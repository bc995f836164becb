"""Captions become sentences; old speech is thinned to one sentence a stretch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from streamsvc.core.types import Word
from streamsvc.timeline.transcript import Fold, Sentence, Transcript, split_sentences
from tests.builders.units import cue


def transcript(sentences: int = 100, folded: int = 100, fold: Fold | None = None) -> Transcript:
    return Transcript(sentences, folded, fold)


def test_captions_are_joined_to_sentences_across_their_borders() -> None:
    spoken = transcript()
    spoken.add(cue("He went to the", 0.0))
    spoken.add(cue("old mill. Then he", 2.0))
    assert [s.text for s in spoken.sentences] == ["He went to the old mill.", "Then he"]


def test_only_the_stable_words_of_the_open_caption_count_and_are_not_doubled() -> None:
    spoken = transcript()
    spoken.add(cue("One two three", 0.0, final=False, stable=2))
    assert spoken.sentences[0].text == "One two"
    spoken.add(cue("One two three.", 0.0))
    assert [s.text for s in spoken.sentences] == ["One two three."]


def test_a_pause_ends_a_sentence_and_an_abbreviation_does_not() -> None:
    words = [Word("Mr.", 0, 0.3), Word("Smith", 0.4, 0.8), Word("left", 0.9, 1.2), Word("Later", 5.0, 5.3)]
    assert [s.text for s in split_sentences(words)] == ["Mr. Smith left", "Later"]


def last_of(stretch: Sequence[Sentence], after: Sequence[Sentence]) -> Sentence:
    return stretch[-1]


def talk(minutes: int, sentences: int, folded: int = 3000) -> Transcript:
    """Six sentences a minute."""
    spoken = transcript(sentences, folded, last_of)
    for n in range(6 * minutes):
        spoken.add(cue(f"Number {n} is told.", 10.0 * n))
    return spoken


def test_of_old_speech_one_sentence_stays_for_each_stretch_and_the_opening() -> None:
    spoken = talk(60, sentences=30)
    texts = [sentence.text for sentence in spoken.sentences]
    assert texts[0] == "Number 0 is told."
    assert texts[-30:] == [f"Number {n} is told." for n in range(330, 360)]
    assert 50 <= len(texts) - 30 <= 62
    starts = [sentence.start for sentence in spoken.sentences]
    assert starts == sorted(set(starts))
    assert all(later - earlier <= 61.0 for earlier, later in pairwise(starts))
    assert len(texts) + spoken.dropped == 360
    assert 3200.0 < spoken.folded_until < 3300.0
    first, *others = spoken.talks
    assert first[-1].start == 3240.0  # pauses that are not known are not made up
    assert all(len(talk_) == 1 for talk_ in others)


def test_folded_sentences_are_bounded_and_without_a_fold_old_speech_is_dropped() -> None:
    spoken = talk(60, sentences=30, folded=5)
    assert len(spoken.sentences) <= 30 + 5 + 7
    assert len(spoken.sentences) + spoken.dropped == 360
    bare = transcript(sentences=3)
    for n in range(9):
        bare.add(cue(f"Number {n} is told.", 10.0 * n))
    assert [sentence.text for sentence in bare.sentences] == [f"Number {n} is told." for n in (5, 6, 7, 8)]
    assert bare.dropped == 5
    assert 40.0 < bare.folded_until < 50.0


def test_talks_are_separated_by_long_pauses() -> None:
    spoken = transcript()
    spoken.add(cue("First talk.", 0.0))
    spoken.add(cue("Second talk.", 20.0))
    assert len(spoken.talks) == 2
