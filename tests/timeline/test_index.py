"""Passages are ranked within their time and never fail; a search matches by meaning, else by words."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamsvc.core import clock
from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.core.roles import Payload
from streamsvc.core.types import Sight
from streamsvc.timeline import index, text_vectors
from streamsvc.timeline.index import Index
from streamsvc.timeline.passages import Passage
from streamsvc.timeline.ranking import Hit
from streamsvc.timeline.text import terms
from streamsvc.timeline.timeline import Timeline
from tests.builders.session import Threadless
from tests.builders.units import cue, screen, sight
from tests.fakes.role import FakeRole

ANIMALS = ("feline", "cat", "kitten")
LONG = (
    "and that is what they had told each other "
    + "every day of every year " * 4
    + "as long as anybody can think"
)


def animal_vectors(payload: Payload) -> Payload:
    """Op `texts`: texts about animals have one vector, all others another."""
    rows = [[1, 0] if any(a in text.lower() for a in ANIMALS) else [0, 1] for text in payload["texts"]]
    return {"vectors": np.array(rows, np.float32)}


def shared_words(payload: Payload) -> Payload:
    """Op `rank`: 5 for each content word that query and text share, -5 without one."""
    query = set(terms(payload["query"]))
    return {"scores": np.array([5.0 * len(query & set(terms(text))) - 5 for text in payload["texts"]])}


def animal_encoder(*, seconds: float = 0.0, error: Exception | None = None, **ops: Any) -> FakeRole:
    """An embed role with one lane, `seconds` for each text."""
    return FakeRole(
        {"texts": error or animal_vectors, "rank": error or shared_words, **ops},
        delay=lambda op, payload: seconds * len(payload["texts"]),
        lanes=1,
    )


def embedded(role: FakeRole) -> list[str]:
    """The texts that `role` has embedded, in order."""
    return [text for call in role.completed if call.op == "texts" for text in call.payload["texts"]]


def said(*texts: str, every: float = 20.0) -> Timeline:
    """Talks of one sentence each, but for `every` below 5 s."""
    timeline = Timeline()
    for n, text in enumerate(texts):
        timeline.add(cue(text, every * n))
    return timeline


class Searching:
    """An index with its task, on virtual time."""

    def __init__(self, timeline: Timeline, encoder: FakeRole | None, see: FakeRole | None = None) -> None:
        self.timeline = timeline
        self.index = Index(timeline, encoder, see)
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def __call__(self, query: str, *, pictures: bool = False) -> list[Hit]:
        return await self.index.search(query, 10, self.spawn, with_pictures=pictures)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Threadless) as runner:
        runner.run(work)


def texts(passages: Sequence[Passage]) -> list[str]:
    return [passage.text for passage in passages]


# --- passages ---


def test_the_passage_that_the_cross_encoder_prefers_comes_first() -> None:
    async def main() -> None:
        timeline = said("The bus was late again.", "The red bus has a flat tyre.", "It rains.")
        best, other, *_ = await Index(timeline, animal_encoder()).passages("Which bus has the flat tyre?")
        assert (best.text, best.score, best.margin) == ("The red bus has a flat tyre.", 10.0, 10.0)
        assert (other.text, other.score) == ("The bus was late again.", 0.0)

    run(main())


def test_a_passage_without_a_common_word_is_found_by_its_meaning() -> None:
    async def main() -> None:
        timeline = said("It rains.", "A kitten sat there.")
        passages = await Index(timeline, animal_encoder()).passages("feline", limit=1)
        assert texts(passages) == ["A kitten sat there."]

    run(main())


def test_without_a_model_passages_come_by_words_and_have_no_score() -> None:
    async def main() -> None:
        for role in (
            None,
            animal_encoder(error=ModelMissing("not there")),
            animal_encoder(error=WorkerError("x")),
        ):
            passages = await Index(said("A cat sat there.", "It rains."), role).passages("cats")
            assert texts(passages) == ["A cat sat there."]
            assert passages[0].score == -math.inf
            assert passages[0].near and not passages[0].answers

    run(main())


def test_a_deadline_leaves_the_best_candidates_ranked() -> None:
    async def main() -> None:
        timeline = said(*(f"The bus number {n} is late." for n in range(30)))
        role = animal_encoder(seconds=0.05)
        began = clock.now()
        passages = await Index(timeline, role).passages("Which bus is late?", limit=10, seconds=0.8)
        assert clock.now() - began <= 0.8 + 0.01
        assert 0 < role.count("rank") < index.MAX_PAIRS / index.CHUNK
        assert passages[0].score > -math.inf

    run(main())


def test_a_model_that_hangs_takes_no_longer_than_the_question_has() -> None:
    async def main() -> None:
        role = animal_encoder(seconds=100.0)
        began = clock.now()
        passages = await Index(said("A cat sat there."), role).passages("cats", seconds=0.5)
        assert clock.now() - began == pytest.approx(0.5)
        assert texts(passages) == ["A cat sat there."]

    run(main())


def test_at_most_a_bounded_number_of_pairs_is_read() -> None:
    async def main() -> None:
        role = animal_encoder()
        timeline = said(*(f"The bus number {n} is late." for n in range(60)))
        await Index(timeline, role).passages("Which bus is late?")
        assert sum(len(call["texts"]) for call in role.payloads("rank")) <= index.MAX_PAIRS

    run(main())


def test_of_two_equal_passages_the_one_that_was_just_over_comes_first() -> None:
    async def main() -> None:
        timeline = said("The bus is late.", "It rains.", "The train is late.", every=100.0)
        passages = await Index(timeline, animal_encoder()).passages("What is late?", limit=2)
        assert texts(passages) == ["The train is late.", "The bus is late."]
        assert passages[0].score == passages[1].score

    run(main())


def test_what_was_not_over_and_what_is_out_of_the_span_is_left_out() -> None:
    async def main() -> None:
        bus = Index(said("The bus is late.", "The train is late."), animal_encoder())
        assert texts(await bus.passages("late", until=10.0)) == ["The bus is late."]
        assert texts(await bus.passages("late", span=(19.0, 30.0))) == ["The train is late."]
        assert await bus.passages("late", span=(50.0, 60.0)) == []
        assert await bus.passages(" ") == []

    run(main())


def test_a_follow_up_is_asked_together_with_the_question_before_and_scored_alone_too() -> None:
    async def main() -> None:
        index_ = Index(said("The baker has a red bus.", "It rains."), animal_encoder())
        (best, *_) = await index_.passages("Which one?", before="Does the baker have a bus?")
        assert (best.text, best.score, best.own) == ("The baker has a red bus.", 5.0, -5.0)
        assert not best.answers
        (alone, *_) = await index_.passages("Does the baker have a bus?")
        assert alone.own == math.inf and alone.answers

    run(main())


def test_screens_are_passages_and_sentences_have_the_keyframe_of_their_start() -> None:
    async def main() -> None:
        timeline = said("The bus is late.")
        timeline.add(sight(0.0))
        timeline.add(screen(1.0, "Trains of today", "Platform 4: Leeds"))
        passages = await Index(timeline, animal_encoder()).passages("Which platform to Leeds?", limit=1)
        assert texts(passages) == ["Trains of today Platform 4: Leeds"]
        (spoken,) = await Index(timeline, None).passages("bus")
        assert spoken.parts[0].frame == 0.0

    run(main())


def test_settling_embeds_in_small_batches_and_tells_what_is_left() -> None:
    async def main() -> None:
        role = animal_encoder()
        index_ = Index(said(*(f"Line {n} of a talk {LONG}." for n in range(6)), "And an open one"), role)
        assert await index_.settle() == 6 - text_vectors.BATCH
        assert role.count("rank") == 0
        others = len(text_vectors.CHANCE_QUERIES)
        assert await index_.settle() == others - text_vectors.BATCH, "then what floors a search"
        while await index_.settle():
            assert role.count("rank") == 0
        assert len(embedded(role)) == 6 + others
        assert role.count("rank") == 1, "the cross-encoder is loaded before the first question"
        assert await index_.settle() == 0
        assert (len(embedded(role)), role.count("rank")) == (6 + others, 1)
        assert await Index(said("A cat."), None).settle() == 0

    run(main())


def test_the_longer_the_talk_the_longer_the_pause_before_it_is_gone_through_again() -> None:
    async def pause(count: int) -> float:
        index_ = Index(said(*(f"Line {n} of a talk." for n in range(count))), animal_encoder())
        assert index_.pause == 0.0
        await index_.settle()
        return index_.pause

    async def main() -> None:
        assert await pause(90) == pytest.approx(10 * await pause(9), rel=0.2) != 0.0

    run(main())


def test_rank_scores_texts_in_their_order_or_not_at_all() -> None:
    async def main() -> None:
        index_ = Index(Timeline(), animal_encoder())
        assert await index_.rank("the red bus", [f"bus {n}" for n in range(5)] + ["red bus"], 1.0) == [
            0.0
        ] * 5 + [5.0]
        assert await Index(Timeline(), animal_encoder(seconds=1.0)).rank("bus", ["bus"] * 9, 0.5) is None
        assert (
            await Index(Timeline(), animal_encoder(error=WorkerError("x"))).rank("bus", ["bus"], 1.0) is None
        )
        assert await Index(Timeline()).rank("bus", ["bus"], 1.0) is None

    run(main())


def test_a_question_is_never_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        await Index(said("A cat sat there."), animal_encoder(error=WorkerError("died"))).passages(
            "feline cats"
        )

    run(main())
    output = capsys.readouterr().out
    assert "feline" not in output and "cat" not in output


# --- search ---


def test_a_paraphrase_is_found_by_its_meaning() -> None:
    async def main() -> None:
        search = Searching(said("A cat sat there.", "It rains."), animal_encoder())
        assert [hit.text for hit in await search("feline")] == ["A cat sat there."]

    run(main())


def topics_apart(payload: Payload) -> Payload:
    """Op `texts`: all texts are alike by 0.81 and more, as e5 has it; "salt" and "brine" are nearer."""
    rows = []
    for text in payload["texts"]:
        salty = any(word in text.casefold() for word in ("salt", "brine"))
        rows.append([0.9, 0.436, 0.0] if salty else [0.9, 0.0, 0.436])
    return {"vectors": np.array(rows, np.float32)}


def test_what_is_as_near_to_any_word_is_not_found() -> None:
    async def main() -> None:
        search = Searching(said("It rains.", "The brine was cold."), FakeRole({"texts": topics_apart}))
        assert [hit.text for hit in await search("salt")] == ["The brine was cold."]
        nothing = Searching(said("It rains.", "The cat sat there."), FakeRole({"texts": topics_apart}))
        assert await nothing("salt") == []
        assert await nothing("pepper") == [], "as near as all others are"
        assert [hit.text for hit in await nothing("cat")] == ["The cat sat there."], "a word is always found"
        await asyncio.gather(*search.tasks, *nothing.tasks)

    run(main())


def test_a_query_that_is_as_near_to_anything_finds_nothing() -> None:
    def vectors(payload: Payload) -> Payload:
        rows = {"thing": [1.0, 0.0, 0.0], "storm": [0.9, 0.0, 0.436], "It rains.": [0.9, 0.0, 0.436]}
        unrelated = [[0.9, 0.436, 0.0], [0.9, -0.436, 0.0]]
        found = [rows.get(text, unrelated[len(text) % 2]) for text in payload["texts"]]
        return {"vectors": np.array(found, np.float32)}

    async def main() -> None:
        search = Searching(said("It rains."), FakeRole({"texts": vectors}))
        assert [hit.text for hit in await search("storm")] == ["It rains."]
        assert await search("thing") == []
        await asyncio.gather(*search.tasks)

    run(main())


def test_until_it_is_known_what_is_near_by_chance_a_search_has_no_floor() -> None:
    async def main() -> None:
        slow = FakeRole(
            {"texts": topics_apart}, delay=lambda op, payload: 0.09 * len(payload["texts"]), lanes=1
        )
        search = Searching(said("It rains."), slow)
        assert [hit.text for hit in await search("pepper")] == ["It rains."]
        await asyncio.gather(*search.tasks)
        assert await search("pepper") == []

    run(main())


def test_without_a_model_the_search_is_by_words() -> None:
    async def main() -> None:
        for encoder in (
            None,
            animal_encoder(error=ModelMissing("not there")),
            animal_encoder(error=WorkerError("x")),
        ):
            search = Searching(said("A cat sat there.", "It rains."), encoder)
            assert [hit.text for hit in await search("cats")] == ["A cat sat there."]
            assert await search("feline") == []
            await asyncio.gather(*search.tasks)

    run(main())


def test_texts_not_embedded_in_time_are_embedded_after_the_search_the_newest_first() -> None:
    async def main() -> None:
        encoder = animal_encoder(seconds=0.05)
        talk = (f"Line number {n} of a long talk about rain." for n in range(60))
        search = Searching(said("A cat sat there.", *talk, "A kitten sat there."), encoder)
        began = clock.now()
        first = await search("feline")
        assert clock.now() - began <= index.MAX_WAIT + 0.01
        assert [hit.text for hit in first] == ["A kitten sat there."]
        await asyncio.gather(*search.tasks)
        assert {hit.text for hit in await search("feline")} == {"A kitten sat there.", "A cat sat there."}

    run(main())


def test_a_second_search_finds_a_text_added_while_the_first_was_embedding() -> None:
    async def main() -> None:
        timeline = said(*(f"Line number {n} of a long talk about rain." for n in range(40)))
        search = Searching(timeline, animal_encoder(seconds=0.04))
        await search("feline")
        timeline.add(cue("A cat sat there.", 900.0))
        hits = await search("feline")
        await asyncio.gather(*search.tasks)
        assert [hit.text for hit in hits] == ["A cat sat there."]
        assert len(search.tasks) == 1

    run(main())


def test_no_model_is_called_for_a_query_without_a_content_word() -> None:
    async def main() -> None:
        encoder = animal_encoder()
        assert await Searching(said("A cat sat there."), encoder)("what is the") == []
        assert encoder.calls == []

    run(main())


def test_a_query_is_never_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        search = Searching(said("A cat sat there."), animal_encoder(error=WorkerError("died")))
        await search("feline")
        await asyncio.gather(*search.tasks)

    run(main())
    output = capsys.readouterr().out
    assert "by words alone" in output
    assert "feline" not in output and "cat" not in output


def test_the_embedding_can_be_cancelled_at_any_time() -> None:
    async def main() -> None:
        search = Searching(said("A cat sat there.", "It rains."), animal_encoder(seconds=1.0))
        await search("cats")
        for task in search.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert [hit.text for hit in await search("cats")] == ["A cat sat there."]
        await asyncio.gather(*search.tasks, return_exceptions=True)

    run(main())


def shown(*vectors: tuple[float, float], label: str = "", spoken: str = "It rains.") -> Timeline:
    """Pictures with `Sight.clip`: a query about animals matches by the first number of a vector."""
    timeline = said(spoken) if spoken else Timeline()
    for n, vector in enumerate(vectors):
        seen: Sight = replace(sight(10.0 * n, label, blank=not label), clip=np.array(vector, np.float16))
        timeline.add(replace(seen, blank=False))
    return timeline


def test_a_picture_is_found_by_a_sentence_and_its_neighbour_is_not() -> None:
    async def main() -> None:
        see = animal_encoder()
        for vectors, frame in ((((6.0, 0.0), (0.0, 6.0)), 0.0), (((0.0, 6.0), (6.0, 0.0)), 10.0)):  # swapped
            search = Searching(shown(*vectors), None, see)
            assert [hit.frame for hit in await search("feline", pictures=True)] == [frame]
        assert embedded(see)[:2] == ["feline", "a photo of feline."]

    run(main())


def test_a_picture_with_a_vector_replaces_the_line_with_its_labels() -> None:
    async def main() -> None:
        timeline = shown((6.0, 0.0), label="cat")
        timeline.add(sight(20.0, "cat"))
        hits = await Searching(timeline, None, animal_encoder())("cat", pictures=True)
        assert [(hit.start, hit.text) for hit in hits] == [(0.0, "cat"), (20.0, "cat")]

    run(main())


def test_without_a_vision_text_model_pictures_are_found_by_their_labels() -> None:
    async def main() -> None:
        for see in (None, animal_encoder(error=WorkerError("died"))):
            cats = Searching(shown((0.0, 0.0), label="cat", spoken=""), None, see)
            assert [hit.text for hit in await cats("cats", pictures=True)] == ["cat"]
            assert await Searching(shown((6.0, 0.0), spoken=""), None, see)("feline", pictures=True) == []

    run(main())


def test_both_models_are_called_concurrently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_vectors, "CHANCE_QUERIES", ())

    async def main() -> None:
        embed, see = animal_encoder(seconds=0.2), animal_encoder(seconds=0.2)
        began = clock.now()
        await Searching(shown((6.0, 0.0)), embed, see)("feline", pictures=True)
        assert clock.now() - began == pytest.approx(0.4)  # two texts, one after the other, in each model

    run(main())
