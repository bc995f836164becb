"""The speech engine: loops are refused, broken models are named, real weights hear real speech."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ctranslate2
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from engines import Engine, Op, asr
from streamsvc.core.config import Models
from streamsvc.core.errors import InvalidRequest, ModelMissing
from streamsvc.evaluation.recordings import read
from streamsvc.evaluation.score_captions import errors, norm

SECOND = np.zeros(asr.RATE, np.float32)
END = 50
NAMES = {
    "<|startoftranscript|>": 60,
    "<|notimestamps|>": 61,
    "<|endoftext|>": END,
    "<|startofprev|>": 62,
    "<|en|>": 63,
    "<|transcribe|>": 64,
    "<|de|>": 65,
    "<|translate|>": 66,
    "<|ja|>": 67,
}


class Letters:
    """A tokenizer of 26 one-letter words."""

    def decode(self, ids: list[int]) -> str:
        return "".join(f" {chr(97 + i)}" for i in ids)

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        return SimpleNamespace(ids=[ord(letter) - 97 for letter in text if letter.isalpha()])

    def token_to_id(self, name: str) -> int | None:
        return NAMES.get(name)

    def id_to_token(self, token: int) -> str:
        return f"Ġ{chr(97 + token)}"


class Loops:
    """A model that loops whenever the encoder's window is shortened; `always`: even when it is not."""

    def __init__(self, said: list[int], loop: list[int], *, always: bool = False) -> None:
        self.said, self.loop, self.always = said, loop, always
        self.frames: list[int] = []
        self.prompts: list[list[int]] = []

    def encode(self, features: Any) -> int:
        self.frames.append(features.shape[2])
        return int(features.shape[2])

    def generate(self, encoded: int, prompts: list[list[int]], *, max_length: int, **_: Any) -> list[Any]:
        self.prompts += prompts
        short = encoded < asr.FULL or self.always
        ids = (self.loop if short else self.said)[: max_length - len(prompts[0])]
        return [SimpleNamespace(sequences_ids=[ids], no_speech_prob=0.1, scores=[-0.2])]

    def align(self, encoded: int, start: list[int], texts: list[list[int]], frames: list[int]) -> list[Any]:
        (ids,) = texts
        pairs = [(place, 10 * place) for place in range(len(ids) + 1)]
        return [SimpleNamespace(alignments=pairs, text_token_probs=[0.9] * len(ids))]


def whisper(model: Any, *, multilingual: bool = False) -> asr.Whisper:
    return asr.Whisper(model, Letters(), multilingual=multilingual)


def test_a_sane_hypothesis_is_decoded_once_in_the_short_window() -> None:
    model = Loops([], [7, 4, 11])
    result = whisper(model).transcribe({"samples": SECOND})
    assert model.frames == [100 + asr.PADDING]
    assert (result["text"], result["padded"], result["rejected"]) == ("h e l", False, False)
    assert [word[:3] for word in result["words"]] == [["h", 0.0, 0.2], ["e", 0.2, 0.4], ["l", 0.4, 0.6]]


