"""Word ends come from the truth, or from an offline decode by the same model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import Clip, Truth
from streamsvc.evaluation.score_captions import Reference
from streamsvc.evaluation.word_ends import WINDOW, reference_of
from tests.fakes.hear_engine import ends, hear_role, spoken

TWELVE = tuple(f"w{number}" for number in range(1, 13))


def clip_of(truth: Truth | None, words: int = 12, *, cut: bool = False) -> Clip:
    return Clip(Path("talk.wav"), spoken(words, 1.5), truth, cut)


async def test_word_ends_of_the_truth_need_no_decode() -> None:
    role = hear_role()
    result = await reference_of(clip_of(Truth(("a", "b"), (0.5, 1.0))), role, "en")
    assert result == (Reference(("a", "b"), (0.5, 1.0)), "truth")
    assert await reference_of(clip_of(Truth(())), role, "en") == (Reference((), ()), "truth")
    assert role.calls == []


async def test_a_truth_without_times_gets_them_from_a_decode_and_missed_words_are_interpolated() -> None:
    words = (*TWELVE[:5], "unheard", *TWELVE[6:])
    reference, where = await reference_of(clip_of(Truth(words)), hear_role(), "en")
    assert (reference.words, reference.true, where) == (words, True, "decode")
    assert reference.ends == pytest.approx(ends(12), abs=0.002)


async def test_without_a_truth_the_decode_is_the_reference_and_says_so() -> None:
    role = hear_role()
    reference, where = await reference_of(clip_of(None), role, None)
    assert (reference.words, reference.true, where) == (TWELVE, False, "decode")
    assert [call.op for call in role.calls] == ["detect_language", "transcribe"]
    assert role.calls[1].payload["language"] == "de"


async def test_a_long_recording_is_decoded_in_windows_that_the_engine_takes() -> None:
    role = hear_role()
    samples = np.concatenate([spoken(12, 0.7)] * 12)  # a cut inside a word would give it twice
    reference, _ = await reference_of(Clip(Path("long.wav"), samples, None), role, "en")
    assert reference.words == 12 * TWELVE
    assert reference.ends[-1] == pytest.approx(len(samples) / SAMPLE_RATE - 0.7, abs=0.05)
    lengths = [len(call.payload["samples"]) / SAMPLE_RATE for call in role.calls]
    assert max(lengths) <= WINDOW
    assert sum(lengths) == pytest.approx(len(samples) / SAMPLE_RATE)


async def test_a_truth_without_times_ends_where_the_recording_was_cut() -> None:
    longer = Truth((*TWELVE, "and", "again", *TWELVE, "that", "was", "never", "played"))
    reference, _ = await reference_of(clip_of(longer, cut=True), hear_role(), "en")
    assert reference.words == TWELVE


async def test_a_truth_of_which_nothing_was_heard_keeps_its_words() -> None:
    reference, _ = await reference_of(clip_of(Truth(("nothing", "alike"))), hear_role(), "en")
    assert (reference.words, len(reference.ends)) == (("nothing", "alike"), 2)
