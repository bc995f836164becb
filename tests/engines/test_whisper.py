"""Decoding loops are rejected, prompts reach the model, and quick hypotheses encode little padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines import audio
from engines import whisper as engine
from engines.whisper import Whisper
from streamsvc.core.errors import InvalidRequest

SECOND = np.zeros(audio.RATE, np.float32)
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
    """A tokenizer with 26 one-letter words."""

    def decode(self, ids: list[int]) -> str:
        return "".join(f" {chr(97 + i)}" for i in ids)

    def encode(self, text: str, add_special_tokens: bool) -> Any:
        return SimpleNamespace(ids=[ord(letter) - 97 for letter in text if letter.isalpha()])

    def token_to_id(self, name: str) -> int | None:
        return NAMES.get(name)

    def id_to_token(self, token: int) -> str:
        return f"Ġ{chr(97 + token)}"


class LoopingModel:
    """A model that loops when the encoder input is shortened; with `always` also at full length."""

    def __init__(self, correct: list[int], loop: list[int], *, always: bool = False) -> None:
        self.correct = correct
        self.loop = loop
        self.always = always
        self.frames: list[int] = []
        self.prompts: list[list[int]] = []

    def encode(self, features: Any) -> int:
        self.frames.append(features.shape[2])
        return int(features.shape[2])

    def generate(self, encoded: int, prompts: list[list[int]], *, max_length: int, **_: Any) -> list[Any]:
        self.prompts += prompts
        short = encoded < engine.FULL or self.always
        ids = (self.loop if short else self.correct)[: max_length - len(prompts[0])]
        return [SimpleNamespace(sequences_ids=[ids], no_speech_prob=0.1, scores=[-0.2])]

    def align(self, encoded: int, start: list[int], texts: list[list[int]], frames: list[int]) -> list[Any]:
        (ids,) = texts
        pairs = [(place, 10 * place) for place in range(len(ids) + 1)]
        return [SimpleNamespace(alignments=pairs, text_token_probs=[0.9] * len(ids))]


def whisper(model: Any, *, multilingual: bool = False) -> Whisper:
    return Whisper(model, Letters(), multilingual=multilingual)


def test_a_valid_hypothesis_is_decoded_once_with_short_padding() -> None:
    model = LoopingModel([], [7, 4, 11])
    result = whisper(model).transcribe({"samples": SECOND})
    assert model.frames == [100 + engine.PADDING]
    assert (result["text"], result["padded"], result["rejected"]) == ("h e l", False, False)
    assert [word[:3] for word in result["words"]] == [["h", 0.0, 0.2], ["e", 0.2, 0.4], ["l", 0.4, 0.6]]


class CountingEncoder(LoopingModel):
    """The encoder outputs frame numbers, shape (1, frames / 2, 1). `seen`: the decoder's inputs."""

    def __init__(self) -> None:
        super().__init__([], [7, 4, 11])
        self.seen: list[Any] = []
        self.beams: list[int] = []

    def encode(self, features: Any) -> Any:
        frames = super().encode(features)
        return np.arange(frames // 2, dtype=np.float32)[None, :, None] + (
            1000 if frames == engine.BEHIND else 0
        )

    def generate(
        self, encoded: Any, prompts: list[list[int]], *, max_length: int, **options: Any
    ) -> list[Any]:
        self.seen.append(np.asarray(encoded)[0, :, 0])
        self.beams.append(options["beam_size"])
        return super().generate(0, prompts, max_length=max_length)


