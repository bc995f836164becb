"""Vectors are made in small batches, once for each text, and forgotten with it."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from streamsvc.core.errors import WorkerError
from streamsvc.timeline.text_vectors import BATCH, TextVectors, chance_of, embedded
from tests.fakes.embed_role import letters_role


async def test_texts_are_embedded_in_batches_the_newest_first_and_none_twice() -> None:
    role = letters_role()
    vectors = TextVectors(role)
    texts = [letter * 3 for letter in "abcdefghij"[: BATCH + 1]]
    vectors.want("passages", [*texts, texts[0]])
    assert await vectors.embed_some() == 1
    assert await vectors.embed_some() == 0
    assert await vectors.embed_some() == 0
    sent = [text for payload in role.payloads("texts") for text in payload["texts"]]
    assert sent == [texts[0], *reversed(texts[1:])]
    assert {payload["kind"] for payload in role.payloads("texts")} == {"passage"}


async def test_two_at_once_embed_nothing_twice() -> None:
    role = letters_role()
    vectors = TextVectors(role)
    vectors.want("passages", ["aa", "bb"])
    await asyncio.gather(vectors.embed_some(), vectors.embed_for(1.0))
    assert [payload["texts"] for payload in role.payloads("texts")] == [["bb", "aa"]]


async def test_a_vector_is_kept_while_anybody_wants_its_text() -> None:
    vectors = TextVectors(letters_role())
    vectors.want("passages", ["aa", "bb"])
    vectors.want("search", ["bb"])
    await vectors.embed_for(1.0)
    vectors.want("passages", ["cc"])
    query = await vectors.query("b", 1.0)
    assert query is not None
    assert np.isnan(vectors.similarity(["aa", "bb", "cc"], query)).tolist() == [True, False, True]
    assert vectors.similarity(["bb"], query)[0] == 1.0
    assert vectors.missing == ["cc"]


async def test_a_failing_model_leaves_texts_missing_and_is_asked_again() -> None:
    vectors = TextVectors(letters_role(WorkerError("died")))
    vectors.want("passages", ["aa"])
    await vectors.embed_for(1.0)
    assert vectors.missing == ["aa"]
    await vectors.embed_for(1.0)
    assert vectors.missing == []


async def test_without_a_model_nothing_is_missing_and_nothing_known() -> None:
    vectors = TextVectors(None)
    vectors.want("passages", ["aa"])
    assert vectors.missing == []
    assert await vectors.embed_some() == 0
    assert await vectors.query("a", 1.0) is None
    assert await embedded(letters_role(WorkerError("died")), ["a"], 1.0, "query") is None


def test_what_is_as_near_as_any_query_is_their_mean_and_how_near_they_are_to_each_other() -> None:
    unrelated = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0, 0.8]], np.float32)
    chance = chance_of(unrelated)
    assert chance.mean == pytest.approx([1.6 / 3, 1 / 3, 0.8 / 3], abs=1e-3)
    assert chance.level == pytest.approx((0.0 + 0.6 + 0.0) / 3)
    assert chance.excess(np.array([1, 0, 0], np.float16)) == pytest.approx(1.6 / 3 - 0.2, abs=1e-3)
