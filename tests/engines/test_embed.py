"""Texts become unit vectors, and a query ranks texts; both are the same whatever comes with them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Op, embed, fetch, registry
from streamsvc.core.errors import InvalidRequest, ModelMissing

# Our own sentences: four things told, and a question about each.
TOLD = (
    "The baker closes at noon on Saturdays, because his daughter plays in the brass band.",
    "We painted the garden fence green, and the gate is to be done next week.",
    "The night train to the coast was cancelled after a tree had fallen on the line.",
    "Grandmother keeps her old letters in a biscuit tin under the stairs.",
)
ASKED = (
    "Why does the shop shut early at the weekend?",
    "Which colour did they choose for the fence?",
    "What stopped the train?",
    "Where are the letters?",
)


@pytest.fixture(scope="module")
def ops() -> Any:
    return embed.load({"models": str(fetch.default_dir())}).ops


def run(op: Op, payload: dict[str, Any]) -> Any:
    (result,) = op.run([payload])
    assert not isinstance(result, Exception)
    return result


def vectors(op: Op, *asked: str, kind: str = "query") -> Any:
    return run(op, {"texts": list(asked), "kind": kind})["vectors"]


def scores(op: Op, query: str, *texts: str) -> Any:
    return run(op, {"query": query, "texts": list(texts)})["scores"]


@pytest.mark.models
@pytest.mark.parametrize("name", [embed.DEFAULT, embed.RANKER])
def test_the_weights_are_the_pinned_ones(name: str) -> None:
    for file in registry.registry()[name].files:
        content = (fetch.default_dir() / name / file.name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file.sha256


@pytest.mark.models
def test_a_question_is_nearest_to_what_answers_it(ops: Any) -> None:
    passages = vectors(ops["texts"], *TOLD, kind="passage")
    queries = vectors(ops["texts"], *ASKED)
    assert passages.dtype == np.float32
    assert passages.shape == (4, 384)
    assert np.linalg.norm(passages, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (queries @ passages.T).argmax(axis=1).tolist() == [0, 1, 2, 3]


@pytest.mark.models
def test_the_cross_encoder_ranks_what_answers_first_and_tells_it_apart(ops: Any) -> None:
    for n, query in enumerate(ASKED):
        logits = scores(ops["rank"], query, *TOLD)
        assert logits.dtype == np.float32
        assert logits.argmax() == n
        assert logits[n] > np.delete(logits, n).max() + 3
    assert scores(ops["rank"], "How much did the tickets cost?", *TOLD).max() < 0


@pytest.mark.models
def test_a_text_has_one_vector_and_one_score_whatever_comes_with_it(ops: Any) -> None:
    many = [("word " * n + f"number {n}").strip() for n in (30, 1, 12, 3)]
    alone = np.stack([vectors(ops["texts"], text)[0] for text in many])
    assert np.array_equal(vectors(ops["texts"], *many), alone)
    single = [scores(ops["rank"], ASKED[0], text)[0] for text in TOLD]
    assert scores(ops["rank"], ASKED[0], *TOLD).tolist() == single


@pytest.mark.models
def test_of_a_long_text_the_beginning_counts(ops: Any) -> None:
    longer = "rain " * embed.LONGEST
    found = vectors(ops["texts"], longer, longer + "violin concerto")
    assert np.array_equal(found[0], found[1])
    first, second = scores(ops["rank"], "Does it rain?", longer, longer + "violin concerto")
    assert first == second


@pytest.mark.models
def test_a_query_and_a_passage_have_different_vectors(ops: Any) -> None:
    assert not np.array_equal(vectors(ops["texts"], TOLD[0]), vectors(ops["texts"], TOLD[0], kind="passage"))


@pytest.mark.parametrize(
    "payload",
    [
        {"texts": []},
        {"texts": "rain"},
        {"texts": [1]},
        {"texts": ["x"] * (embed.MAX_TEXTS + 1)},
        {},
        {"texts": ["rain"], "kind": "answer"},
        {"texts": ["rain"], "query": 1},
    ],
)
def test_a_bad_payload_fails_alone_and_before_a_model_is_loaded(
    tmp_path: Path, payload: dict[str, Any]
) -> None:
    engine = embed.load({"models": str(tmp_path)})
    for name, good in (("texts", {"kind": "query"}), ("rank", {"query": "rain"})):
        op = engine.ops[name]
        assert isinstance(op, Op)
        if (name == "texts" and "query" in payload) or (name == "rank" and "kind" in payload):
            continue
        bad, other = op.run([good | payload, good | {"texts": ["rain"]}])
        assert isinstance(bad, InvalidRequest)
        assert isinstance(other, ModelMissing)


def test_the_engine_loads_without_its_models_and_a_call_tells_which_is_missing(tmp_path: Path) -> None:
    ops = embed.load({"models": str(tmp_path), "embed": {"model": "other", "ranker": "third"}}).ops
    for name, missing in (("texts", "other"), ("rank", "third")):
        op = ops[name]
        assert isinstance(op, Op)
        (error,) = op.run([{"query": "rain", "texts": ["rain"]}])
        assert isinstance(error, ModelMissing)
        assert f"models pull {missing}" in str(error)


@pytest.mark.parametrize(("op", "name"), [("texts", embed.DEFAULT), ("rank", embed.RANKER)])
def test_weights_that_are_not_the_registry_s_are_never_loaded(tmp_path: Path, op: str, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "model.onnx").write_bytes(bytes(4096))
    texts = embed.load({"models": str(tmp_path)}).ops[op]
    assert isinstance(texts, Op)
    (error,) = texts.run([{"query": "rain", "texts": ["rain"]}])
    assert isinstance(error, ModelMissing)
    assert f"model {name}: model.onnx: broken (4096 of " in str(error)


def test_a_broken_model_is_reported_as_missing(tmp_path: Path) -> None:
    for name in ("model.onnx", "tokenizer.json"):
        (tmp_path / name).write_text("{")
    with pytest.raises(ModelMissing):
        embed.Encoder(tmp_path)
    with pytest.raises(ModelMissing):
        embed.Ranker(tmp_path)
