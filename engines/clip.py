"""CLIP and SigLIP models: picture vectors for search by sentences, and tags from a list of labels.

Used by the see worker (`engines.vision`) if `see.clip` names a folder written by transformers'
`save_pretrained`. No package wheel contains such weights, so no default uses this. It needs the extra `gpu`
(torch, transformers). On a CPU the vision tower is an ONNX file, run by the fastest runtime
(`engines.encoder`); the text tower runs in torch.

Cosine similarities are not comparable between models (0.3 is high for CLIP, 0.1 for SigLIP) or between
pictures. So each picture is calibrated against REFERENCE_TEXTS, and the calibration is part of its vector:
the dot product with a text's vector is the number of standard deviations by which the text exceeds the
reference texts (a z-score).

    python -m engines.clip MODELS_FOLDER NAME [--adapter NAME]     builds the ONNX file before the first start

Sources: A. Radford et al. 2021 (CLIP: softmax over the labels), X. Zhai et al. 2023 (SigLIP: a sigmoid per
label, texts padded to full length).
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

from engines import encoder, export
from engines.vlm_adapters import WEIGHTS, adapter_path, suppress_future_warnings
from streamsvc.core.errors import InvalidRequest, ModelMissing

CLASSES = ("clip", "siglip")  # model_type in config.json; fixed-size SigLIP 2 is "siglip" too
PROMPT = "a photo of a {}."
BATCH = 16  # pictures per inference
TEXT_BATCH = 32  # texts per inference
MAX_TAGS = 5  # per picture
MAX_LABELS = 200  # per file
MIN_SPREAD = 1e-3  # of the cosines with REFERENCE_TEXTS, so that a vector fits float16
# Generic descriptions of live pictures: the baseline for z-scores, and rivals of the labels in a softmax.
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
    """The result for one picture.

    Calibrated `vector`, float32 (d + 1,); `tags`: (label, probability), best first.
    """

    vector: NDArray[np.float32]
    tags: tuple[tuple[str, float], ...]


class Matcher:
    """A model with its labels and the calibration.

    Args:
        options: "models": the folder of models; "clip": a folder in it; "clip_device": torch device, default
            "cpu"; "clip_adapter": an adapter of `engines.finetune`, in "adapters" beside the model; "labels":
            a file with one label per line; "tag_threshold": the least probability of a tag.

    Raises:
        ModelMissing: torch, transformers, the model, its adapter or the label file is missing or invalid.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        device = str(options.get("clip_device", "cpu"))
        self._towers = Towers(
            Path(options["models"]) / str(options["clip"]), device, options.get("clip_adapter")
        )
        self.describe = f"{options['clip']} ({self._towers.runtime})"
        self.batch = 1 if device == "cpu" else BATCH  # on one core batches only add latency
        self._threshold = float(options.get("tag_threshold", 0.4))
        self._labels = _labels(Path(options["labels"])) if options.get("labels") else ()
        prompts = [PROMPT.format(label) for label in self._labels]
        vectors = self._towers.cached_texts([*REFERENCE_TEXTS, *prompts])
        self._references = vectors[: len(REFERENCE_TEXTS)]
        self._label_vectors = vectors[len(REFERENCE_TEXTS) :]
        # A reference text that contains a label is not its rival.
        rivals = [not any(label.lower() in text for label in self._labels) for text in REFERENCE_TEXTS]
        self._rivals = self._references[rivals]

    def look(self, pictures: Sequence[Any]) -> list[Match]:
        """Vectors and tags of RGB pictures of any size, in their order. Not thread-safe."""
        if not pictures:
            return []
        vectors = self._towers.pictures(pictures)
        return [Match(self._calibrated(vector), self._tags(vector)) for vector in vectors]

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n, d + 1).

        The dot product with a picture's vector is the text's z-score among REFERENCE_TEXTS.
        """
        vectors = self._towers.texts(texts)
        return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)

    def _calibrated(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """A picture's vector with its calibration.

        By quartiles, because some reference texts may describe the picture.
        """
        low, middle, high = np.quantile(self._references @ vector, (0.25, 0.5, 0.75))
        spread = max(
            (high - low) / 1.349, MIN_SPREAD
        )  # a normal distribution's interquartile range is 1.349 deviations
        return np.append(vector, -middle).astype(np.float32) / np.float32(spread)

    def _tags(self, vector: NDArray[np.float32]) -> tuple[tuple[str, float], ...]:
        scores = self._towers.probabilities(self._label_vectors @ vector, self._rivals @ vector)
        best = np.argsort(-scores)[:MAX_TAGS].tolist()
        return tuple((self._labels[n], float(scores[n])) for n in best if scores[n] >= self._threshold)


class Towers:
    """Both towers of one model. `runtime`: the runtime of the vision tower."""

    def __init__(self, folder: Path, device: str, adapter: str | None = None) -> None:
        model, self._tokenizer, self._processor = load_model(folder, device)
        if adapter:
            model = _adapted(model, folder, adapter)
        bias = getattr(model, "logit_bias", None)  # SigLIP only
        self._scale = float(model.logit_scale.exp())
        self._bias = None if bias is None else float(bias)
        self._folder = folder
        self._model = model
        self.runtime = f"torch, {device}"
        self._encode: Callable[[NDArray[np.float32]], NDArray[np.float32]] = self._by_torch
        if device == "cpu":
            side = int(model.config.vision_config.image_size)
            path, _ = export.cached(folder, export.pooled(model), side)
            loaded = encoder.load(encoder.Source(path, side))
            self._encode, self.runtime = loaded.encode, str(loaded.choice)
            model.vision_model = None  # frees the weights; the runtime has its own copy

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n, d), unit rows."""
        import torch

        parts = [texts[first : first + TEXT_BATCH] for first in range(0, len(texts), TEXT_BATCH)]
        with torch.inference_mode():
            return np.concatenate(
                [
                    _unit(text_features(self._model, self._tokenizer, part).float().cpu().numpy())
                    for part in parts
                ]
            )

    def cached_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `texts`, cached in a file beside the model.

        A text takes up to 0.2 s of one core, and a start needs many.
        """
        weights = [
            (path.name, path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(self._folder.glob("*.safetensors"))
        ]
        mark = hashlib.sha256(json.dumps([weights, list(texts)]).encode()).hexdigest()[:16]
        path = self._folder / f"texts-{mark}.npy"
        with contextlib.suppress(OSError, ValueError):  # not cached yet, or incomplete
            if len(cached := np.load(path)) == len(texts):
                return np.asarray(cached, np.float32)
        vectors = self.texts(texts)
        scratch = path.with_suffix(".part")
        with scratch.open("wb") as file:
            np.save(file, vectors)
        scratch.replace(path)
        return vectors

    def pictures(self, pictures: Sequence[Any]) -> NDArray[np.float32]:
        """float32 (n, d) of RGB pictures, unit rows."""
        pixels = self._processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        return _unit(self._encode(pixels.numpy()))

    def probabilities(self, cosines: NDArray[np.float32], rivals: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probability of each label, shape (n,), from its cosine with a picture.

        With a softmax the rivals take their share.
        """
        logits = np.concatenate([cosines, rivals]).astype(np.float64) * self._scale
        if self._bias is not None:
            independent: NDArray[np.float64] = 1 / (1 + np.exp(-(logits + self._bias)))
            return independent[: len(cosines)]
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
    """Model (frozen), tokenizer and image processor. float32 on the CPU, elsewhere the checkpoint's type.

    Raises:
        ModelMissing: torch, transformers or a file of the model is missing, or the model is of another class.
    """
    try:
        import torch
        import transformers as library
    except ImportError:
        raise ModelMissing("this model needs torch and transformers: pip install 'streamsvc[gpu]'") from None
    if not is_supported(folder):
        raise ModelMissing(f"the model {folder.name} is missing, or is neither CLIP nor SigLIP")
    transformers: Any = library  # its annotations are narrower than what it accepts
    transformers.utils.logging.disable_progress_bar()
    dtype = torch.float32 if device == "cpu" else "auto"
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError, KeyError):
        raise ModelMissing(f"the model {folder.name} cannot be loaded") from None
    return model.to(device).eval().requires_grad_(False), tokenizer, processor