class Encodes(Loops):
    """Its encoder gives each frame the number of the frame: shape (1, frames / 2, 1). `seen`: what the decoder was given."""

    def __init__(self) -> None:
        super().__init__([], [7, 4, 11])
        self.seen: list[Any] = []
        self.beams: list[int] = []

    def encode(self, features: Any) -> Any:
        frames = super().encode(features)
        return np.arange(frames // 2, dtype=np.float32)[None, :, None] + (1000 if frames == asr.BEHIND else 0)

    def generate(
        self, encoded: Any, prompts: list[list[int]], *, max_length: int, **options: Any
    ) -> list[Any]:
        self.seen.append(np.asarray(encoded)[0, :, 0])
        self.beams.append(options["beam_size"])
        return super().generate(0, prompts, max_length=max_length)


def test_a_quick_hypothesis_encodes_little_padding_and_takes_the_rest_from_memory() -> None:
    model = Encodes()
    made = whisper(model)
    made.prepare()
    model.frames.clear()
    made.transcribe({"samples": SECOND, "quick": True, "beam": 3})
    near = 300  # a second, and NEAR, in whole grains
    assert model.frames == [near]
    assert model.seen[0].tolist() == [
        *range(near // 2),
        *range(1000 + near // 2, 1000 + (100 + asr.PADDING) // 2),
    ]
    assert model.beams == [1]


@pytest.mark.parametrize(
    ("asked", "seconds"), [({}, 1), ({"quick": True}, 16)], ids=["settled", "longer-than-is-known"]
)
def test_other_hypotheses_encode_all_of_it(asked: dict[str, Any], seconds: int) -> None:
    model = Encodes()
    made = whisper(model)
    made.prepare()
    model.frames.clear()
    made.transcribe({"samples": np.tile(SECOND, seconds), **asked})
    assert model.frames == [100 * seconds + asr.PADDING]


@pytest.mark.parametrize(
    "loop",
    [[0] * 15, [0, 1, 0, 1, 0, 1], [3, 3, 3, 3], list(range(15))],
    ids=["cap", "phrase", "word", "too-many"],
)
def test_a_loop_is_refused_and_retried_once_with_the_full_padding(loop: list[int]) -> None:
    model = Loops([7, 4, 11], loop)
    result = whisper(model).transcribe({"samples": SECOND})
    assert model.frames == [100 + asr.PADDING, asr.FULL]
    assert (result["text"], result["padded"], result["rejected"]) == ("h e l", True, False)


def test_a_loop_in_both_windows_gives_no_word() -> None:
    model = Loops([], [0] * 500, always=True)
    result = whisper(model).transcribe({"samples": SECOND})
    assert len(model.frames) == 2, "one retry, no more"
    assert (result["words"], result["text"], result["rejected"]) == ([], "", True)


def test_the_cap_follows_the_duration() -> None:
    assert asr.token_cap(1.0) < asr.token_cap(6.0) < 60


@given(
    st.lists(st.sampled_from("abcdef"), max_size=5),
    st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=6, unique=True),
)
def test_a_phrase_that_follows_itself_is_found_wherever_it_stands(
    before: list[str], phrase: list[str]
) -> None:
    assert asr.repeats([*before, *phrase * (4 if len(phrase) == 1 else 3)])
    assert not asr.repeats(phrase * 2)


def test_hotwords_stand_before_the_start_and_cost_no_part_of_the_cap() -> None:
    model = Loops([], [1, 2])
    whisper(model).transcribe({"samples": SECOND, "hotwords": "xyz"})
    assert model.prompts == [[62, 23, 24, 25, 60, 61]]


def test_a_multilingual_model_is_told_the_language_and_an_unknown_one_is_refused() -> None:
    model = Loops([], [1, 2])
    whisper(model, multilingual=True).transcribe({"samples": SECOND, "language": "en"})
    assert model.prompts == [[60, 63, 64, 61]]
    with pytest.raises(InvalidRequest, match="'tlh'"):
        whisper(model, multilingual=True).transcribe({"samples": SECOND, "language": "tlh"})


def test_translation_is_asked_for_by_the_model_s_own_task_and_has_no_words() -> None:
    model = Loops([], [7, 4, 11])
    result = whisper(model, multilingual=True).translate({"samples": SECOND, "language": "de"})
    assert model.prompts == [[60, 65, 66, 61]]
    assert (result["text"], result["words"]) == ("h e l", [])
    with pytest.raises(InvalidRequest, match="English alone"):
        whisper(model).translate({"samples": SECOND, "language": "de"})


def test_where_every_character_is_a_word_punctuation_belongs_to_the_one_before_it() -> None:
    class Characters(Letters):
        def decode(self, ids: list[int]) -> str:
            return "".join("。東京"[i] for i in ids)

    model = Loops([], [0, 1, 2, 0, 1])
    result = asr.Whisper(model, Characters(), multilingual=True).transcribe(
        {"samples": SECOND, "language": "ja"}
    )
    assert [word[0] for word in result["words"]] == ["東", "京。", "東"]


@pytest.mark.parametrize(
    "samples",
    [
        None,
        [0.0],
        SECOND.astype(np.float64),
        np.zeros((2, 8), np.float32),
        np.zeros(0, np.float32),
        np.zeros(30 * asr.RATE, np.float32),
    ],
)
def test_samples_of_another_shape_are_refused(samples: Any) -> None:
    with pytest.raises(InvalidRequest):
        whisper(Loops([], [])).transcribe({"samples": samples})


@given(st.integers(1, 3 * asr.RATE))
def test_there_is_a_column_of_features_every_10_ms(count: int) -> None:
    features = asr.log_mel(np.zeros(count, np.float32))
    assert features.shape == (80, -(-count // asr.HOP))
    assert np.isfinite(features).all()


def test_a_tone_lights_the_band_of_its_pitch() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(asr.RATE) / asr.RATE).astype(np.float32)
    band = int(asr.log_mel(tone)[:, 50].argmax())
    centre = np.fft.rfftfreq(asr.FFT, 1 / asr.RATE)[asr.mel_filters()[band].argmax()]
    assert abs(centre - 1000) <= 40


def test_padding_is_silence_not_zeros() -> None:
    features = asr.log_mel(np.random.default_rng(1).normal(0, 0.1, asr.RATE).astype(np.float32))
    assert (asr.pad(features, 600)[:, 100:] == min(0.0, features.min())).all()


def test_a_missing_model_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"toy lacks model\.bin: run `streamsvc models pull toy`"):
        asr.load({"models": tmp_path, "model": "toy"})


def test_a_broken_model_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    for name in asr.FILES:
        (tmp_path / "toy" / name).write_bytes(b"{}")
    with pytest.raises(ModelMissing, match="toy is broken"):
        asr.load({"models": tmp_path, "model": "toy"})


@pytest.mark.parametrize(
    "lacks", ["a driver", "a library"]
)  # CTranslate2 looks for the one at once, for the other when it is used
def test_a_gpu_that_cannot_be_used_is_no_broken_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    class NoGpu:
        def __init__(self, folder: str, **asked: Any) -> None:
            assert (asked["device"], asked["compute_type"]) == ("cuda", "float16")
            if lacks == "a driver":
                raise RuntimeError(f"no {lacks}")

        def encode(self, features: Any) -> Any:
            raise RuntimeError(f"no {lacks}")

    monkeypatch.setattr(ctranslate2.models, "Whisper", NoGpu)
    monkeypatch.setattr(tokenizers, "Tokenizer", SimpleNamespace(from_file=lambda path: None))
    (tmp_path / "toy").mkdir()
    for name in asr.FILES:
        (tmp_path / "toy" / name).write_bytes(b"{}")
    with pytest.raises(ModelMissing, match=f"toy cannot run on cuda: no {lacks}") as told:
        asr.load({"models": tmp_path, "model": "toy", "device": "cuda"})
    assert told.value.code == "no_gpu"


# --- real weights -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Engine:
    return asr.load({"models": Models().dir / "models", "model": "whisper-tiny.en", "workers": 1})


def one(engine: Engine, op: str, **payload: Any) -> Any:
    entry = engine.ops[op]
    assert isinstance(entry, Op)
    return entry.run([payload])[0]


@pytest.mark.models
def test_voice_activity_in_pieces_is_that_of_the_whole(engine: Engine) -> None:
    samples = np.random.default_rng(2).normal(0, 0.1, 40 * asr.WINDOW).astype(np.float32)
    whole = one(engine, "vad", samples=samples)["probability"]
    pieces, state = [], None
    for start in range(0, len(samples), 8 * asr.WINDOW):
        result = one(engine, "vad", samples=samples[start : start + 8 * asr.WINDOW], state=state)
        state = result["state"]
        pieces.append(result["probability"])
    assert np.concatenate(pieces) == pytest.approx(whole, abs=1e-5)


@pytest.mark.models
def test_a_bad_request_fails_alone_in_its_batch(engine: Engine) -> None:
    entry = engine.ops["vad"]
    assert isinstance(entry, Op)
    bad, good = entry.run([{"samples": np.zeros(100, np.float32)}, {"samples": np.zeros(512, np.float32)}])
    assert isinstance(bad, InvalidRequest)
    assert isinstance(good, dict)


@pytest.mark.models
@pytest.mark.media
def test_real_speech_has_words_with_times_in_order(media: Path, engine: Engine) -> None:
    result = one(engine, "transcribe", samples=read(media / "speech" / "jfk_inaugural_excerpt.flac"))
    assert "what your country can do for you" in result["text"]
    words = result["words"]
    assert all(0 <= start <= end <= 11.0 and 0 <= probability <= 1 for _, start, end, probability in words)
    assert [word[1] for word in words] == sorted(word[1] for word in words)
    assert one(engine, "detect_language", samples=SECOND) == {"language": "en", "probability": 1.0}


@pytest.mark.models
@pytest.mark.media
def test_padding_from_memory_hears_the_same_words(media: Path, engine: Engine) -> None:
    samples = read(media / "speech" / "harvard.flac")
    whole: list[str] = []
    quick: list[str] = []
    for start in range(0, 15 * asr.RATE, 3 * asr.RATE):
        asked = {"samples": samples[start : start + 3 * asr.RATE]}
        for told, more in ((whole, {}), (quick, {"quick": True})):
            told += norm(one(engine, "transcribe", **asked, **more)["text"])
    assert len(whole) > 30
    assert errors(whole, quick).sum() <= len(whole) // 10