def test_a_quick_hypothesis_encodes_little_padding_and_reuses_precomputed_output() -> None:
    model = CountingEncoder()
    made = whisper(model)
    made.prepare()
    model.frames.clear()
    made.transcribe({"samples": SECOND, "quick": True, "beam": 3})
    near = 300  # one second plus NEAR, rounded up to GRAIN
    assert model.frames == [near]
    assert model.seen[0].tolist() == [
        *range(near // 2),
        *range(1000 + near // 2, 1000 + (100 + engine.PADDING) // 2),
    ]
    assert model.beams == [1]


@pytest.mark.parametrize(
    ("asked", "seconds"), [({}, 1), ({"quick": True}, 16)], ids=["settled", "longer-than-precomputed"]
)
def test_settled_and_long_hypotheses_encode_all_padding(asked: dict[str, Any], seconds: int) -> None:
    model = CountingEncoder()
    made = whisper(model)
    made.prepare()
    model.frames.clear()
    made.transcribe({"samples": np.tile(SECOND, seconds), **asked})
    assert model.frames == [100 * seconds + engine.PADDING]


@pytest.mark.parametrize(
    "loop",
    [[0] * 15, [0, 1, 0, 1, 0, 1], [3, 3, 3, 3], list(range(15))],
    ids=["cap", "phrase", "word", "too-many"],
)
def test_a_loop_is_rejected_and_retried_once_with_the_full_padding(loop: list[int]) -> None:
    model = LoopingModel([7, 4, 11], loop)
    result = whisper(model).transcribe({"samples": SECOND})
    assert model.frames == [100 + engine.PADDING, engine.FULL]
    assert (result["text"], result["padded"], result["rejected"]) == ("h e l", True, False)


def test_a_loop_at_both_lengths_gives_no_words() -> None:
    model = LoopingModel([], [0] * 500, always=True)
    result = whisper(model).transcribe({"samples": SECOND})
    assert len(model.frames) == 2, "one retry, no more"
    assert (result["words"], result["text"], result["rejected"]) == ([], "", True)


def test_the_token_cap_grows_with_the_duration() -> None:
    assert engine.token_cap(1.0) < engine.token_cap(6.0) < 60


@given(
    st.lists(st.sampled_from("abcdef"), max_size=5),
    st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=6, unique=True),
)
def test_a_repeated_phrase_is_detected_at_any_position(before: list[str], phrase: list[str]) -> None:
    assert engine.repeats([*before, *phrase * (4 if len(phrase) == 1 else 3)])
    assert not engine.repeats(phrase * 2)


def test_hotwords_precede_the_start_token_and_do_not_use_up_the_cap() -> None:
    model = LoopingModel([], [1, 2])
    whisper(model).transcribe({"samples": SECOND, "hotwords": "xyz"})
    assert model.prompts == [[62, 23, 24, 25, 60, 61]]


class Prompted(LoopingModel):
    """Says "x" where the prompt has it, else "h". `unlikely`: x is hardly possible without the prompt."""

    def __init__(self, *, unlikely: bool, no_speech: float = 0.01) -> None:
        super().__init__([], [])
        self.unlikely = unlikely
        self.no_speech = no_speech
        self.starts: list[list[int]] = []

    def generate(self, encoded: int, prompts: list[list[int]], *, max_length: int, **_: Any) -> list[Any]:
        self.prompts += prompts
        ids = [4, 23 if 23 in prompts[0] else 7, 11]
        return [SimpleNamespace(sequences_ids=[ids], no_speech_prob=self.no_speech, scores=[-0.2])]

    def align(self, encoded: int, start: list[int], texts: list[list[int]], frames: list[int]) -> list[Any]:
        self.starts.append(start)
        (found,) = super().align(encoded, start, texts, frames)
        found.text_token_probs = [0.001 if i == 23 and self.unlikely else 0.9 for i in texts[0]]
        return [found]


def test_terms_of_the_screen_come_between_the_hotwords_and_the_words_before() -> None:
    model = Prompted(unlikely=False)
    payload = {"samples": SECOND, "hotwords": "yz", "screen_terms": ["w", "x"], "before": "abc"}
    result = whisper(model).transcribe(payload)
    assert model.prompts == [[62, 24, 25, 22, 23, 0, 1, 2, 60, 61]]
    assert result["text"] == "e x l"
    assert {tuple(start) for start in model.starts} == {(62, 24, 25, 0, 1, 2, 60)}, "told without them"


def test_the_terms_share_the_hotwords_part_of_the_prompt() -> None:
    model = Prompted(unlikely=False)
    payload = {"samples": SECOND, "hotwords": "y" * 90, "screen_terms": ["w" * 20], "before": "a" * 200}
    whisper(model).transcribe(payload)
    assert model.prompts[0].count(24) == 90
    assert model.prompts[0].count(22) == engine.PROMPT_TOKENS - 90
    assert model.prompts[0].count(0) == engine.PROMPT_TOKENS


@pytest.mark.parametrize("terms", [["x"], ["x-y"]])
def test_a_term_of_the_screen_that_the_audio_does_not_support_is_decoded_without_it(terms: list[str]) -> None:
    model = Prompted(unlikely=True)
    result = whisper(model).transcribe({"samples": SECOND, "screen_terms": terms})
    assert result["text"] == "e h l"
    assert [word[0] for word in result["words"]] == ["e", "h", "l"]
    assert model.prompts[1:] == [[60, 61]]


def test_where_there_may_be_no_speech_the_terms_of_the_screen_are_left_out() -> None:
    model = Prompted(unlikely=False, no_speech=0.3)
    assert whisper(model).transcribe({"samples": SECOND, "screen_terms": ["x"]})["text"] == "e h l"
    model = Prompted(unlikely=False, no_speech=0.3)
    assert whisper(model).transcribe({"samples": SECOND, "hotwords": "x"})["text"] == "e x l"
    assert len(model.prompts) == 1


def test_a_user_s_own_term_is_believed() -> None:
    model = Prompted(unlikely=True)
    payload = {"samples": SECOND, "hotwords": "x", "screen_terms": ["w"]}
    assert whisper(model).transcribe(payload)["text"] == "e x l"


def test_a_multilingual_model_gets_the_language_and_an_unknown_one_is_refused() -> None:
    model = LoopingModel([], [1, 2])
    whisper(model, multilingual=True).transcribe({"samples": SECOND, "language": "en"})
    assert model.prompts == [[60, 63, 64, 61]]
    with pytest.raises(InvalidRequest, match="'tlh'"):
        whisper(model, multilingual=True).transcribe({"samples": SECOND, "language": "tlh"})


def test_translation_uses_the_model_s_translate_task_and_has_no_words() -> None:
    model = LoopingModel([], [7, 4, 11])
    result = whisper(model, multilingual=True).translate({"samples": SECOND, "language": "de"})
    assert model.prompts == [[60, 65, 66, 61]]
    assert (result["text"], result["words"]) == ("h e l", [])
    with pytest.raises(InvalidRequest, match="English-only"):
        whisper(model).translate({"samples": SECOND, "language": "de"})


def test_in_languages_without_spaces_punctuation_joins_the_character_before_it() -> None:
    class Characters(Letters):
        def decode(self, ids: list[int]) -> str:
            return "".join("。東京"[i] for i in ids)

    model = LoopingModel([], [0, 1, 2, 0, 1])
    result = Whisper(model, Characters(), multilingual=True).transcribe({"samples": SECOND, "language": "ja"})
    assert [word[0] for word in result["words"]] == ["東", "京。", "東"]