def is_supported(folder: Path) -> bool:
    """Whether the folder contains a model of CLASSES."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] in CLASSES
    except (OSError, ValueError, KeyError, TypeError):
        return False


def text_features(model: Any, tokenizer: Any, texts: Sequence[str]) -> Any:
    """Tensor (n, d), not normalised.

    Without a mask: SigLIP attends to its padding, and CLIP's attention is causal.
    """
    coded = tokenizer(
        list(texts),
        padding="max_length" if hasattr(model, "logit_bias") else True,
        truncation=True,
        max_length=int(model.config.text_config.max_position_embeddings),
        return_tensors="pt",
    )
    return model.get_text_features(input_ids=coded["input_ids"].to(model.device)).pooler_output


def _adapted(model: Any, folder: Path, name: str) -> Any:
    """The model with an adapter merged into its weights."""
    try:
        path = adapter_path(folder.parent / "adapters", name)
    except InvalidRequest as error:
        raise ModelMissing(str(error)) from None
    if not (path / WEIGHTS).is_file():  # security: pickled weights are not loaded
        raise ModelMissing(f"the adapter {name} is missing")
    import peft

    try:
        with suppress_future_warnings():
            return (
                peft.PeftModel.from_pretrained(model, str(path))
                .merge_and_unload()
                .eval()
                .requires_grad_(False)
            )
    except (ValueError, KeyError, RuntimeError, OSError):
        raise ModelMissing(f"the adapter {name} does not fit this model") from None


def _labels(path: Path) -> tuple[str, ...]:
    """One label per line, without empty lines and duplicates."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ModelMissing(f"the label file {path} cannot be read") from None
    labels = tuple(dict.fromkeys(line for line in lines if line))
    if not 0 < len(labels) <= MAX_LABELS:
        raise ModelMissing(f"the label file {path} has {len(labels)} labels, not 1 to {MAX_LABELS}")
    return labels


def _unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = (features / np.linalg.norm(features, axis=-1, keepdims=True)).astype(
        np.float32
    )
    return unit


def main() -> None:
    """Build in advance what the first start would build."""
    parser = argparse.ArgumentParser(
        description="Build the vision tower of a CLIP or SigLIP model for this processor."
    )
    parser.add_argument("models", type=Path)
    parser.add_argument("name")
    parser.add_argument("--adapter")
    parsed = parser.parse_args()
    print(f"{parsed.name}: {Towers(parsed.models / parsed.name, 'cpu', parsed.adapter).runtime}")


if __name__ == "__main__":
    main()
