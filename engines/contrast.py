"""What a CLIP or SigLIP model is taught: which text belongs to which picture, by its own class's contrastive loss.

Only the vision tower learns. The vectors of texts stay what they are, so they are computed once, and nobody has to embed labels again.

Sources: A. Radford et al. 2021 (CLIP: symmetric cross entropy over a batch), X. Zhai et al. 2023 (SigLIP: a sigmoid for each pair). Texts
that occur twice in a batch belong to both their pictures; where none does, the losses are those of transformers' own `return_loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engines.clip import text_features
from streamsvc.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Pair:
    """A picture (RGB), and a text that is true of it."""

    picture: Any
    text: str


@dataclass(frozen=True, slots=True)
class Row:
    """A pair as the model takes it: pixels (3, side, side), the text's vector (d,) of unit length, and the text itself."""

    pixels: Any
    vector: Any
    text: str


class Contrast:
    """Pairs as a model takes them, and their loss.

    Args:
        model: of `clip.load_model`, with its tokenizer and image processor. peft puts its layers into this very model.
    """

    batch = 16  # pairs of a step: each text is held against all the others
    targets = r"vision_model\.encoder\..*\.(q_proj|k_proj|v_proj|out_proj)"  # attention of the vision tower; SigLIP's head stays

    def __init__(self, model: Any, tokenizer: Any, processor: Any) -> None:
        self._model, self._tokenizer, self._processor = model, tokenizer, processor

    def rows(self, examples: Sequence[Any]) -> list[Row]:
        """Each pair, prepared.

        Raises:
            InvalidRequest: one is no pair, or all have the same text, so that there is nothing to tell apart.
        """
        import torch

        if not all(isinstance(example, Pair) for example in examples):
            raise InvalidRequest('this model learns from pictures with texts: {"picture": path, "text": str}')
        if len({example.text for example in examples}) < 2:
            raise InvalidRequest(
                "pictures are told apart by their texts: at least two are wanted, to learn from and to judge by"
            )
        found = []
        for example in examples:
            pixels = self._processor(images=[example.picture], return_tensors="pt")["pixel_values"][0]
            with torch.no_grad():
                vector = torch.nn.functional.normalize(
                    text_features(self._model, self._tokenizer, [example.text]).float(), dim=-1
                )[0]
            found.append(Row(pixels, vector, example.text))
        return found

    def loss(self, rows: Sequence[Row]) -> Any:
        """Of pairs that are held against each other, a scalar in nats; differentiable where the adapter is."""
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
        wanted = same / same.sum(dim=1, keepdim=True)
        return (
            torch.nn.functional.cross_entropy(logits, wanted)
            + torch.nn.functional.cross_entropy(logits.T, wanted)
        ) / 2

    def judged(self, rows: Sequence[Row]) -> float:
        """The mean loss of batches in the order of the rows, the same for whatever adapter."""
        import torch

        parts = [rows[first : first + self.batch] for first in range(0, len(rows), self.batch)]
        if len(parts) > 1 and len(parts[-1]) < self.batch:
            parts[-2:] = [[*parts[-2], *parts[-1]]]  # a pair alone would have no rival
        self._model.eval()
        with torch.no_grad():
            return sum(float(self.loss(part)) * len(part) for part in parts) / len(rows)
