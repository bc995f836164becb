"""Pictures and texts in one space: the towers of CLIP or SigLIP (transformers), from a folder that `save_pretrained` wrote.

Op `look` keeps the contract of `engines.vision`, so `streamsvc.encode.look` takes it as it is: its embedding is the picture's vector, its
tags are zero-shot, from a list of labels. Op `texts` keeps the contract of `engines.embed`, so that pictures can be found by a sentence.
No package wheel holds such weights, so no default uses this; it needs the extra `gpu` (torch, transformers).

Sources: A. Radford et al. 2021 (CLIP: a softmax over the labels), X. Zhai et al. 2023 (SigLIP: a sigmoid for each label by itself, its
texts padded to their full length).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import Engine, Op, Payload
from engines.embed import answered
from engines.vision import FLAT, opened
from streamsvc.errors import ModelMissing, WorkerError

PROMPT = "a photo of a {}."
BATCH = 16  # pictures of one run
MOST_TAGS = 5


def load(options: Mapping[str, Any]) -> Engine:
    """The engine of the model in the folder options["models"] / options["encoder"].

    Args:
        options: "labels": what may be claimed of a picture; "tag_threshold": the least probability; "device": of torch, by default "cpu".

    Raises:
        ModelMissing: torch or transformers, or a file of the model, is not there.
    """
    towers = Towers(Path(options["models"]) / str(options["encoder"]), str(options.get("device", "cpu")))
    labels = [str(label) for label in options.get("labels", ())]
    known = towers.texts([PROMPT.format(label) for label in labels]) if labels else np.zeros((0, 1), np.float32)
    threshold = float(options.get("tag_threshold", 0.4))

    def look(batch: list[Payload]) -> list[Payload | Exception]:
        """{"jpeg": uint8 bytes} -> {"embedding", "tags", "tag_scores", "boxes", "box_scores", "corners" (0, 4), "blank"}."""
        results: list[Payload | Exception] = [WorkerError("the picture cannot be read", code="bad_picture")] * len(batch)
        pictures = {}
        for place, payload in enumerate(batch):
            try:
                pictures[place] = opened(payload["jpeg"])
            except (OSError, ValueError, KeyError):
                continue
        vectors = towers.pictures(list(pictures.values())) if pictures else ()
        for (place, picture), vector in zip(pictures.items(), vectors, strict=True):
            blank = float(np.asarray(picture.convert("L").resize((64, 36))).std()) < FLAT
            scores = towers.probabilities(known @ vector) if labels and not blank else np.zeros(0)
            best = [n for n in np.argsort(-scores)[:MOST_TAGS].tolist() if scores[n] >= threshold]
            results[place] = {
                "embedding": vector,
                "tags": [labels[n] for n in best],
                "tag_scores": [round(float(scores[n]), 3) for n in best],
                "boxes": [],
                "box_scores": [],
                "corners": np.zeros((0, 4), np.float32),
                "blank": blank,
            }
        return results

    def texts(batch: list[Payload]) -> list[Payload | Exception]:
        """{"texts": [str]} -> {"vectors": float32 (n, d)}, each row of unit length."""
        return [answered(towers.texts, payload) for payload in batch]

    return Engine({"look": Op(look, batch=BATCH), "texts": Op(texts)}, {"vision": str(options["encoder"])})


class Towers:
    """Both towers of one model."""

    def __init__(self, folder: Path, device: str) -> None:
        try:
            import torch
            from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
        except ImportError:
            raise ModelMissing("this model needs torch and transformers: pip install 'streamsvc[gpu]'") from None
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            untyped: Any = AutoImageProcessor
            self._processor = untyped.from_pretrained(folder, local_files_only=True)
            self._model: Any = AutoModel.from_pretrained(folder, local_files_only=True).to(device).eval().requires_grad_(False)
        except (OSError, ValueError, KeyError):
            raise ModelMissing(f"the model {folder.name} cannot be loaded") from None
        self._torch, self._device = torch, device
        self._bias = getattr(self._model, "logit_bias", None)  # SigLIP has one
        self._length = int(self._model.config.text_config.max_position_embeddings)

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n, d), rows of unit length."""
        coded = self._tokenizer(
            list(texts),
            padding="max_length" if self._bias is not None else True,
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        ids = coded["input_ids"].to(self._device)  # no mask: SigLIP attends to its padding, CLIP looks only back from the end of the text
        with self._torch.inference_mode():
            return _unit(self._model.get_text_features(input_ids=ids))

    def pictures(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """float32 (n, d) of RGB pictures, rows of unit length."""
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        with self._torch.inference_mode():
            return _unit(self._model.get_image_features(pixel_values=pixels.to(self._device)))

    def probabilities(self, cosines: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of each label, shape (n,), from its cosine with a picture."""
        logits = cosines.astype(np.float64) * float(self._model.logit_scale.exp())
        if self._bias is not None:
            each: NDArray[np.float64] = 1 / (1 + np.exp(-(logits + float(self._bias))))
            return each
        powers = np.exp(logits - logits.max())
        shares: NDArray[np.float64] = powers / powers.sum()
        return shares


def _unit(output: Any) -> NDArray[np.float32]:
    features = output.pooler_output.float().cpu().numpy()
    unit: NDArray[np.float32] = (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(np.float32)
    return unit
