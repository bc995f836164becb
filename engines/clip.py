"""Pictures and texts in one space: the towers of a CLIP or SigLIP model, from a folder that transformers' `save_pretrained` wrote.

A part of the see worker (`engines.vision`) where `see.clip` names such a model: every picture that is looked at gets a vector by which a
sentence finds it, and tags out of a list of labels. No package wheel holds such weights, so no default uses this; it needs the extra
`gpu` (torch, transformers). On the CPU the vision tower is an ONNX file, run by the fastest runtime (`build_vision.encoder`); that of texts
is torch.

What a cosine says differs from model to model (0.3 is much for CLIP, 0.1 for SigLIP) and from picture to picture. So a text is held
against what REFERENCE_TEXTS texts give with the same picture, and that yardstick is put into the picture's vector: its product with a text's
vector is how many standard deviations the text stands out.

    python -m engines.clip MODELS_FOLDER NAME [--adapter NAME]     builds the ONNX file ahead of the first start

Sources: A. Radford et al. 2021 (CLIP: a softmax over the labels), X. Zhai et al. 2023 (SigLIP: a sigmoid for each label by itself, its
texts padded to their full length).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import build_vision, export
from engines.vlm_adapters import WEIGHTS, adapter_path, suppress_future_warnings
from streamsvc.core.errors import InvalidRequest, ModelMissing

CLASSES = ("clip", "siglip")  # model_type of config.json; SigLIP 2 of a fixed size is "siglip" too
PROMPT = "a photo of a {}."
BATCH, TOGETHER = 16, 32  # pictures, and texts, of one run
MAX_TAGS, MAX_LABELS = 5, 200  # of a picture; of a file
MIN_SPREAD = 1e-3  # of the cosines with REFERENCE_TEXTS; so that a vector fits float16
# What live pictures show, in wide words: a text that is about a picture stands out from these, and a label must win against them.
REFERENCE_TEXTS = (
    "a photo.",
    "a picture of something else.",
    "a blurry picture.",
    "a dark picture.",
    "a screenshot of a computer program.",
    "a slide with text.",
    "a page of a document.",
    "a diagram.",
    "a map.",
    "a drawing.",
    "a person who talks to the camera.",
    "a group of people.",
    "a close-up of hands.",
    "an empty room.",
    "an office.",
    "a kitchen.",
    "a street with traffic.",
    "a building from outside.",
    "a landscape.",
    "the sky.",
    "water.",
    "plants.",
    "an animal.",
    "food on a table.",
    "a machine.",
    "clothes.",
    "a sports match.",
    "a stage at night.",
    "a pattern of colours.",
    "a logo.",
)


@dataclass(frozen=True, slots=True)
class Match:
    """What one picture gives: `vector` float32 (d + 1,), to be multiplied with a text's; `tags`: (label, probability), best first."""

    vector: NDArray[np.float32]
    tags: tuple[tuple[str, float], ...]


