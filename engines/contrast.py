"""Contrastive training objective of CLIP and SigLIP models: which text belongs to which picture.

Only the vision tower is trained. Text vectors stay fixed, so they are computed once, and cached label vectors
stay valid.

Sources: A. Radford et al. 2021 (CLIP: symmetric cross entropy over a batch), X. Zhai et al. 2023 (SigLIP: a
sigmoid per pair). A text that occurs twice in a batch belongs to both pictures; otherwise the losses equal
transformers' own `return_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engines.clip import text_features
from streamsvc.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Pair:
    """A training example: a picture (RGB) and a text that describes it."""

    picture: Any
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A prepared pair: pixels (3, side, side), the text's unit vector (d,), and the text."""

    pixels: Any
    vector: Any
    text: str


class Contrast:
    """The objective (`finetune.Objective`) for pairs.

    Args:
        model: of `clip.load_model`, with its tokenizer and image processor. peft modifies it in place.
    """

    batch = 16  # pairs per step; each text is contrasted with all others
    # Attention of the vision tower, without SigLIP's attention pooling head.
    targets = r"vision_model\.encoder\..*\.(q_proj|k_proj|v_proj|out_proj)"

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._processor = processor

    def prepare(self, examples: Sequence[Any]) -> list[Row]:
        """Prepare the pairs.

        Raises:
            InvalidRequest: an example is not a pair, or all texts are equal.
        """
        import torch

        if not all(isinstance(example, Pair) for example in examples):
            raise InvalidRequest(
                'this model is trained with pictures and texts: {"picture": path, "text": str}'
            )
        if len({example.text for example in examples}) < 2:
            raise InvalidRequest(
                "a contrastive loss needs two different texts in the training and held-out examples each"
            )
        rows = []
        for example in examples:
            pixels = self._processor(images=[example.picture], return_tensors="pt")["pixel_values"][0]
            with torch.no_grad():
                vector = torch.nn.functional.normalize(
                    text_features(self._model, self._tokenizer, [example.text]).float(), dim=-1
                )[0]
            rows.append(Row(pixels, vector, example.text))
        return rows

    def loss(self, rows: Sequence[Row]) -> Any:
        """Contrastive loss of a batch, a scalar tensor in nats."""
        import torch

        model = self._model
        pixels = torch.stack([row.pixels for row in rows]).to(model.device, model.dtype)
        pictures = torch.nn.functional.normalize(
            model.get_image_features(pixel_values=pixels).pooler_output.float(), dim=-1
        )
        texts = torch.stack([row.vector for row in rows])
        logits = pictures @ texts.T * model.logit_scale.exp().float()
        same = torch.tensor(
            [[one.text == other.text for other in rows] for one in rows],
            dtype=torch.float32,
            device=logits.device,
        )
        if (bias := getattr(model, "logit_bias", None)) is not None:
            return -torch.nn.functional.logsigmoid((2 * same - 1) * (logits + bias.float())).sum(dim=1).mean()
        targets = same / same.sum(dim=1, keepdim=True)
        return (
            torch.nn.functional.cross_entropy(logits, targets)
            + torch.nn.functional.cross_entropy(logits.T, targets)
        ) / 2

    def evaluate(self, rows: Sequence[Row]) -> float:
        """Mean loss over fixed batches in the order of the rows, so that adapters can be compared."""
        import torch

        parts = [rows[first : first + self.batch] for first in range(0, len(rows), self.batch)]
        if len(parts) > 1 and len(parts[-1]) < self.batch:
            parts[-2:] = [[*parts[-2], *parts[-1]]]  # merged: a single pair has nothing to contrast with
        self._model.eval()
        with torch.no_grad():
            return sum(float(self.loss(part)) * len(part) for part in parts) / len(rows)
