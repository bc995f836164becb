"""Words that are tones are recognised by their frequency, also after Opus and beside silence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from load_tests import tone_engine
from load_tests.tone_engine import WORD, recognised, script, write
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import read


def test_a_script_never_says_a_word_twice_in_a_row_and_is_the_same_for_a_seed() -> None:
    words = [word for word, _, _ in script(60.0)]
    assert all(one != two for one, two in pairwise(words))
    assert script(60.0) == script(60.0) != script(60.0, seed=2)


def test_what_is_written_is_recognised_with_its_times(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", 20.0)
    found, spoken = recognised(read(path)), script(20.0)
    assert [word for word, _, _ in found] == [word for word, _, _ in spoken]
    assert [end for _, _, end in found] == pytest.approx([end for _, _, end in spoken], abs=0.02)


def test_a_lost_packet_within_a_word_does_not_make_two_of_it(tmp_path: Path) -> None:
    sound = read(write(tmp_path / "a.wav", 5.0))
    spoken = script(5.0)
    middle = round((spoken[1][1] + WORD / 2) * SAMPLE_RATE)
    sound[middle : middle + 320] = 0.0
    assert [word for word, _, _ in recognised(sound)] == [word for word, _, _ in spoken]


def test_a_whistle_above_all_words_is_speech_without_a_word() -> None:
    at = np.arange(16 * 512) / SAMPLE_RATE
    whistle = {"samples": (0.3 * np.sin(2 * np.pi * 7000 * at)).astype(np.float32), "language": "en"}
    engine = tone_engine.load({})
    assert engine.ops["transcribe"].run([whistle])[0]["words"] == []  # type: ignore[arg-type,index]
    assert engine.ops["vad"].run([whistle])[0]["probability"].all()  # type: ignore[arg-type,index]


def test_silence_is_no_speech_and_no_word() -> None:
    engine = tone_engine.load({})
    silence = {"samples": np.zeros(5120, np.float32), "language": "en"}
    heard = engine.ops["transcribe"].run([silence])  # type: ignore[arg-type]
    assert heard[0]["words"] == []  # type: ignore[index]
    voice = engine.ops["vad"].run([silence])  # type: ignore[arg-type]
    assert not voice[0]["probability"].any()  # type: ignore[index]
    assert set(engine.ops) >= {"vad", "transcribe", "detect_language", "look", "read", "texts", "rank"}
