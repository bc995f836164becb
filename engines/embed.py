"""Sentence vectors and ranking of texts for a query: ops `texts` and `rank`. Runs on a CPU.

`texts`: e5-small-v2, int8 ONNX: mean of the tokens' last hidden states, normalised, of the text behind the
prefix that the model was trained with. `rank`: the cross-encoder ms-marco-MiniLM-L-12-v2, int8 ONNX: one
logit for query and text together. The first call of an op loads its model.

Both quantise activations as they run, by the range of a whole batch: in a batch, a logit differs by up to 0.7
from that of the pair alone, and batches of 2 to 8 save nothing on one thread. So texts run one by one, and a
text has one vector and one score whatever comes with it. ONNX Runtime takes 9 ms for a text of 17 tokens and
17 ms for a pair of 25, OpenVINO 25 and 41 (one thread of a busy machine); they agree to 0.2 of a logit.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import Engine, Op, Payload, each
from engines.fetch import folder_of
from streamsvc.core.errors import InvalidRequest, ModelMissing

DEFAULT = "e5-small-v2"
RANKER = "ms-marco-minilm-l12-v2"
PREFIXES = {"query": "query: ", "passage": "passage: "}  # of the model card
LONGEST = 256  # tokens of one text, or of a query and a text; longer ones are truncated
MAX_TEXTS = 64  # texts per request


def load(options: Mapping[str, Any]) -> Engine:
    """The engine. The first request of an op loads its model, and fails alone if it is missing.

    Args:
        options: "models": the folder of models; "embed": {"model": name, "ranker": name}, each optional.
    """
    chosen = options.get("embed", {})
    name = str(chosen.get("model", DEFAULT))
    ranker_name = str(chosen.get("ranker", RANKER))
    encoder = functools.cache(lambda: Encoder(folder_of(name, Path(options["models"]))))
    ranker = functools.cache(lambda: Ranker(folder_of(ranker_name, Path(options["models"]))))

    def texts(payload: Payload) -> Payload:
        """{"texts": [str], "kind": "query" | "passage"} -> {"vectors": float32 (n, d)}, unit rows."""
        kind = payload.get("kind", "query")
        if kind not in PREFIXES:
            raise InvalidRequest('kind is "query" or "passage"')
        wanted = texts_of(payload)
        return {"vectors": encoder().vectors(wanted, kind)}

    def rank(payload: Payload) -> Payload:
        """{"query": str, "texts": [str]} -> {"scores": float32 (n,)}, logits; above 0 a text tells more."""
        query = payload.get("query")
        if not isinstance(query, str):
            raise InvalidRequest("rank takes a query")
        wanted = texts_of(payload)
        return {"scores": ranker().scores(query, wanted)}

    ops = {"texts": Op(each(texts)), "rank": Op(each(rank))}
    return Engine(ops, {"embed": name, "rank": ranker_name}, ("texts", {"texts": ["a"]}))


def embed_request(
    vectors: Callable[[list[str]], NDArray[np.float32]], payload: Payload
) -> Payload | Exception:
    """The result of one request of an op `texts`; `vectors` embeds the texts."""
    try:
        return {"vectors": vectors(texts_of(payload))}
    except InvalidRequest as error:
        return error


def texts_of(payload: Payload) -> list[str]:
    """The texts of a request.

    Raises:
        InvalidRequest: not a list of 1 to `MAX_TEXTS` texts.
    """
    texts = payload.get("texts")
    if (
        not isinstance(texts, list)
        or not 0 < len(texts) <= MAX_TEXTS
        or not all(isinstance(text, str) for text in texts)
    ):
        raise InvalidRequest(f"texts takes a list of 1 to {MAX_TEXTS} texts")
    return texts


class _Model:
    """A BERT-like graph with its tokenizer, on one thread.

    Raises:
        ModelMissing: a file of the model is missing or broken.
    """

    def __init__(self, folder: Path) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session = onnxruntime.InferenceSession(
                str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # tokenizers raises bare Exceptions, ONNX Runtime errors that quote its C++ source
            raise ModelMissing(
                f"the model {folder.name} cannot be loaded: run `streamsvc models pull {folder.name}`"
            ) from None
        self._tokenizer.enable_truncation(LONGEST)
        self._tokenizer.no_padding()

    def run(self, text: str, pair: str | None = None) -> NDArray[np.float32]:
        """The first output for one text or pair: shape (1, ...)."""
        coded = self._tokenizer.encode(text, pair)
        inputs = {
            "input_ids": coded.ids,
            "attention_mask": coded.attention_mask,
            "token_type_ids": coded.type_ids,
        }
        output: NDArray[np.float32] = self._session.run(
            None, {name: np.array([values], np.int64) for name, values in inputs.items()}
        )[0]
        return output


class Encoder(_Model):
    """Texts to unit vectors."""

    def vectors(self, texts: list[str], kind: str = "query") -> NDArray[np.float32]:
        """float32 (n, d), unit rows in the order of the texts.

        Args:
            texts: any number.
            kind: "query", also for texts that are compared with their like, or "passage".
        """
        rows = [self.run(PREFIXES[kind] + text)[0].mean(axis=0) for text in texts]
        return np.stack([row / np.linalg.norm(row) for row in rows]).astype(np.float32)


class Ranker(_Model):
    """Query and text to a logit: how well the text answers the query."""

    def scores(self, query: str, texts: list[str]) -> NDArray[np.float32]:
        """float32 (n,), in the order of the texts."""
        return np.array([self.run(query, text)[0, 0] for text in texts], np.float32)
