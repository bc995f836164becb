"""Broken models and unusable devices are named; real weights transcribe real speech."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ctranslate2
import numpy as np
import pytest
import tokenizers

from engines import Engine, Op, asr
from engines.audio import RATE
from streamsvc.core.config import Models
from streamsvc.core.errors import ModelMissing
from streamsvc.evaluation.recordings import read
from streamsvc.evaluation.score_captions import errors, norm

CANARY = Path(__file__).resolve().parents[1] / "fixtures" / "canary.ogg"


def test_a_missing_model_is_named_with_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"toy lacks model\.bin: run `streamsvc models pull toy`"):
        asr.load({"models": tmp_path, "model": "toy"})


@pytest.mark.parametrize("size", [4096, 75_537_502])
def test_weights_that_are_not_the_registry_s_are_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(asr, "load_whisper", lambda *_: pytest.fail("loaded"))
    weights = tmp_path / "whisper-tiny.en" / "model.bin"
    weights.parent.mkdir()
    weights.touch()
    os.truncate(weights, size)  # zeros
    with pytest.raises(ModelMissing, match=r"model\.bin: broken .*`streamsvc models pull whisper-tiny\.en`"):
        asr.load({"models": tmp_path})


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    for name in asr.FILES:
        (tmp_path / "toy" / name).write_bytes(b"{}")
    with pytest.raises(ModelMissing, match="toy is broken"):
        asr.load({"models": tmp_path, "model": "toy"})


@pytest.mark.parametrize(
    "lacks", ["a driver", "a library"]
)  # CTranslate2 needs the driver to load and the library at the first use
def test_an_unusable_gpu_is_not_reported_as_a_broken_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    class NoGpu:
        def __init__(self, folder: str, **options: Any) -> None:
            assert (options["device"], options["compute_type"]) == ("cuda", "float16")
            if lacks == "a driver":
                raise RuntimeError(f"no {lacks}")

        def encode(self, features: Any) -> Any:
            raise RuntimeError(f"no {lacks}")

    monkeypatch.setattr(ctranslate2.models, "Whisper", NoGpu)
    monkeypatch.setattr(tokenizers, "Tokenizer", SimpleNamespace(from_file=lambda path: None))
    (tmp_path / "toy").mkdir()
    for name in asr.FILES:
        (tmp_path / "toy" / name).write_bytes(b"{}")
    with pytest.raises(ModelMissing, match=f"toy cannot run on cuda: no {lacks}") as failure:
        asr.load({"models": tmp_path, "model": "toy", "device": "cuda"})
    assert failure.value.code == "no_gpu"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return asr.load({"models": Models().dir / "models", "model": "whisper-tiny.en", "workers": 1})


def call(engine: Engine, op: str, **payload: Any) -> Any:
    entry = engine.ops[op]
    assert isinstance(entry, Op)
    return entry.run([payload])[0]


@pytest.mark.models
@pytest.mark.media
def test_real_speech_has_words_with_times_in_order(media: Path, engine: Engine) -> None:
    result = call(engine, "transcribe", samples=read(media / "speech" / "jfk_inaugural_excerpt.flac"))
    assert "what your country can do for you" in result["text"]
    words = result["words"]
    assert all(0 <= start <= end <= 11.0 and 0 <= probability <= 1 for _, start, end, probability in words)
    assert [word[1] for word in words] == sorted(word[1] for word in words)
    assert call(engine, "detect_language", samples=np.zeros(RATE, np.float32)) == {
        "language": "en",
        "probability": 1.0,
    }


@pytest.mark.models
@pytest.mark.media
def test_precomputed_padding_gives_the_same_words(media: Path, engine: Engine) -> None:
    samples = read(media / "speech" / "harvard.flac")
    whole: list[str] = []
    quick: list[str] = []
    for start in range(0, 15 * RATE, 3 * RATE):
        asked = {"samples": samples[start : start + 3 * RATE]}
        for words, more in ((whole, {}), (quick, {"quick": True})):
            words += norm(call(engine, "transcribe", **asked, **more)["text"])
    assert len(whole) > 30
    assert errors(whole, quick).sum() <= len(whole) // 10


@pytest.mark.models
@pytest.mark.parametrize(
    "terms",
    [
        ["Okafor", "pannikin", "Kubernetes", "superlative", "keypad", "wasp"],
        ["kravestones", "nountain", "gustomers", "stonegutter", "sone-cutter", "slaps", "houzes"],
    ],
    ids=["of another subject", "that sound alike"],
)
def test_terms_of_the_screen_that_nobody_says_do_not_come_into_real_speech(
    engine: Engine, terms: list[str]
) -> None:
    samples = read(CANARY)
    plain = call(engine, "transcribe", samples=samples, beam=3)
    beside = call(engine, "transcribe", samples=samples, beam=3, screen_terms=terms)
    assert len(plain["words"]) > 20
    assert norm(beside["text"]) == norm(plain["text"])


@pytest.mark.models
def test_terms_of_the_screen_make_no_words_of_noise(engine: Engine) -> None:
    noise = 0.05 * np.random.default_rng(7).standard_normal(4 * RATE)
    asked = {"samples": noise.astype(np.float32), "beam": 3}
    plain = call(engine, "transcribe", **asked)
    beside = call(engine, "transcribe", **asked, screen_terms=["Okafor", "pannikin", "Kubernetes"])
    assert (beside["text"], beside["no_speech"]) == (plain["text"], plain["no_speech"])
