from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from streamsvc.ingest.downmix import Downmixer, planar

RATE = 16_000
STEREO = ("FL", "FR")
Samples = np.ndarray[Any, np.dtype[np.float32]]


def voice(seconds: float, seed: int = 0) -> Samples:
    """Noise of the loudness of speech, in syllables."""
    noise = np.random.default_rng(seed).normal(0, 0.1, round(seconds * RATE))
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * np.arange(len(noise)) / RATE)
    return (noise * syllables).astype(np.float32)


def mixed(*channels: Samples, names: tuple[str, ...] = STEREO, pieces: int = 7) -> Samples:
    mixer = Downmixer(names, RATE)
    return np.concatenate([mixer.mix(piece) for piece in np.array_split(np.stack(channels), pieces, axis=1)])


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))


@pytest.mark.parametrize("left", [1.0, -1.0, 0.4, -0.4, 0.0])
@pytest.mark.parametrize("right", [1.0, 0.4])
def test_a_voice_keeps_its_level_whatever_polarity_and_level_the_channels_give_it(
    left: float, right: float
) -> None:
    said = voice(1.0)
    out = mixed(said * np.float32(left), said * np.float32(right))
    assert rms(out) == pytest.approx(max(abs(left), right) * rms(said), rel=0.02)
    assert abs(np.corrcoef(out, said)[0, 1]) > 0.999


def test_channels_in_phase_are_averaged_and_what_they_do_not_share_stays() -> None:
    said, other = voice(1.0), voice(1.0, seed=1)
    assert np.allclose(mixed(said, said), said, atol=1e-6)
    both = mixed(said, other)
    assert np.corrcoef(both, said)[0, 1] > 0.6
    assert np.corrcoef(both, other)[0, 1] > 0.6


def test_polarity_is_found_within_the_first_block_and_follows_a_change() -> None:
    said = voice(2.0)
    quiet = np.random.default_rng(2).normal(0, 1e-4, (2, RATE)).astype(np.float32)  # noise tells nothing
    right = np.concatenate([said, -said])
    left = np.concatenate([said, said])
    out = mixed(np.concatenate([quiet[0], left]), np.concatenate([quiet[1], right]), pieces=100)
    whole = np.concatenate([said, said])
    out = out[RATE:]
    levels = [rms(out[at : at + 800]) / rms(whole[at : at + 800]) for at in range(0, len(out), 800)]
    assert min(levels[:40]) > 0.95, "from the first block on"
    assert min(levels[46:]) > 0.95, "0.3 s after the change"


def test_a_sound_that_starts_inverted_after_silence_loses_nothing() -> None:
    said = voice(0.2)
    silence = np.zeros(RATE, np.float32)
    out = mixed(np.concatenate([silence, said]), np.concatenate([silence, -said]), pieces=60)[RATE:]
    assert rms(out[:320]) > 0.9 * rms(said[:320])


def test_a_party_that_begins_on_its_own_channel_is_heard_at_once_and_nothing_clips() -> None:
    caller, agent = voice(2.0), voice(2.0, seed=1)
    agent[:RATE] = 0
    out = mixed(caller, agent, pieces=100)
    assert rms(out[:RATE]) == pytest.approx(rms(caller[:RATE]), rel=0.01), "alone: at its own level"
    assert np.corrcoef(out[RATE : RATE + 3200], agent[RATE : RATE + 3200])[0, 1] > 0.6
    loud = np.ones(RATE, np.float32) * np.where(np.arange(RATE) % 40 < 20, 1, -1).astype(np.float32)
    late = np.concatenate([np.zeros(RATE // 2, np.float32), loud[RATE // 2 :]])
    assert np.abs(mixed(loud, late)).max() <= 1.0


def test_of_a_surround_layout_the_effects_are_left_out_and_the_centre_leads() -> None:
    names = ("FL", "FR", "FC", "LFE", "BL", "BR")
    said, rumble = voice(1.0), voice(1.0, seed=1)
    silent = np.zeros_like(said)
    out = mixed(silent, silent, said, rumble * 3, silent, silent, names=names)
    assert rms(out) == pytest.approx(rms(said), rel=0.02)
    assert np.corrcoef(out, said)[0, 1] > 0.99
    against = mixed(-said * np.float32(0.7), -said * np.float32(0.7), said, silent, said, said, names=names)
    assert rms(against) == pytest.approx(rms(said), rel=0.02)


def test_channels_without_names_count_alike_and_short_or_silent_pieces_are_fine() -> None:
    said = voice(0.5)
    assert rms(mixed(said, -said, said, -said, names=("NONE",) * 4)) == pytest.approx(rms(said), rel=0.02)
    assert not mixed(np.zeros(100, np.float32), np.zeros(100, np.float32)).any()
    assert mixed(said[:3], said[:3]).shape == (3,)
    assert Downmixer(STEREO, RATE).mix(np.zeros((2, 0), np.float32)).shape == (0,)
    assert np.allclose(mixed(said, said * 0, names=("LFE", "LFE2")), said), "effects alone are all there is"


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[16384, -32768, 0, 8192]], np.int16), [[0.5, 0.0], [-1.0, 0.25]]),
        (np.array([[16384, 0], [-32768, 8192]], np.int16), [[0.5, 0.0], [-1.0, 0.25]]),
        (np.array([[192, 0, 128, 160]], np.uint8), [[0.5, 0.0], [-1.0, 0.25]]),
        (np.array([[1 << 30, -(1 << 31), 0, 1 << 29]], np.int32), [[0.5, 0.0], [-1.0, 0.25]]),
        (np.array([[0.5, 0.0], [-1.0, 0.25]], np.float64), [[0.5, 0.0], [-1.0, 0.25]]),
    ],
)
def test_every_sample_format_becomes_planar_floats(samples: Any, expected: list[list[float]]) -> None:
    piece = SimpleNamespace(to_ndarray=lambda: samples, layout=SimpleNamespace(channels=(1, 2)))
    assert planar(piece).dtype == np.float32
    assert planar(piece).tolist() == expected
