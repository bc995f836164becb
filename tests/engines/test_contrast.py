"""The losses equal those of transformers' classes; indistinguishable pairs are refused."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the towers need the extra `gpu`")

from engines import clip  # noqa: E402
from engines.contrast import Contrast, Pair  # noqa: E402
from engines.finetune import Example  # noqa: E402
from streamsvc.core.errors import InvalidRequest  # noqa: E402
from tests.engines.tiny_clip import LONGEST, picture, save  # noqa: E402

TEXTS = ["a red car", "a dog", "a cat", "a map"]
PAIRS = [Pair(picture(seed), text) for seed, text in enumerate(TEXTS)]


@pytest.fixture(scope="module", params=["clip", "siglip"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return clip.load_model(save(request.param, tmp_path_factory.mktemp("models") / request.param), "cpu")


def own(model: Any, pairs: list[Pair]) -> float:
    """The loss as the class itself computes it."""
    whole, tokenizer, processor = model
    siglip = hasattr(whole, "logit_bias")
    texts = [pair.text for pair in pairs]
    coded = tokenizer(
        texts,
        padding="max_length" if siglip else True,
        truncation=True,
        max_length=LONGEST,
        return_tensors="pt",
    )
    pixels = processor(images=[pair.picture for pair in pairs], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        return float(whole(input_ids=coded["input_ids"], pixel_values=pixels, return_loss=True).loss)


def test_the_loss_is_that_of_the_class_itself(model: Any) -> None:
    objective = Contrast(*model)
    assert float(objective.loss(objective.prepare(PAIRS))) == pytest.approx(own(model, PAIRS), rel=1e-5)


def test_swapped_pictures_and_texts_shifted_by_one_have_another_loss(model: Any) -> None:
    objective = Contrast(*model)
    right = float(objective.loss(objective.prepare(PAIRS)))
    swapped = [Pair(PAIRS[1].picture, TEXTS[0]), Pair(PAIRS[0].picture, TEXTS[1]), *PAIRS[2:]]
    shifted = [Pair(pair.picture, text) for pair, text in zip(PAIRS, TEXTS[1:] + TEXTS[:1], strict=True)]
    for wrong in (swapped, shifted):
        assert abs(float(objective.loss(objective.prepare(wrong))) - right) > 1e-4 * right
        assert float(objective.loss(objective.prepare(wrong))) == pytest.approx(own(model, wrong), rel=1e-5)


def test_two_pictures_of_the_same_text_are_no_rivals(model: Any) -> None:
    objective = Contrast(*model)
    rows = objective.prepare([*PAIRS[:2], Pair(picture(9), TEXTS[0])])
    logits = _logits(model, rows)
    if hasattr(model[0], "logit_bias"):
        signs = np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
        expected = np.log1p(np.exp(-signs * logits)).sum(axis=1).mean()
    else:
        wanted = np.array([[0.5, 0, 0.5], [0, 1, 0], [0.5, 0, 0.5]])
        shares = [way - np.log(np.exp(way).sum(axis=1, keepdims=True)) for way in (logits, logits.T)]
        expected = sum(-(wanted * share).sum(axis=1).mean() for share in shares) / 2
    assert float(objective.loss(rows)) == pytest.approx(expected, rel=1e-5)


def _logits(model: Any, rows: Any) -> Any:
    whole = model[0]
    with torch.no_grad():
        seen = whole.get_image_features(
            pixel_values=torch.stack([row.pixels for row in rows])
        ).pooler_output.numpy()
    seen = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    bias = float(whole.logit_bias) if hasattr(whole, "logit_bias") else 0.0
    return seen @ np.stack([row.vector.numpy() for row in rows]).T * np.exp(2.0) + bias


def test_all_held_out_pairs_are_evaluated_and_none_alone(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contrast, "batch", 3)
    objective = Contrast(*model)
    rows = objective.prepare(
        [
            *PAIRS,
            *(
                Pair(picture(seed), f"a {word}")
                for seed, word in ((7, "drawing"), (8, "diagram"), (9, "kitchen"))
            ),
        ]
    )
    with torch.no_grad():
        first, rest = float(objective.loss(rows[:3])), float(objective.loss(rows[3:]))
    assert objective.evaluate(rows) == pytest.approx((3 * first + 4 * rest) / 7, rel=1e-5)
    assert objective.evaluate(rows[:4]) == pytest.approx(float(objective.loss(rows[:4]).detach()), rel=1e-5)


def test_other_examples_and_pairs_with_one_text_are_refused(model: Any) -> None:
    objective = Contrast(*model)
    with pytest.raises(InvalidRequest, match='"text"'):
        objective.prepare([Example(picture(1), "what?", "a dog")])
    with pytest.raises(InvalidRequest, match="two different texts"):
        objective.prepare([PAIRS[0], PAIRS[0]])


def test_only_the_attention_of_the_vision_tower_is_trained(model: Any) -> None:
    names = [name for name, _ in model[0].named_modules() if re.fullmatch(Contrast.targets, name)]
    assert len(names) == 8  # two layers of four
    assert all(name.startswith("vision_model.encoder.layers.") for name in names)
