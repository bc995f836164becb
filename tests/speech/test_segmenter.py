"""The decisions of transcription, without worker or clock."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsvc.core.config import Hear
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Word, Words
from streamsvc.speech.segmenter import LULL, PAUSE, VAD_WINDOW, Ask, Transcriber

SETTINGS = Hear(model="whisper-tiny.en", step=0.5, hangover=0.5)
CHUNK = VAD_WINDOW  # samples
CHUNK_SECONDS = CHUNK / SAMPLE_RATE

texts = st.lists(st.sampled_from(["the", "stone", "cutter", "went", "home", "so", "far"]), max_size=12)


def laid(words: Sequence[str], start: float = 0.0) -> list[Word]:
    return [Word(text, start + 0.3 * place, start + 0.3 * place + 0.28) for place, text in enumerate(words)]


@given(st.lists(texts, min_size=1, max_size=12))
def test_stable_words_are_never_revised_nor_repeated(hypotheses: list[list[str]]) -> None:
    core = Transcriber(SETTINGS, session="s")
    shown: list[Word] = []
    for place, words in enumerate(hypotheses):
        for start in range(0, SAMPLE_RATE // 2, CHUNK):
            core.feed(
                AudioChunk(
                    "s", "main", core.end, 1.0, np.ones(min(CHUNK, SAMPLE_RATE // 2 - start), np.float32)
                )
            )
        while (samples := core.unjudged()) is not None:
            core.judged(np.ones(len(samples) // VAD_WINDOW, np.float32))
        ask = core.due()
        if ask is None:
            continue
        raw = [
            [w.text, w.start, min(w.end, ask.end - ask.start), 0.9]
            for w in laid(words)
            if w.end < ask.end - ask.start
        ]
        for unit in core.heard(ask, {"words": raw, "no_speech": 0.0, "log_probability": -0.1}, {}):
            assert isinstance(unit, Words), place
            shown += unit.words[: unit.stable]
    assert all(a.end <= b.end + 0.3 for a, b in itertools.pairwise(shown)), "a stable word came twice"


def test_a_step_waits_in_a_lull_for_what_follows_or_for_the_pause() -> None:
    def after(*stretches: tuple[float, float]) -> Ask | None:
        core = Transcriber(SETTINGS, session="s")
        for probability, windows in stretches:
            count = round(windows)
            core.feed(AudioChunk("s", "main", core.end, 1.0, np.zeros(count * VAD_WINDOW, np.float32)))
            core.judged([probability] * count)
        return core.due()

    step, lull = SETTINGS.step / CHUNK_SECONDS + 1, LULL / CHUNK_SECONDS + 1
    spoken = after((1.0, step))
    assert spoken is not None and not spoken.settle
    assert after((1.0, step), (0.0, lull)) is None
    resumed = after((1.0, step), (0.0, lull), (1.0, 2))
    assert resumed is not None and not resumed.settle
    paused = after((1.0, step), (0.0, PAUSE / CHUNK_SECONDS + 1))
    assert paused is not None and paused.settle


def test_a_long_hole_ends_the_utterance_and_costs_no_memory() -> None:
    core = Transcriber(SETTINGS, session="s")
    core.feed(AudioChunk("s", "main", 0.0, 0.0, np.zeros(CHUNK, np.float32)))
    (gap,) = core.feed(AudioChunk("s", "main", 7200.0, 7200.0, np.zeros(CHUNK, np.float32)))
    assert isinstance(gap, Gap)
    assert core.end == pytest.approx(7200.0 + CHUNK_SECONDS, abs=0.01)
    samples = core.unjudged()
    assert samples is not None
    assert len(samples) < 3 * SAMPLE_RATE
