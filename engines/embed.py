"""Sentence embeddings on a CPU: one op, `texts`, gives a unit vector for each text.

all-MiniLM-L6-v2, int8 ONNX: the last hidden states of its tokens, averaged, at unit length (the pooling that its model card states).
OpenVINO runs it: at one thread 2.7 ms a text of 40 tokens, where ONNX Runtime takes 7 ms and unpacks all weights to float32 (the vectors
are equal to a cosine of 0.99997). It is loaded by the first call, not with the worker: who never searches does not pay for it.
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

DEFAULT = "minilm-l6-v2"
LONGEST = 128  # tokens of one text; of a longer one the beginning is taken (the model was trained on 128)
MOST = 64  # texts of one call
TOGETHER = 4  # texts of one run of the graph: more at once save little on one thread, and take memory


def load(options: Mapping[str, Any]) -> Engine:
    """The engine; its model is loaded by the first call, which fails alone where there is none.

    Args:
        options: "models" is the folder of models; "embed" may name another "model" there.
    """
    name = str(options.get("embed", {}).get("model", DEFAULT))
    encoder = functools.cache(lambda: Encoder(Path(options["models"]) / name))

    def texts(batch: list[Payload]) -> list[Payload | Exception]:
        """{"texts": [str]} -> {"vectors": float32 (n, d)}, each row of unit length."""
        return [answered(encoder().vectors, payload) for payload in batch]

    return Engine({"texts": Op(texts)}, {"embed": name})


def answered(vectors: Callable[[list[str]], NDArray[np.float32]], payload: Payload) -> Payload | Exception:
    """The result of one call of an op `texts`, by a function that embeds."""
    wanted = payload.get("texts")
    if (
        not isinstance(wanted, list)
        or not 0 < len(wanted) <= MOST
        or not all(isinstance(text, str) for text in wanted)
    ):
        return InvalidRequest(f"texts wants a list of 1 to {MOST} texts")
    return {"vectors": vectors(wanted)}


class Encoder:
    """Texts to unit vectors, on one thread.

    Raises:
        ModelMissing: a file of the model is not there or broken.
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
        ):  # tokenizers raises plain Exceptions, OpenVINO RuntimeErrors that quote its own source
            raise ModelMissing(
                f"the model {folder.name} cannot be loaded: run `streamsvc models pull {folder.name}`"
            ) from None
        self._request = graph.create_infer_request()
        self._tokenizer.enable_truncation(LONGEST)
        self._tokenizer.enable_padding()

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """float32 (n, d), rows of unit length in the order of the texts; texts of like length are run together."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = [order[first : first + TOGETHER] for first in range(0, len(order), TOGETHER)]
        found = np.concatenate([self._run([texts[index] for index in part]) for part in parts])
        return found[np.argsort(order)]

    def _run(self, texts: list[str]) -> NDArray[np.float32]:
        coded = self._tokenizer.encode_batch(texts)
        mask = np.array([code.attention_mask for code in coded], dtype=np.int64)
        ids = np.array([code.ids for code in coded], dtype=np.int64)
        hidden = self._request.infer(
            {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        )[0]
        pooled = (hidden * mask[:, :, None]).sum(axis=1)  # the average but for its length, which goes anyway
        unit: NDArray[np.float32] = (pooled / np.linalg.norm(pooled, axis=1, keepdims=True)).astype(
            np.float32
        )
        return unit
