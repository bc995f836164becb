"""Where questions go: by the examples, by the model where they are close, to the reader of words else."""

from __future__ import annotations

import ast
import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import Op, embed, fetch
from streamsvc.answers import arguments, exchanges, intents, language, router
from streamsvc.answers.example_votes import words_of
from streamsvc.answers.intents import Vote
from streamsvc.answers.route import Arguments, Route
from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Payload
from streamsvc.core.types import Question
from streamsvc.timeline.timeline import Timeline
from tests.fakes.role import FakeRole

NOW = 60.0
ASKED = "where will the xylophonist go"
NEAREST = 0.95  # cosine; of unrelated questions .77 on average, and the nearest of a whole set .86
RUN = 4  # words


def question(text: str = ASKED) -> Question:
    return Question("q", text, NOW, 1e9)


def kinds() -> dict[str, str]:
    """Example -> name of its intent."""
    return {text: intent.name for intent in intents.intents() for text in intent.questions}


def vectors_of(shares: Mapping[str, float]) -> Any:
    """A script of op `texts`: each intent has a direction; ASKED lies between those of `shares`."""
    names, known = sorted(set(kinds().values())), kinds()

    def run(payload: Payload) -> Payload:
        assert payload["kind"] == "query"
        rows = np.zeros((len(payload["texts"]), len(names)), np.float32)
        for row, text in zip(rows, payload["texts"], strict=True):
            for name, share in ({known[text]: 1.0} if text in known else shares).items():
                row[names.index(name)] = share
        return {"vectors": rows / np.linalg.norm(rows, axis=1, keepdims=True)}

    return run


def role(**shares: float) -> FakeRole:
    return FakeRole({"texts": vectors_of(shares)})


def test_a_language_model_that_is_not_loaded_holds_no_question_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def loads(_: str) -> str:
        time.sleep(0.5)
        return "de"

    monkeypatch.setattr(language, "language_of", loads)
    monkeypatch.setattr(router, "PREPARE_SECONDS", 0.05)
    assert asyncio.run(router.route(question(), Timeline(), None, NOW)).language == language.ENGLISH


def thinker(*pieces: Any) -> FakeRole:
    return FakeRole(streams={"generate": pieces})


def routed(asked: Question, embed: FakeRole | None, think: FakeRole | None = None) -> Route:
    async def main() -> Route:
        return await router.route(asked, Timeline(), embed, NOW, think)

    return asyncio.run(main())


# --- by the examples ---


@pytest.mark.parametrize(
    ("name", "tool", "reader"),
    [
        ("summary", "summary", "text"),
        ("count", "count", "sight"),
        ("sight", "", "sight"),
        ("text", "", "text"),
        ("none", "", "none"),
    ],
)
def test_a_question_goes_where_its_nearest_examples_go(name: str, tool: str, reader: str) -> None:
    found = routed(question(), role(**{name: 1.0}))
    assert (found.tool, found.reader) == (tool, reader)
    assert found.margin > router.DOUBT
    assert found.language == "en"


def test_a_question_about_now_is_told_from_one_about_a_time() -> None:
    assert routed(question("xylophonists"), role(topic=1.0)).present
    timed = routed(question("xylophonists at 0:20"), role(topic=1.0))
    assert not timed.present
    assert timed.arguments.span == (20.0, 20.0)


def test_the_arguments_have_the_form_of_the_examples() -> None:
    assert routed(question(), role(clock=1.0)).arguments.form == "how long"


def test_between_two_tools_a_question_is_looked_up() -> None:
    found = routed(question(), role(slides=1.0, order=1.0))
    assert (found.tool, found.reader) == ("", "text")
    assert found.margin < router.DOUBT


@pytest.mark.parametrize(("name", "doubted"), [("none", True), ("summary", False), ("text", False)])
def test_more_certainty_is_asked_for_before_nothing_is_looked_up(name: str, doubted: bool) -> None:
    shares = (0.5, 0.5 - (router.DOUBT + router.DOUBT_NONE) / 2)
    assert router.in_doubt(Vote((name, "clock"), shares, ("open",), False)) is doubted


def test_of_two_that_look_at_pictures_the_better_one_is_taken() -> None:
    assert routed(question(), role(relation=1.0, sight=1.0)).reader == "sight"


# --- by the model ---


def test_where_the_examples_are_close_the_model_chooses_under_a_schema() -> None:
    think = thinker('{"ki', 'nd": "order"}')
    found = routed(question(), role(slides=1.0, order=1.0), think)
    assert found.tool == "order"
    (asked,) = think.payloads("generate")
    assert asked["question"] == ASKED
    assert asked["aside"] is True
    assert {"slides", "order", "text"} <= set(asked["schema"]["properties"]["kind"]["enum"])
    assert think.calls[0].deadline_in_s <= 0.4


def test_where_the_examples_are_sure_the_model_is_not_asked() -> None:
    think = thinker(json.dumps({"kind": "order"}))
    assert routed(question(), role(summary=1.0), think).tool == "summary"
    assert think.calls == []


@pytest.mark.parametrize(
    "pieces",
    [
        ("slides, I think",),
        ('{"kind": "weather"}',),
        ('{"kind": ["order"]}',),
        ("[]",),
        (WorkerError("dead"),),
        (5.0, '{"kind": "order"}'),
    ],
)
def test_a_model_that_makes_no_choice_in_time_leaves_the_default(
    virtual: asyncio.Runner, pieces: tuple[Any, ...]
) -> None:
    async def main() -> Route:
        embed = role(slides=1.0, order=1.0)
        return await router.route(question(), Timeline(), embed, NOW, thinker(*pieces))

    found = virtual.run(main())
    assert (found.tool, found.reader) == ("", "text")


