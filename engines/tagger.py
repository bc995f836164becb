"""The tagger: pictures to the scores of 1000 ImageNet classes and to a vector, through an encoder.

EfficientNet-Lite3 is published as a TFLite file in 8 bits. Its features come from `engines.encoder`, in the
runtime that is best here; what is left of it, the last layer, is a product of matrices. Made once per
machine, beside the file: `onnx-<hash>/` with the ONNX file, the last layer and the choice of the runtime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from engines import encoder
from engines.build_vision import read_graph
from engines.building import building
from engines.encoder import Choice, Encoder, Source
from engines.fetch import folder_of
from engines.files import as_made, model_file, note_made
from engines.published_graph import Head, cut, head, save_onnx
from streamsvc.core.errors import ModelMissing, StreamsvcError, WorkerError

SIDE = 280  # pixels
RECIPE = "1"  # increment when the making of the ONNX file changes
MODEL = "efficientnet_lite3.tflite"
LABELS = "efficientnet_labels.txt"
_CLASSES = 1000
_ONNX = "model.onnx"
_HEAD = "head.npz"
# ImageNet classes that the tagger confuses, by their common name (first names of ImageNet's labels).
FAMILIES = {
    "cat": "tabby,tiger cat,Persian cat,Siamese cat,Egyptian cat",
    "motorcycle": "moped,motor scooter",
    "rocket": "missile,projectile",
    "car": "cab,minivan,sports car,beach wagon,convertible,jeep,limousine,racer,Model T",
}


class Tagger:
    """Scores of 1000 ImageNet classes, and the pooled features below them as an embedding.

    Args:
        folder: of the model.

    Raises:
        ModelMissing: a file is missing or is not the expected model.
        WorkerError: no runtime computes it.

    `encoder`: what computes the features.
    """

    def __init__(self, folder: Path) -> None:
        model, labels = model_file(folder / MODEL), model_file(folder / LABELS)
        lines = labels.read_text(encoding="utf-8").splitlines()
        self.labels = [line.split(",")[0].strip() for line in lines if line.strip()]
        self.encoder, (self._weights, self._biases) = _loaded(model)
        if not len(self.labels) == len(self._biases) == _CLASSES:
            raise ModelMissing(f"the model file {model} is not the expected tagger: {_PULL}")

    def tags(self, picture: Image.Image) -> tuple[dict[str, float], NDArray[np.float32]]:
        """Scores by label, and the embedding, float32 (1280,), unit length.

        A score is the lower of the whole picture's and its middle's.
        """
        views = [
            picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR),
            ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BILINEAR),
        ]
        features = self.encoder.encode(np.stack([np.asarray(view) for view in views]).transpose(0, 3, 1, 2))
        whole, middle = (merge_families(scores) for scores in self._scores(features))
        pooled = features.sum(axis=0)
        embedding = pooled / max(float(np.linalg.norm(pooled)), 1e-9)
        return {name: min(score, middle[name]) for name, score in whole.items()}, embedding

    def _scores(self, features: NDArray[np.float32]) -> list[dict[str, float]]:
        """The probability of each class by its label, for each picture."""
        logits = features @ self._weights.T + self._biases
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares = powers / powers.sum(axis=1, keepdims=True)
        return [dict(zip(self.labels, row, strict=True)) for row in shares.tolist()]


def merge_families(scores: Mapping[str, float]) -> dict[str, float]:
    """Scores in which the classes of each of FAMILIES are replaced by their sum under the family's name."""
    result = dict(scores)
    for name, members in FAMILIES.items():
        result[name] = min(
            1.0, sum(result.pop(member, 0.0) for member in members.split(",")) + result.pop(name, 0.0)
        )
    return result


def source_of(model: Path) -> Source:
    """Where the encoder of a tagger's file has its ONNX file, whether that is made yet or not."""
    mark = hashlib.sha256(f"{RECIPE} ".encode() + model.read_bytes()).hexdigest()[:16]
    return Source(
        model.parent / f"onnx-{mark}" / _ONNX, SIDE, published=model, shape=cut, low=0.0, high=255.0
    )


def choice_of(models: Path, name: str) -> Choice | None:
    """What serves a tagger on this machine; None: not measured yet, or the file is missing."""
    try:
        return encoder.stored(source_of(model_file(folder_of(name, models) / MODEL)))
    except ModelMissing:
        return None


_PULL = "run `streamsvc models pull`"


def _loaded(model: Path) -> tuple[Encoder, Head]:
    """The encoder and the last layer; the first time, half a minute of one core."""
    source = source_of(model)
    try:
        _make(source, model)
        with np.load(source.onnx.parent / _HEAD) as stored:
            return encoder.load(source), (stored["weights"], stored["biases"])
    except StreamsvcError as error:  # without an ONNX file there is nothing to compare with
        last = head(read_graph(model))
        choice = Choice("openvino int8", refused={"others": error.code})
        return Encoder(encoder.openvino_int8(source), choice, SIDE), last


def _make(source: Source, model: Path) -> None:
    """Write the ONNX file and the last layer, if they are not there.

    Raises:
        ModelMissing: the model cannot be read, or the package onnx is missing.
        WorkerError: the graph is another one, or what is made of it differs from it (code "onnx_differs").
    """
    target = source.onnx.parent
    if as_made(target, _ONNX, _HEAD):
        return
    with building(target, "onnx-*", lambda: as_made(target, _ONNX, _HEAD)) as scratch:
        graph = read_graph(model)
        weights, biases = head(graph)
        np.savez(scratch / _HEAD, weights=weights, biases=biases)
        cut(graph)
        made = Source(scratch / _ONNX, SIDE, low=source.low, high=source.high)
        save_onnx(graph, made.onnx)
        pixels = encoder.trial(made)
        published = encoder.openvino_int8(source)(pixels)
        if encoder.cosine(encoder.onnxruntime(made)(pixels), published) < encoder.MIN_COSINE:
            raise WorkerError(f"the ONNX file made of {model.name} differs from it", code="onnx_differs")
        note_made(scratch, _ONNX, _HEAD)
