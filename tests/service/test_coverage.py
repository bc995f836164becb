"""What came out of the speech that was detected: captions, gaps, and what is missing without a word."""

from __future__ import annotations

from typing import Any

import pytest

from streamsvc.service.coverage import Coverage, SpeechSeconds


def heard(*utterances: tuple[float, float]) -> Coverage:
    coverage = Coverage()
    for start, end in utterances:
        coverage.note_speech(start, active=True)
        coverage.note_speech(end, active=False)
    return coverage


def seconds(captioned: float, missing: float, gaps: float = 0.0) -> Any:
    """What compares equal to about these seconds."""
    about: list[Any] = [pytest.approx(value) for value in (captioned, missing, gaps)]
    return SpeechSeconds(*about)


def test_without_speech_there_is_no_share() -> None:
    assert Coverage().seconds().share is None
    silent = Coverage()
    silent.note_caption(1.0, 2.0)
    assert silent.seconds().share is None, "a caption where nothing was heard covers nothing"


def test_short_pauses_and_the_edges_of_words_are_covered_and_a_long_hole_is_missing() -> None:
    coverage = heard((0.0, 10.0), (20.0, 24.0))
    for start, end in ((0.3, 4.0), (4.9, 9.7)):
        coverage.note_caption(start, end)
    assert coverage.seconds() == seconds(10.0, 4.0)
    assert coverage.seconds().share == pytest.approx(10 / 14)


def test_lost_audio_is_told_and_counts_against_the_share_once() -> None:
    coverage = heard((0.0, 10.0))
    coverage.note_caption(0.0, 4.0)
    coverage.note_gap(4.0, 10.0)
    coverage.note_gap(8.0, 12.0)
    assert coverage.seconds() == seconds(4.0, 0.0, 8.0)


def test_an_open_utterance_counts_up_to_its_newest_caption() -> None:
    coverage = Coverage()
    coverage.note_speech(0.0, active=True)
    assert coverage.seconds().share is None
    coverage.note_caption(0.2, 5.0)
    assert coverage.seconds() == seconds(5.0, 0.0)
    coverage.note_gap(60.0, 70.0)  # what waits was dropped; what came before is still being recognised
    coverage.settle()
    assert coverage.seconds() == seconds(5.0, 0.0, 10.0)
    coverage.note_caption(5.5, 59.8)
    coverage.note_speech(70.0, active=False)
    assert coverage.seconds() == seconds(60.0, 0.0, 10.0)


def test_what_is_settled_is_forgotten_and_still_counted() -> None:
    coverage = Coverage()
    for minute in range(200):
        at = minute * 60.0
        coverage.note_speech(at, active=True)
        coverage.note_caption(at, at + 30.0)
        coverage.note_speech(at + 40.0, active=False)
        coverage.settle()
    assert len(coverage._speech) + len(coverage._captions) < 10
    assert coverage.seconds() == seconds(200 * 30.5, 200 * 9.5)
    settled = coverage.settle(ended=True)
    assert settled.captioned > 0
    assert coverage.settle(ended=True) == SpeechSeconds()
