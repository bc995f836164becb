"""The towers of the real classes, tiny and random: the numbers of the whole model's own forward pass, under the see role's contract."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engines import Engine, clip
from engines.vision import opened
from streamsvc.config import See
from streamsvc.encode import look
from streamsvc.errors import ModelMissing, WorkerError
from streamsvc.types import Keyframe, VideoFrame
from streamsvc.worker import Local

torch = pytest.importorskip("torch", reason="the towers need the extra `gpu`")
transformers = pytest.importorskip("transformers", reason="the towers need the extra `gpu`")

WORDS = ["<pad>", "</s>", "<unk>", "a", "photo", "of", "cat", "dog", "red", "car", "."]
LABELS = ["cat", "dog", "car"]


def jpeg(seed: int) -> Any:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 48)).save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    place = tmp_path_factory.mktemp(request.param)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    text = {**small, "vocab_size": len(WORDS), "max_position_embeddings": 12, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    vision = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(3)
    if request.param == "clip":
        config = transformers.CLIPConfig(text_config={**text, "projection_dim": 24}, vision_config=vision, projection_dim=24)
        model, processor = transformers.CLIPModel(config), transformers.CLIPImageProcessor
    else:
        config = transformers.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision)
        model, processor = transformers.SiglipModel(config), transformers.SiglipImageProcessor
        model.logit_bias.data.fill_(-0.3)
    model.logit_scale.data.fill_(2.0)
    model.save_pretrained(place)
    size = {"shortest_edge": 32} if request.param == "clip" else {"height": 32, "width": 32}
    processor(size=size, crop_size={"height": 32, "width": 32}).save_pretrained(place)
    bare = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=bare, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(place)
    return place


def engine(folder: Path, **options: Any) -> Engine:
    return clip.load({"models": str(folder.parent), "encoder": folder.name, "labels": LABELS, "tag_threshold": 0.0, **options})


def run(made: Engine, op: str, *payloads: dict[str, Any]) -> list[Any]:
    return list(made.ops[op].run(list(payloads)))  # type: ignore[arg-type]


def whole(folder: Path, texts: list[str], picture: Any) -> Any:
    """The whole model's own forward pass: logits of each text for one picture, shape (n,)."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    siglip = hasattr(model, "logit_bias")
    coded = tokenizer(texts, padding="max_length" if siglip else True, truncation=True, max_length=12, return_tensors="pt")
    pixels = transformers.AutoImageProcessor.from_pretrained(folder)(images=[picture], return_tensors="pt")["pixel_values"]
    asked = {"input_ids": coded["input_ids"], "pixel_values": pixels}
    with torch.inference_mode():
        return model(**(asked if siglip else {**asked, "attention_mask": coded["attention_mask"]})).logits_per_image[0].numpy()


def test_tags_are_the_whole_models_own_probabilities(folder: Path) -> None:
    (seen,) = run(engine(folder), "look", {"jpeg": jpeg(1)})
    logits = whole(folder, [clip.PROMPT.format(label) for label in LABELS], opened(jpeg(1)))
    wanted = 1 / (1 + np.exp(-logits)) if "siglip" in folder.name else np.exp(logits) / np.exp(logits).sum()
    assert dict(zip(seen["tags"], seen["tag_scores"], strict=True)) == pytest.approx(
        dict(zip(LABELS, wanted.tolist(), strict=True)), abs=1.1e-3
    )
    assert seen["tag_scores"] == sorted(seen["tag_scores"], reverse=True)


def test_a_sentence_and_a_picture_are_as_near_as_the_whole_model_says(folder: Path) -> None:
    made = engine(folder)
    (seen,), (told,) = run(made, "look", {"jpeg": jpeg(2)}), run(made, "texts", {"texts": ["a red car", "a dog"]})
    assert np.linalg.norm(told["vectors"], axis=1) == pytest.approx(1.0, abs=1e-5)
    bias = -0.3 if "siglip" in folder.name else 0.0
    cosines = (whole(folder, ["a red car", "a dog"], opened(jpeg(2))) - bias) / np.exp(2.0)
    assert told["vectors"] @ seen["embedding"] == pytest.approx(cosines, abs=1e-4)


def test_another_picture_has_another_vector_and_a_batch_changes_none(folder: Path) -> None:
    made = engine(folder)
    together = run(made, "look", {"jpeg": jpeg(1)}, {"jpeg": jpeg(2)})
    alone = [run(made, "look", {"jpeg": jpeg(seed)})[0] for seed in (1, 2)]
    for one, other in zip(together, alone, strict=True):
        assert one["embedding"] == pytest.approx(other["embedding"], abs=1e-5)
    assert np.abs(together[0]["embedding"] - together[1]["embedding"]).max() > 1e-3


def test_a_picture_that_cannot_be_read_fails_alone_and_a_blank_one_claims_nothing(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG")
    black = np.frombuffer(buffer.getvalue(), np.uint8)
    bad, blank, good = run(engine(folder), "look", {"jpeg": np.zeros(9, np.uint8)}, {"jpeg": black}, {"jpeg": jpeg(1)})
    assert isinstance(bad, WorkerError)
    assert (blank["blank"], blank["tags"]) == (True, [])
    assert len(good["tags"]) == len(LABELS)


async def test_the_see_role_is_served_as_by_the_other_engine(folder: Path) -> None:
    frame = VideoFrame("s", "main", 1.0, 0.0, None, 64, 48)
    keyframe = Keyframe("s", "main", 1.0, 0.0, frame, "scene")
    sight = await look(keyframe, jpeg(1).tobytes(), Local(engine(folder)), See(), deadline_in_s=60)
    assert {tag.label for tag in sight.tags} == set(LABELS)
    assert np.linalg.norm(sight.embedding) == pytest.approx(1.0, abs=1e-5)


def test_a_model_that_is_not_there_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="absent"):
        clip.load({"models": str(tmp_path), "encoder": "absent"})
