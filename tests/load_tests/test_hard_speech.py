"""Ends of utterances, level of the noise, and the words that VAD missed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from load_tests.hard_speech import (
    FADE,
    FRAME,
    PAUSES,
    Utterance,
    attenuated,
    compare,
    cut,
    latencies,
    levels,
    measure_ends,
    measure_silence,
    speech_frames,
    speech_spans,
    spliced,
    utterances,
    with_noise,
)
from streamsvc.core.config import Hear
from streamsvc.core.types import SAMPLE_RATE, Speech, Word, Words
from streamsvc.evaluation.recordings import Truth
from streamsvc.evaluation.transcriber_run import TranscriberRun, play
from tests.fakes import hear_engine
from tests.fakes.hear_engine import hear_role

TONE = (0.2 * np.sin(np.arange(SAMPLE_RATE) * 0.3)).astype(np.float32)  # a second of "speech"
SETTINGS = Hear(model="script.en")
ROOM = np.random.default_rng(1).normal(0.0, 0.0005, SAMPLE_RATE).astype(np.float32)


def words(
    at: float, *texts: str, stable: int = 0, final: bool = False, start: float = 0.0
) -> tuple[float, Words]:
    return at, Words(
        "s",
        "main",
        at,
        at,
        tuple(Word(text, start + n, start + n + 0.5) for n, text in enumerate(texts)),
        stable,
        final,
    )


def speech(at: float, active: bool) -> tuple[float, Speech]:
    return at, Speech("s", "main", at, at, active)


def test_an_utterance_ends_with_its_last_loud_frame_and_nothing_sounds_behind_the_fade() -> None:
    kept, end = cut(np.concatenate([ROOM, TONE, ROOM]))
    assert end == pytest.approx(1.0 + 5 * FRAME / SAMPLE_RATE, abs=0.011)  # from 50 ms before its first frame
    assert len(kept) == round((end + FADE) * SAMPLE_RATE)
    assert abs(kept[-1]) < 1e-6


def test_spliced_utterances_stand_where_they_are_said_to_be_with_zeros_between() -> None:
    clip, found = spliced([("a", TONE, ["one"]), ("b", np.concatenate([ROOM, TONE]), ["two"])])
    assert [each.source for each in found] == ["a", "b"]
    for each, after in zip(found, PAUSES, strict=False):
        loud, silent = (
            clip[int((each.end - 0.05) * SAMPLE_RATE) : int(each.end * SAMPLE_RATE)],
            round((each.end + FADE) * SAMPLE_RATE),
        )
        assert np.abs(loud).max() > 0.1
        assert not clip[silent : silent + int(after * SAMPLE_RATE)].any()


def test_latencies_are_those_of_the_last_word_from_the_end_of_the_utterance() -> None:
    of = [
        Utterance("a", 1.0, 3.0, ("good", "day")),
        Utterance("a", 5.0, 6.0, ("no",)),
        Utterance("a", 9.0, 10.0, ("gone",)),
    ]
    heard = TranscriberRun(
        [
            words(2.5, "Good", stable=1, start=1.0),
            words(3.4, "day.", stable=1, start=2.5),
            words(3.7, final=True),
            words(6.3, "now", stable=1, start=5.2),
        ]
    )
    first, second, third = latencies(heard, of)
    assert [first.committed, first.final, second.committed] == pytest.approx([0.4, 0.7, 0.3])
    assert (second.final, third.committed, third.final) == (None, None, None)
    assert [each.right for each in (first, second, third)] == [True, False, False]


def test_quiet_speech_is_twenty_decibels_below_and_rounded_to_sixteen_bits() -> None:
    quiet = attenuated(TONE)
    assert np.median(levels(TONE) - levels(quiet)) == pytest.approx(20.0, abs=0.1)
    assert np.array_equal(quiet * 32768, np.round(quiet * 32768))


def test_noise_is_five_decibels_below_the_speech_whatever_the_silence_and_reproducible() -> None:
    for silence in (0, 1, 9):
        talk = np.concatenate([TONE, np.zeros(silence * SAMPLE_RATE, np.float32)])
        noise = with_noise(talk) - talk
        assert 10 * np.log10((TONE**2).mean() / (noise**2).mean()) == pytest.approx(5.0, abs=0.1)
        assert np.array_equal(with_noise(talk), with_noise(talk))
    assert speech_frames(talk).sum() == 100


def test_missed_words_are_unheard_only_outside_of_vad_speech() -> None:
    truth = Truth(("one", "two", "three", "four"), (1.0, 2.0, 5.0, 9.0))
    heard = TranscriberRun(
        [speech(0.5, True), words(1.5, "one", stable=1), speech(2.5, False), speech(8.5, True)]
    )
    result = compare("x", "name", truth, heard, ["one", "two", "three", "three", "four"])
    assert result.unheard == (5.0,)
    assert result.fewer == (3, -1)
    assert (int(result.ours.sum()), int(result.theirs.sum())) == (3, 1)
    assert speech_spans(heard) == [(0.5, 2.5), (8.5, float("inf"))]
    assert compare("x", "name", Truth(("one",)), heard, []).unheard is None


def manifest(folder: Path, *entries: dict[str, Any]) -> Path:
    (folder / "manifest.json").write_text(json.dumps({"files": list(entries)}), encoding="utf-8")
    return folder


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder of media: a sentence, two prompts in one file, silence, and one in another language."""
    (tmp_path / "speech").mkdir()
    (tmp_path / "non_speech").mkdir()
    hear_engine.written(tmp_path / "speech" / "a_one.wav", hear_engine.spoken(3, 0.2))
    hear_engine.written(
        tmp_path / "speech" / "ivr.wav",
        np.concatenate([hear_engine.spoken(4, 1.0), hear_engine.spoken(5, 1.0)]),
    )
    hear_engine.written(tmp_path / "non_speech" / "nothing.wav", np.zeros(SAMPLE_RATE, np.float32))
    hear_engine.written(tmp_path / "non_speech" / "voices.wav", hear_engine.spoken(2, 1.0))
    parts = [
        {"start": 0.0, "end": 2.0, "text": "w1 w2 w3 w4"},
        {"start": 2.2, "end": 4.8, "text": "w1 w2 w3 w4 w5"},
    ]
    return manifest(
        tmp_path,
        {"path": "speech/a_one.wav", "language": "en", "transcript": "w1 w2 w3", "duration_s": 1.2},
        {
            "path": "speech/ivr.wav",
            "language": "en",
            "transcript": "",
            "times_from": "exact",
            "segments": parts,
            "duration_s": 5.0,
        },
        {"path": "speech/b_two.wav", "language": "de", "transcript": "w1", "duration_s": 1.0},
        {"path": "non_speech/nothing.wav", "language": None, "duration_s": 1.0},
        {"path": "non_speech/voices.wav", "language": None, "duration_s": 1.6},
    )


def test_single_sentences_and_each_prompt_are_utterances(shelf: Path) -> None:
    assert [(source, said) for source, _, said in utterances(shelf)] == [
        ("a", ["w1", "w2", "w3"]),
        ("ivr", ["w1", "w2", "w3", "w4"]),
        ("ivr", ["w1", "w2", "w3", "w4", "w5"]),
    ]


def test_the_tables_have_latencies_and_captions_outside_of_speech(
    virtual: asyncio.Runner, shelf: Path
) -> None:
    role = hear_role()
    ends, every = measure_ends(lambda samples: virtual.run(play(samples, role, SETTINGS)), shelf)
    assert "3 of 3" in ends.splitlines()[-1]
    assert all(0.0 < committed <= final < 1.0 for _, _, committed, final, _ in every)
    silence, found = measure_silence(lambda samples: virtual.run(play(samples, role, SETTINGS)), shelf)
    assert [(Path(path).stem, finals, committed) for path, _, finals, committed, _, _ in found] == [
        ("nothing", 0, 0),
        ("voices", 1, 2),
    ]
    assert silence.splitlines()[-1].split("|")[3].strip() == "1"
