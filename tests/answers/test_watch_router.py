"""Conditions are compared with the examples, which share nothing with those that this is measured with."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Op, embed, fetch
from streamsvc.answers import watch_conditions, watch_intents, watch_router
from streamsvc.answers.example_votes import words_of
from streamsvc.answers.watch_conditions import Able
from streamsvc.core.errors import CapacityError, InvalidRequest, WorkerError
from tests.fakes.embed_role import watching_role
from tests.fakes.role import FakeRole

MEASURED = Path(__file__).parent.parent / "fixtures" / "watches_natural.json"
RUN = 5  # words; conditions share "when somebody talks about" with everything
NEAREST = 0.97  # cosine; short conditions are near each other


async def test_a_condition_becomes_the_checks_of_its_kind() -> None:
    role = watching_role(hush="silence")
    (check,) = await watch_router.compiled("a hush of three seconds", role, Able())
    assert (check.kind, check.seconds) == ("silence", 3.0)


async def test_a_condition_is_normalised_once_for_its_vector_and_its_vote(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    role = watching_role()
    assert await watch_router.prepare(role)
    plain, normalised = watch_intents.compared, list[str]()

    def counted(when: str) -> str:
        normalised.append(when)
        return plain(when)

    monkeypatch.setattr(watch_intents, "compared", counted)
    await watch_router.compiled("a bus appears", role, Able())
    assert normalised == ["a bus appears"]


async def test_without_a_model_of_vectors_labels_are_understood() -> None:
    (check,) = await watch_router.compiled("a bus", None, Able())
    assert check.label == "bus"


async def test_what_cannot_be_understood_yet_may_be_tried_again() -> None:
    with pytest.raises(CapacityError) as caught:
        await watch_router.compiled("a dog barks", FakeRole({"texts": WorkerError("it loads")}), Able())
    assert caught.value.code == "not_ready"
    with pytest.raises(InvalidRequest):
        await watch_router.compiled("a hush", None, Able())


@pytest.mark.parametrize("module", [watch_conditions, watch_intents, watch_router])
def test_no_code_knows_english_wordings(module: Any) -> None:
    """No list of words: what English says is in the examples."""
    for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            texts = {
                one.value for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)
            }
            assert len(texts - {kind for kind, _ in watch_intents.labelled()}) <= 2, ast.unparse(node)


def _measured() -> list[str]:
    return [case["when"] for case in json.loads(MEASURED.read_text(encoding="utf-8"))["watches"]]


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = words_of(text)
    return (tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1))


def test_no_example_shares_five_words_in_a_row_with_a_measured_condition() -> None:
    measured = {run for text in _measured() for run in _runs(text)}
    assert [text for text in watch_intents.examples() if measured & set(_runs(text))] == []


@pytest.mark.models
def test_no_example_is_a_paraphrase_of_a_measured_condition() -> None:
    op = embed.load({"models": str(fetch.default_dir())}).ops["texts"]
    assert isinstance(op, Op)

    def vectors(texts: list[str]) -> Any:
        batches = [texts[start : start + 16] for start in range(0, len(texts), 16)]
        results = [op.run([{"texts": batch, "kind": "query"}])[0] for batch in batches]
        return np.concatenate([result["vectors"] for result in results if isinstance(result, dict)])

    examples = watch_intents.examples()
    nearest = (vectors(examples) @ vectors(_measured()).T).max(axis=1)
    assert [text for text, cosine in zip(examples, nearest, strict=True) if cosine > NEAREST] == []