# --- without the examples ---


def test_without_a_model_of_vectors_a_question_is_looked_up() -> None:
    assert routed(question("at 0:20"), None) == Route(arguments=Arguments(span=(20.0, 20.0)))


def test_a_model_of_vectors_that_fails_costs_no_answer() -> None:
    assert routed(question(), FakeRole({"texts": WorkerError("dead")})).margin == 0.0


def test_it_recovers_with_the_model() -> None:
    async def main() -> list[Route]:
        embed = FakeRole({"texts": [WorkerError("dead"), vectors_of({"summary": 1.0})]})
        return [await router.route(question(), Timeline(), embed, NOW) for _ in range(2)]

    first, second = asyncio.run(main())
    assert (first.tool, second.tool) == ("", "summary")


def test_a_slow_model_of_vectors_is_not_waited_for(stage: asyncio.Runner) -> None:
    async def main() -> float:
        embed = role(summary=1.0)
        embed.delay = lambda op, payload: 0.2
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await router.route(question(), Timeline(), embed, NOW)
        assert found == Route(arguments=found.arguments)
        waited = loop.time() - began
        assert await router.prepare(embed)  # goes on where the question stopped
        embed.delay = lambda op, payload: 0.0
        assert (await router.route(question(), Timeline(), embed, NOW)).tool == "summary"
        return waited

    assert stage.run(main()) <= router.PREPARE_SECONDS


def test_kept_vectors_are_taken_where_the_model_gives_the_same(tmp_path: Path) -> None:
    async def embedded(embed: FakeRole) -> int:
        """How many texts were embedded to be ready."""
        assert await router.prepare(embed, folder=tmp_path)
        assert (await router.route(question(), Timeline(), embed, NOW)).tool == "summary"
        return sum(len(asked["texts"]) for asked in embed.payloads("texts")) - 1

    count = len(intents.examples())
    assert asyncio.run(embedded(role(summary=1.0))) == count
    assert asyncio.run(embedded(role(summary=1.0))) == 2
    other = role(summary=1.0)
    inner = other.results["texts"]
    assert callable(inner)
    other.results = {"texts": lambda payload: {"vectors": -np.asarray(inner(payload)["vectors"])}}  # type: ignore[index]
    assert asyncio.run(embedded(other)) == count + 2


def test_the_examples_are_embedded_once() -> None:
    async def main() -> FakeRole:
        embed = role(summary=1.0)
        assert await router.prepare(embed)
        for _ in range(3):
            await router.route(question(), Timeline(), embed, NOW)
        return embed

    asked = [text for payload in asyncio.run(main()).payloads("texts") for text in payload["texts"]]
    assert sorted(asked) == sorted([*intents.examples(), ASKED, ASKED, ASKED])


# --- other languages ---


def test_another_language_is_recognised_and_looked_up() -> None:
    embed = role(summary=1.0)
    found = routed(question("Warum ist der Zug um 0:20 stehen geblieben?"), embed)
    assert (found.language, found.tool, found.reader) == ("de", "", "text")
    assert found.arguments.span == (20.0, 20.0)
    assert embed.calls == []


# --- no grammar of English, no words of what this is measured with ---

SOURCES = [Path(module.__file__ or "") for module in (router, arguments, intents, language, exchanges)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_code_knows_english_wordings(path: Path) -> None:
    """No regular expression, no table of stems, no list of words."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert not imported & {"re", "regex", "streamsvc.timeline.text", "streamsvc.timeline.word_lists"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            texts = [one for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            assert len(texts) <= 2, ast.unparse(node)  # two quotation or schema words are no list


def _measured(media: Path) -> list[str]:
    """All questions that this service is measured with, both halves."""
    files = sorted([*(media.parent / "questions").glob("*.json"), *(media / "scenarios").glob("*.json")])
    found = [
        entry["question"] for file in files for entry in json.loads(file.read_text(encoding="utf-8"))["qa"]
    ]
    if not found:
        pytest.skip(f"no questions under {media.parent}: they are not part of the project")
    return found


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    words = words_of(text)
    return (tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1))


@pytest.mark.media
def test_no_example_shares_four_words_in_a_row_with_a_measured_question(media: Path) -> None:
    measured = {run for text in _measured(media) for run in _runs(text)}
    assert [text for text in intents.examples() if measured & set(_runs(text))] == []


@pytest.mark.models
@pytest.mark.media
def test_no_example_is_a_paraphrase_of_a_measured_question(media: Path) -> None:
    op = embed.load({"models": str(fetch.default_dir())}).ops["texts"]
    assert isinstance(op, Op)

    def vectors(texts: list[str]) -> Any:
        batches = [texts[start : start + 16] for start in range(0, len(texts), 16)]
        results = [op.run([{"texts": batch, "kind": "query"}])[0] for batch in batches]
        return np.concatenate([result["vectors"] for result in results if isinstance(result, dict)])

    examples = intents.examples()
    nearest = (vectors(examples) @ vectors(_measured(media)).T).max(axis=1)
    assert len(nearest) == len(examples)
    assert [text for text, cosine in zip(examples, nearest, strict=True) if cosine > NEAREST] == []
