"""Texts become unit vectors; similar texts are close, independent of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Op, embed, fetch
from streamsvc.core.errors import InvalidRequest, ModelMissing


@pytest.fixture(scope="module")
def texts() -> Op:
    op = embed.load({"models": str(fetch.default_dir())}).ops["texts"]
    assert isinstance(op, Op)
    return op


def vectors(op: Op, *asked: str) -> Any:
    (result,) = op.run([{"texts": list(asked)}])
    assert not isinstance(result, Exception)
    return result["vectors"]


@pytest.mark.models
def test_the_vector_of_a_paraphrase_is_nearer_than_that_of_another_text(texts: Op) -> None:
    found = vectors(
        texts, "A cat sits on the mat.", "A feline rests on a rug.", "The stock market fell sharply."
    )
    assert found.dtype == np.float32
    assert found.shape == (3, 384)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2] + 0.3


@pytest.mark.models
def test_a_text_has_the_same_vector_in_any_batch_and_the_order_is_preserved(texts: Op) -> None:
    many = [("word " * n + f"number {n}").strip() for n in (30, 1, 12, 3, 40, 7)]
    together = vectors(texts, *many)
    alone = np.stack([vectors(texts, text)[0] for text in many])
    assert (together * alone).sum(axis=1) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.models
def test_of_a_long_text_the_beginning_counts(texts: Op) -> None:
    found = vectors(texts, "rain " * embed.LONGEST, "rain " * embed.LONGEST + "violin concerto")
    assert found[0] @ found[1] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.models
def test_a_bad_payload_fails_alone(texts: Op) -> None:
    good, *bad = texts.run(
        [
            {"texts": ["rain"]},
            {"texts": []},
            {"texts": "rain"},
            {"texts": [1]},
            {"texts": ["x"] * (embed.MAX_TEXTS + 1)},
            {},
        ]
    )
    assert not isinstance(good, Exception)
    assert all(isinstance(each, InvalidRequest) for each in bad)


def test_the_engine_loads_without_its_model_and_the_first_call_tells_what_is_missing(tmp_path: Path) -> None:
    op = embed.load({"models": str(tmp_path), "embed": {"model": "other"}}).ops["texts"]
    assert isinstance(op, Op)
    with pytest.raises(ModelMissing, match="models pull other"):
        op.run([{"texts": ["rain"]}])


def test_a_broken_model_is_reported_as_missing(tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_text("{")
    with pytest.raises(ModelMissing):
        embed.Encoder(tmp_path)