class Matcher:
    """The model, its labels, and the yardstick.

    Args:
        options: "models": the folder of all models; "clip": a folder in it; "clip_device": of torch, by default "cpu"; "clip_adapter": one
            of `engines.finetune`, below "adapters" beside the model; "labels": a file, one label a line; "tag_threshold": the least
            probability.

    Raises:
        ModelMissing: torch or transformers, the model, its adapter or the file of labels is not there or is none.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        device = str(options.get("clip_device", "cpu"))
        self._towers = Towers(
            Path(options["models"]) / str(options["clip"]), device, options.get("clip_adapter")
        )
        self.describe = f"{options['clip']} ({self._towers.runtime})"
        self.together = (
            1 if device == "cpu" else BATCH
        )  # on one core a batch gains nothing, and the first would wait for the last
        self._threshold = float(options.get("tag_threshold", 0.4))
        self._labels = _labels(Path(options["labels"])) if options.get("labels") else ()
        vectors = self._towers.kept([*REFERENCE_TEXTS, *(PROMPT.format(label) for label in self._labels)])
        self._common, self._known = vectors[: len(REFERENCE_TEXTS)], vectors[len(REFERENCE_TEXTS) :]
        rivals = [
            not any(label.lower() in text for label in self._labels) for text in REFERENCE_TEXTS
        ]  # a label is no rival of itself
        self._rivals = self._common[rivals]

    def look(self, pictures: Sequence[Any]) -> list[Match]:
        """Of RGB pictures of any size, in their order. One caller at a time."""
        if not pictures:
            return []
        return [
            Match(self._measured(vector), self._tags(vector)) for vector in self._towers.pictures(pictures)
        ]

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n, d + 1): times a picture's vector, how many standard deviations the text stands out among REFERENCE_TEXTS ones."""
        vectors = self._towers.texts(texts)
        return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)

    def _measured(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A picture's vector with its yardstick. By quartiles: one common text may well be about the picture."""
        low, middle, high = np.quantile(self._common @ vector, (0.25, 0.5, 0.75))
        spread = max((high - low) / 1.349, MIN_SPREAD)  # 1.349: of a normal distribution
        return np.append(vector, -middle).astype(np.float32) / np.float32(spread)

    def _tags(self, vector: NDArray[np.float32]) -> tuple[tuple[str, float], ...]:
        scores = self._towers.probabilities(self._known @ vector, self._rivals @ vector)
        best = np.argsort(-scores)[:MAX_TAGS].tolist()
        return tuple((self._labels[n], float(scores[n])) for n in best if scores[n] >= self._threshold)


class Towers:
    """Both towers of one model. `runtime`: what computes the vision tower."""

    def __init__(self, folder: Path, device: str, adapter: str | None = None) -> None:
        model, self._tokenizer, self._processor = load_model(folder, device)
        if adapter:
            model = _adapted(model, folder, adapter)
        bias = getattr(model, "logit_bias", None)  # SigLIP has one
        self._scale, self._bias = float(model.logit_scale.exp()), None if bias is None else float(bias)
        self._folder, self._model, self.runtime = folder, model, f"torch, {device}"
        self._encode: Callable[[NDArray[np.float32]], NDArray[np.float32]] = self._by_torch
        if device == "cpu":
            source, _ = export.cached(
                folder, export.pooled(model), int(model.config.vision_config.image_size)
            )
            self._encode, choice = build_vision.encoder(source)
            self.runtime = choice.runtime
            model.vision_model = None  # its weights are the runtime's now

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n, d), rows of unit length."""
        import torch

        parts = [texts[first : first + TOGETHER] for first in range(0, len(texts), TOGETHER)]
        with torch.inference_mode():
            return np.concatenate(
                [
                    _unit(text_features(self._model, self._tokenizer, part).float().cpu().numpy())
                    for part in parts
                ]
            )

    def kept(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same, kept beside the model: a text takes up to a fifth of a second of one core, and a start has many."""
        weights = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(self._folder.glob("*.safetensors"))
        ]
        mark = hashlib.sha256(json.dumps([weights, list(texts)]).encode()).hexdigest()[:16]
        place = self._folder / f"texts-{mark}.npy"
        with contextlib.suppress(OSError, ValueError):  # none yet, or not a whole one
            if len(known := np.load(place)) == len(texts):
                return np.asarray(known, np.float32)
        vectors = self.texts(texts)
        scratch = place.with_suffix(".part")
        with scratch.open("wb") as file:
            np.save(file, vectors)
        scratch.replace(place)
        return vectors

    def pictures(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """float32 (n, d) of RGB pictures, rows of unit length."""
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return _unit(self._encode(pixels.numpy()))

    def probabilities(self, cosines: NDArray[np.float32], rivals: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of each label, shape (n,), from its cosine with a picture; where they add up to one, the rivals take their share."""
        logits = np.concatenate([cosines, rivals]).astype(np.float64) * self._scale
        if self._bias is not None:
            each: NDArray[np.float64] = 1 / (1 + np.exp(-(logits + self._bias)))
            return each[: len(cosines)]
        powers = np.exp(logits - logits.max())
        shares: NDArray[np.float64] = powers / powers.sum()
        return shares[: len(cosines)]

    def _by_torch(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            moved = torch.from_numpy(pixels).to(self._model.device, self._model.dtype)
            return np.asarray(
                self._model.get_image_features(pixel_values=moved).pooler_output.float().cpu().numpy()
            )


def load_model(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """Model, tokenizer and image processor, nothing to be trained. On the CPU in float32, elsewhere in the type of the checkpoint.

    Raises:
        ModelMissing: torch or transformers, or a file of the model, is not there, or it is of another class.
    """
    try:
        import torch
        import transformers as library
    except ImportError:
        raise ModelMissing("this model needs torch and transformers: pip install 'streamsvc[gpu]'") from None
    if not fits(folder):
        raise ModelMissing(f"the model {folder.name} is not there, or neither CLIP nor SigLIP")
    transformers: Any = library  # its own types are narrower than what it takes
    transformers.utils.logging.disable_progress_bar()
    kind = torch.float32 if device == "cpu" else "auto"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=kind
        )
    except (OSError, ValueError, KeyError):
        raise ModelMissing(f"the model {folder.name} cannot be loaded") from None
    return model.to(device).eval().requires_grad_(False), tokenizer, processor


def fits(folder: Path) -> bool:
    """Whether a folder holds a model of CLASSES."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] in CLASSES
    except (OSError, ValueError, KeyError, TypeError):
        return False


def text_features(model: Any, tokenizer: Any, texts: Sequence[str]) -> Any:
    """Tensor (n, d), not of unit length. No mask is given: SigLIP attends to its padding, CLIP looks only back from the end of a text."""
    coded = tokenizer(
        list(texts),
        padding="max_length" if hasattr(model, "logit_bias") else True,
        truncation=True,
        max_length=int(model.config.text_config.max_position_embeddings),
        return_tensors="pt",
    )
    return model.get_text_features(input_ids=coded["input_ids"].to(model.device)).pooler_output


def _adapted(model: Any, folder: Path, name: str) -> Any:
    """The model with an adapter's weights added to its own."""
    try:
        place = adapter_path(folder.parent / "adapters", name)
    except InvalidRequest as error:
        raise ModelMissing(str(error)) from None
    if not (place / WEIGHTS).is_file():  # security: pickled weights are not read
        raise ModelMissing(f"the adapter {name} is not there")
    import peft

    try:
        with suppress_future_warnings():
            return (
                peft.PeftModel.from_pretrained(model, str(place))
                .merge_and_unload()
                .eval()
                .requires_grad_(False)
            )
    except (ValueError, KeyError, RuntimeError, OSError):
        raise ModelMissing(f"the adapter {name} does not fit this model") from None


def _labels(path: Path) -> tuple[str, ...]:
    """One label a line; empty lines are left out."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ModelMissing(f"the file of labels {path} cannot be read") from None
    labels = tuple(dict.fromkeys(line for line in lines if line))
    if not 0 < len(labels) <= MAX_LABELS:
        raise ModelMissing(f"the file of labels {path} has {len(labels)} of them, not 1 to {MAX_LABELS}")
    return labels


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(
        np.float32
    )
    return unit


def main() -> None:
    """Build what the first start would build."""
    parser = argparse.ArgumentParser(
        description="Build the vision tower of a CLIP or SigLIP model for this processor."
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("name")
    parser.add_argument("--adapter")
    asked = parser.parse_args()
    print(f"{asked.name}: {Towers(asked.models / asked.name, 'cpu', asked.adapter).runtime}")


if __name__ == "__main__":
    main()
