"""Sentence embeddings: op `texts` gives a unit vector for each text. Runs on a CPU.

all-MiniLM-L6-v2, int8 ONNX: mean of the tokens' last hidden states, normalised (the pooling stated in the
model card). OpenVINO takes 2.7 ms for a text of 40 tokens on one thread; ONNX Runtime takes 7 ms and unpacks
all weights to float32 (cosine between both: 0.99997). The first call loads the model, so a worker that is
never searched does not load it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import Engine, Op, Payload
from streamsvc.core.errors import InvalidRequest, ModelMissing

DEFAULT = "e5-small-v2"
LONGEST = 128  # tokens of one text, as in training; longer texts are truncated
MAX_TEXTS = 64  # texts per request
BATCH = 4  # texts per inference; larger batches save little on one thread and need memory


def load(options: Mapping[str, Any]) -> Engine:
    """The engine. The first request loads the model, and fails alone if it is missing.

    Args:
        options: "models": the folder of models; "embed": {"model": name}, optional.
    """
    name = str(options.get("embed", {}).get("model", DEFAULT))
    encoder = functools.cache(lambda: Encoder(Path(options["models"]) / name))

    def texts(batch: list[Payload]) -> list[Payload | Exception]:
        """{"texts": [str]} -> {"vectors": float32 (n, d)}, each row of unit length."""
        return [embed_request(encoder().vectors, payload) for payload in batch]

    return Engine({"texts": Op(texts)}, {"embed": name})


def embed_request(
    vectors: Callable[[list[str]], NDArray[np.float32]], payload: Payload
) -> Payload | Exception:
    """The result of one request of an op `texts`; `vectors` embeds the texts."""
    texts = payload.get("texts")
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= MAX_TEXTS
        or not all(isinstance(text, str) for text in texts)
    ):
        return InvalidRequest(f"texts takes a list of 1 to {MAX_TEXTS} texts")
    return {"vectors": vectors(texts)}


class Encoder:
    """Texts to unit vectors, on one thread.

    Raises:
        ModelMissing: a file of the model is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        import openvino
        from tokenizers import Tokenizer

        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            graph = openvino.Core().compile_model(
                str(folder / "model.onnx"), "CPU", {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
            )
        except (
            Exception
        ):  # tokenizers raises bare Exceptions, OpenVINO RuntimeErrors that quote its C++ source
            raise ModelMissing(
                f"the model {folder.name} cannot be loaded: run `streamsvc models pull {folder.name}`"
            ) from None
        self._request = graph.create_infer_request()
        self._tokenizer.enable_truncation(LONGEST)
        self._tokenizer.enable_padding()

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """float32 (n, d), unit rows in the order of the texts; texts of similar length share a batch."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = [order[first : first + BATCH] for first in range(0, len(order), BATCH)]
        vectors = np.concatenate([self._run([texts[index] for index in part]) for part in parts])
        return vectors[np.argsort(order)]

    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        coded = self._tokenizer.encode_batch(texts)
        mask = np.array([code.attention_mask for code in coded], dtype=np.int64)
        ids = np.array([code.ids for code in coded], dtype=np.int64)
        hidden = self._request.infer(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )[0]
        pooled = (hidden * mask[:, :, None]).sum(
            axis=1
        )  # the mean up to a factor, which the normalisation removes
        unit: NDArray[np.float32] = (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).astype(
            np.float32
        )
        return unit
