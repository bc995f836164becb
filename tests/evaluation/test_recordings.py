"""Recordings are decoded to mono samples; their transcript is read from a truth or a manifest."""

from __future__ import annotations

import json
import wave
from pathlib import Path

import numpy as np
import pytest

from streamsvc.core.errors import ConfigError
from streamsvc.core.types import SAMPLE_RATE
from streamsvc.evaluation.recordings import Truth, read, truth_of
from tests.builders.clips import clip
from tests.fakes.hear_engine import spoken, written


def test_sixteen_bit_mono_comes_through_unchanged(tmp_path: Path) -> None:
    samples = spoken(3, 0.5)
    assert np.allclose(read(written(tmp_path / "a.wav", samples)), samples, atol=1 / 32768)


def test_channels_are_averaged_not_added(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.tile(np.array([20000, 10000], "<i2"), SAMPLE_RATE).tobytes())
    samples = read(tmp_path / "stereo.wav")
    assert samples.shape == (SAMPLE_RATE,)
    assert np.allclose(samples, 15000 / 32768, atol=1e-4)


def test_a_channel_of_opposite_polarity_is_not_cancelled(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes((np.stack([tone, -tone], axis=1) * 32767).astype("<i2").tobytes())
    assert np.abs(read(tmp_path / "stereo.wav")).max() == pytest.approx(0.5, abs=0.01)


def test_only_the_first_seconds_are_read_on_request(tmp_path: Path) -> None:
    path = clip(tmp_path / "tone.mp4", seconds=2.0)
    assert len(read(path, 0.5)) == SAMPLE_RATE // 2
    assert len(read(path)) == pytest.approx(2 * SAMPLE_RATE, rel=0.05)


def test_a_file_that_cannot_be_measured_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.wav").write_bytes(b"RIFF nonsense")
    with pytest.raises(ConfigError, match=r"broken\.wav cannot be read"):
        read(tmp_path / "broken.wav")
    with pytest.raises(ConfigError, match=r"absent\.wav cannot be read"):
        read(tmp_path / "absent.wav")
    with pytest.raises(ConfigError, match=r"silent\.mp4 has no sound"):
        read(clip(tmp_path / "silent.mp4", audio=None))


@pytest.mark.parametrize(
    "other",
    [
        '{"name": "a page", "icons": []}',
        '{"files": {"main.js": "x"}}',
        '{"files": ["a.wav"]}',
        "[]",
        "no JSON",
    ],
)
def test_a_manifest_of_another_purpose_is_ignored(tmp_path: Path, other: str) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "manifest.json").write_text(other)
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": [{"path": "deep/a.wav", "transcript": "Yes."}]})
    )
    assert truth_of(tmp_path / "deep" / "a.wav") == Truth(("yes",))


def test_an_entry_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": [{"path": "a.wav", "words": [{"w": "yes"}]}]})
    )
    with pytest.raises(ConfigError, match=r"manifest\.json: the entry of a\.wav"):
        truth_of(tmp_path / "a.wav")


def test_the_nearest_manifest_that_knows_the_recording_tells_its_words(tmp_path: Path) -> None:
    folder = tmp_path / "speech" / "deep"
    folder.mkdir(parents=True)
    known = {
        "path": "speech/deep/a.wav",
        "transcript": "Mr. A",
        "words": [{"w": "Mr.", "end": 0.5}, {"w": "A-B", "end": 0.9}],
    }
    bare = {"path": "speech/deep/b.wav", "transcript": "Just text."}
    quiet = {"path": "speech/deep/c.wav", "transcript": ""}
    unknown = {"path": "speech/deep/d.wav", "transcript": None}
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [known, bare, quiet, unknown]}))
    (tmp_path / "speech" / "manifest.json").write_text(
        json.dumps({"files": [{"path": "deep/b.wav", "transcript": "Nearer text."}]})
    )
    assert truth_of(folder / "a.wav") == Truth(("mister", "a", "b"), (0.5, 0.9, 0.9))
    assert truth_of(folder / "b.wav") == Truth(("nearer", "text"))
    assert truth_of(folder / "c.wav") == Truth(())
    assert truth_of(folder / "d.wav") is None
    assert truth_of(folder / "e.wav") is None


@pytest.mark.parametrize(
    ("name", "content", "result"),
    [
        ("a.txt", "One, two.", Truth(("one", "two"))),
        ("a.json", '{"transcript": "One two"}', Truth(("one", "two"))),
        ("a.json", '{"words": [{"w": "One", "start": 0, "end": 0.4}]}', Truth(("one",), (0.4,))),
        ("a.json", '{"truth": ["one", "two"], "end": [0.4, 0.8]}', Truth(("one", "two"), (0.4, 0.8))),
    ],
)
def test_a_given_truth_overrides_the_manifest(tmp_path: Path, name: str, content: str, result: Truth) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"files": [{"path": "a.wav", "transcript": "other"}]}))
    (tmp_path / name).write_text(content)
    assert truth_of(tmp_path / "a.wav", tmp_path / name) == result


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"files": []}', '{"words": [{"end": 1}]}', '{"truth": ["a"]}']
)
def test_a_truth_that_cannot_be_read_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(ConfigError, match=r"--truth .*x\.json"):
        truth_of(tmp_path / "a.wav", tmp_path / "x.json")


def test_a_truth_is_cut_where_its_words_end() -> None:
    assert Truth(("a", "b", "c"), (0.4, 0.8, 1.2)).until(1.0) == Truth(("a", "b"), (0.4, 0.8))
    assert Truth(("a", "b")).until(1.0) == Truth(("a", "b"))
