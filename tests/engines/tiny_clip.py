"""CLIP and SigLIP of transformers, tiny and random, saved as their checkpoints are.

And pictures to show them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from engines.clip import REFERENCE_TEXTS

LONGEST, SIDE = 12, 32  # tokens of a text, pixels
_COMMON = sorted(
    {word for text in REFERENCE_TEXTS for word in text.replace("-", " - ").replace(".", "").split()}
)
WORDS = list(
    dict.fromkeys(["<pad>", "</s>", "<unk>", ".", "-", *_COMMON, "cat", "dog", "car", "red", "blue", "green"])
)


def save(kind: str, place: Path) -> Path:
    """A model of a class, "clip" or "siglip", with its tokenizer and image processor; the folder."""
    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    text: dict[str, Any] = {**small, "vocab_size": len(WORDS), "max_position_embeddings": LONGEST}
    text |= {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    vision = {**small, "image_size": SIDE, "patch_size": 8}
    torch.manual_seed(3)
    model: Any
    processor: Any
    if kind == "clip":
        config = transformers.CLIPConfig(
            text_config={**text, "projection_dim": 24}, vision_config=vision, projection_dim=24
        )
        model, processor = transformers.CLIPModel(config), transformers.CLIPImageProcessor
    else:
        model = transformers.SiglipModel(
            transformers.SiglipConfig(text_config={**text, "projection_size": 32}, vision_config=vision)
        )
        processor = transformers.SiglipImageProcessor
        model.logit_bias.data.fill_(-0.3)
    model.logit_scale.data.fill_(2.0)
    model.save_pretrained(place)
    size = {"shortest_edge": SIDE} if kind == "clip" else {"height": SIDE, "width": SIDE}
    processor(size=size, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(place)
    bare = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer: Any = transformers.PreTrainedTokenizerFast
    fast = tokenizer(tokenizer_object=bare, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(place)
    return place


def whole(folder: Path, texts: list[str], picture: Any) -> Any:
    """The whole model's own forward pass: logits of each text for one picture, shape (n,)."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    siglip = hasattr(model, "logit_bias")
    coded = tokenizer(
        texts,
        padding="max_length" if siglip else True,
        truncation=True,
        max_length=LONGEST,
        return_tensors="pt",
    )
    images: Any = transformers.AutoImageProcessor
    pixels = images.from_pretrained(folder)(images=[picture], return_tensors="pt")["pixel_values"]
    asked = {"input_ids": coded["input_ids"], "pixel_values": pixels}
    with torch.inference_mode():
        return (
            model(**(asked if siglip else {**asked, "attention_mask": coded["attention_mask"]}))
            .logits_per_image[0]
            .numpy()
        )


def picture(seed: int) -> Any:
    """Blots, RGB, 64 x 48."""
    pixels = np.random.default_rng(seed).integers(0, 255, (12, 16, 3), np.uint8)
    return Image.fromarray(pixels).resize((64, 48))


def png(shown: Any) -> Any:
    """A picture as bytes, without loss."""
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)
