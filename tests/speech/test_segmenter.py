"""Segmentation without worker or clock: windows, utterances and stable words."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Word, Words
from streamsvc.speech.hypothesis import DecodeWindow, Hypothesis
from streamsvc.speech.segmenter import SHORT_SILENCE, Segmenter
from streamsvc.speech.vad import PAUSE, VAD_WINDOW

STEP = 0.5
CHUNK = VAD_WINDOW  # samples
CHUNK_SECONDS = CHUNK / SAMPLE_RATE

texts = st.lists(st.sampled_from(["the", "stone", "cutter", "went", "home", "so", "far"]), max_size=12)


@given(st.lists(texts, min_size=1, max_size=12))
def test_stable_words_are_never_revised_nor_repeated(hypotheses: list[list[str]]) -> None:
    segmenter = Segmenter("s", step=STEP, hangover=0.5)
    stable: list[Word] = []
    for step, words in enumerate(hypotheses):
        for start in range(0, SAMPLE_RATE // 2, CHUNK):
            samples = np.ones(min(CHUNK, SAMPLE_RATE // 2 - start), np.float32)
            segmenter.add_audio(AudioChunk("s", "main", segmenter.end, 1.0, samples))
        while (pending := segmenter.vad_samples()) is not None:
            segmenter.add_vad(np.ones(len(pending) // VAD_WINDOW, np.float32))
        window = segmenter.due()
        if window is None:
            continue
        seconds = window.end - window.start
        spoken = [Word(text, 0.3 * index, 0.3 * index + 0.28, 0.9) for index, text in enumerate(words)]
        hypothesis = Hypothesis(tuple(word for word in spoken if word.end < seconds), 0.0, -0.1)
        for unit in segmenter.add_hypothesis(window, hypothesis):
            assert isinstance(unit, Words), step
            stable += unit.words[: unit.stable]
    assert all(a.end <= b.end + 0.3 for a, b in itertools.pairwise(stable)), "a stable word came twice"


def feed(segmenter: Segmenter, probability: float, seconds: float) -> list[Speech]:
    """Add silence of whole VAD windows with a speech probability."""
    count = round(seconds / CHUNK_SECONDS)
    samples = np.zeros(count * VAD_WINDOW, np.float32)
    segmenter.add_audio(AudioChunk("s", "main", segmenter.end, 1.0, samples))
    return segmenter.add_vad([probability] * count)


def test_a_short_silence_defers_a_step_until_speech_resumes_or_the_pause() -> None:
    def due_after(*stretches: tuple[float, float]) -> DecodeWindow | None:
        segmenter = Segmenter("s", step=STEP, hangover=0.5)
        for probability, seconds in stretches:
            feed(segmenter, probability, seconds)
        return segmenter.due()

    step = (1.0, STEP + CHUNK_SECONDS)
    silence = (0.0, SHORT_SILENCE + CHUNK_SECONDS)
    spoken = due_after(step)
    assert spoken is not None and not spoken.at_pause
    assert due_after(step, silence) is None
    resumed = due_after(step, silence, (1.0, 2 * CHUNK_SECONDS))
    assert resumed is not None and not resumed.at_pause
    paused = due_after(step, (0.0, PAUSE + CHUNK_SECONDS))
    assert paused is not None and paused.at_pause


def test_a_long_hole_is_reported_and_costs_no_memory() -> None:
    segmenter = Segmenter("s", step=STEP, hangover=0.5)
    segmenter.add_audio(AudioChunk("s", "main", 0.0, 0.0, np.zeros(CHUNK, np.float32)))
    (gap,) = segmenter.add_audio(AudioChunk("s", "main", 7200.0, 7200.0, np.zeros(CHUNK, np.float32)))
    assert isinstance(gap, Gap)
    assert segmenter.end == pytest.approx(7200.0 + CHUNK_SECONDS, abs=0.01)
    samples = segmenter.vad_samples()
    assert samples is not None
    assert len(samples) < 3 * SAMPLE_RATE


def test_an_utterance_ends_after_the_hangover_with_its_tail() -> None:
    segmenter = Segmenter("s", step=STEP, hangover=0.5)
    assert [speech.active for speech in feed(segmenter, 1.0, 0.64)] == [True]
    assert feed(segmenter, 0.0, 0.32) == []
    window = segmenter.due()
    assert window is not None and window.at_pause
    words = (Word("so", 0.0, 0.2, 0.9), Word("far", 0.3, 0.6, 0.9))
    (unit,) = segmenter.add_hypothesis(window, Hypothesis(words, 0.0, -0.1))
    assert isinstance(unit, Words)
    assert (len(unit.words), unit.stable) == (2, 1), "the last word waits"
    assert segmenter.end_utterance() == [], "0.3 s of silence are no hangover"
    feed(segmenter, 0.0, 0.32)
    tail, final, stopped = segmenter.end_utterance()
    assert isinstance(tail, Words) and [word.text for word in tail.words] == ["far"] and tail.stable == 1
    assert isinstance(final, Words) and final.final and final.words == ()
    assert isinstance(stopped, Speech) and not stopped.active and stopped.at == pytest.approx(0.64)


def test_abandoned_audio_is_a_gap_and_ends_the_utterance() -> None:
    segmenter = Segmenter("s", step=STEP, hangover=0.5)
    assert segmenter.abandon("overload") == []
    feed(segmenter, 1.0, 1.28)
    feed(segmenter, 0.0, 0.32)
    gap, stopped = segmenter.abandon("overload")
    assert isinstance(gap, Gap) and (gap.start, gap.end, gap.reason) == (0.0, 1.6, "overload")
    assert isinstance(stopped, Speech) and not stopped.active
    assert segmenter.due(closing=True) is None


def hypothesis(*words: tuple[str, float, float], rejected: bool = False) -> Hypothesis:
    """Words with their times in seconds from the start of the window."""
    return Hypothesis(
        tuple(Word(text, start, end, 0.9) for text, start, end in words), 0.0, -0.1, rejected=rejected
    )


def stable_of(units: Sequence[Words | Speech | Gap]) -> str:
    """The stable words of units."""
    return " ".join(
        word.text for unit in units if isinstance(unit, Words) for word in unit.words[: unit.stable]
    )


def test_a_hypothesis_that_ends_early_takes_no_words_back_and_its_rest_is_decoded_alone() -> None:
    segmenter = Segmenter("s", step=STEP, hangover=0.5)
    feed(segmenter, 1.0, 3.2)
    window = segmenter.due()
    assert window is not None
    said = ("in", 0.4, 0.8), ("his", 0.9, 1.2), ("power", 1.3, 1.8), ("to", 1.9, 2.2), ("do", 2.3, 2.6)
    units: list[Words | Speech | Gap] = [*segmenter.add_hypothesis(window, hypothesis(*said))]
    feed(segmenter, 0.0, 0.32)
    window = segmenter.due()
    assert window is not None and window.at_pause
    units += segmenter.add_hypothesis(window, hypothesis(*said[:2]))
    rest = segmenter.due()
    assert rest is not None and rest.at_pause
    assert window.start < rest.start < 1.3, "from the last word of the hypothesis on"
    units += segmenter.add_hypothesis(rest, hypothesis())
    assert segmenter.due() is None, "decoded once more, not for ever"
    feed(segmenter, 0.0, 0.32)
    units += segmenter.end_utterance()
    assert stable_of(units) == "In his power to do"


def test_repeated_speech_is_decoded_between_silences_without_context_or_prompt() -> None:
    segmenter = Segmenter("s", step=STEP, hangover=0.5)
    for _ in range(3):
        feed(segmenter, 1.0, 1.28)
        feed(segmenter, 0.0, 0.16)
    feed(segmenter, 1.0, 0.64)
    window = segmenter.due()
    assert window is not None

    def said(window: DecodeWindow) -> Hypothesis:
        """A phrase in each stretch of speech in the window."""
        starts = [1.44 * number - window.start for number in range(4)]
        return hypothesis(
            *(
                (text, start + at, start + at + 0.4)
                for start in starts
                if -0.1 <= start < window.end - window.start - 0.5
                for text, at in (("Yes,", 0.1), ("please.", 0.6))
            )
        )

    assert segmenter.add_hypothesis(window, said(window)) == [], "decoded again in pieces"
    pieces: list[DecodeWindow] = []
    units: list[Words | Gap] = []
    while (piece := segmenter.due(closing=True)) is not None:
        assert len(pieces) < 9
        pieces.append(piece)
        units += segmenter.add_hypothesis(piece, said(piece))
    assert len(pieces) == 2
    assert all(piece.prompt == "" for piece in pieces)
    assert all(after.start >= before.end - 0.01 for before, after in itertools.pairwise(pieces))
    assert pieces[0].end - pieces[0].start <= 4.5
    assert stable_of(units) == " ".join(["Yes, please."] * 4), "equal words are no overlap"


def test_speech_that_the_engine_rejects_is_reported_as_a_gap() -> None:
    segmenter = Segmenter("s", step=STEP, hangover=0.5)
    for _ in range(2):
        feed(segmenter, 1.0, 1.28)
        feed(segmenter, 0.0, 0.16)
    feed(segmenter, 0.0, 0.32)
    gaps: list[Gap] = []
    for _ in range(9):
        window = segmenter.due()
        if window is None:
            break
        for unit in segmenter.add_hypothesis(window, hypothesis(rejected=True)):
            assert isinstance(unit, Gap)
            gaps.append(unit)
    assert segmenter.due() is None
    assert {gap.reason for gap in gaps} == {"unrecognised"}
    lost = sum(gap.end - gap.start for gap in gaps)
    assert lost == pytest.approx(2 * 1.28, abs=0.6), "all of the speech, and little else"
