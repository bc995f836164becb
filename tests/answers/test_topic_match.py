"""Topic matching: passages, similarities, and a model that is slow, failing or absent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engines import Op, embed, fetch
from streamsvc.answers.topic_match import MAX_QUEUED, MAX_RANKED, MAX_SENTENCE, Passage, TopicMatcher
from streamsvc.answers.topic_score import BACKGROUND, ON_TOPIC
from streamsvc.core import metrics
from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Payload
from streamsvc.core.types import Evidence, Word
from streamsvc.timeline.text_vectors import CHANCE_QUERIES
from tests.fakes.embed_role import letter_vectors, letters_role
from tests.fakes.role import FakeRole


class Heard:
    """A matcher, and the similarities that it reported."""

    def __init__(self, role: Any, *wanted: str) -> None:
        self.wanted = set(wanted)
        self.reported: list[tuple[dict[str, float], Evidence, float]] = []
        self.first = asyncio.Event()
        self.matcher = TopicMatcher(role, lambda: self.wanted, self._take)

    def _take(self, likeness: Mapping[str, float], passage: Passage) -> None:
        self.reported.append((dict(likeness), passage.evidence, passage.arrived))
        self.first.set()

    def say(self, text: str, at: float = 0.0) -> None:
        self.matcher.on_words(
            [Word(word, at + n, at + n + 0.5, 0.9) for n, word in enumerate(text.split())], at
        )

    async def over(self) -> None:
        self.matcher.close()
        await self.matcher.run()


def missed(how: str) -> float:
    return float(metrics.deadline_missed.labels("topic", how)._value.get())


async def test_each_sentence_is_compared_together_with_the_one_before() -> None:
    role = letters_role()
    heard = Heard(role, "a bed")
    heard.say("A bad bed. Dad had")
    heard.say("a bag! And", 20.0)
    await heard.over()
    assert [evidence.quote for _, evidence, _ in heard.reported] == [
        "A bad bed.",
        "A bad bed. Dad had a bag!",
    ]
    assert [(evidence.start, evidence.end) for _, evidence, _ in heard.reported] == [(0.0, 2.5), (0.0, 21.5)]
    assert [arrived for _, _, arrived in heard.reported] == [0.0, 20.0]
    assert [(sent["kind"], sent["texts"]) for sent in role.payloads("texts")] == [
        ("query", [*CHANCE_QUERIES]),
        ("passage", [*BACKGROUND]),
        ("passage", ["A bad bed."]),
        ("query", ["a bed"]),
        ("passage", ["A bad bed. Dad had a bag!", "Dad had a bag!"]),
    ], "means and topics are embedded once"
    assert all(likeness["a bed"] > 0.3 for likeness, _, _ in heard.reported)


async def test_what_is_near_is_shown_to_the_cross_encoder_the_nearest_alone() -> None:
    topics = [f"a bed {letter}" for letter in "abcdefgh"]
    role = FakeRole({"texts": letter_vectors, "rank": {"scores": np.array([4.0], np.float32)}})
    heard = Heard(role, *topics, "jig")
    heard.say("A bad bed. Dad had a bag!")
    await heard.over()
    first, second = heard.reported[0][0], heard.reported[1][0]
    assert len(role.payloads("rank")) == 2 * MAX_RANKED
    assert role.payloads("rank")[0]["texts"] == ["A bad bed."]
    raised = sorted(first, key=first.__getitem__)[-MAX_RANKED:]
    assert {sent["query"] for sent in role.payloads("rank")[:MAX_RANKED]} == set(raised)
    assert first["jig"] < second["jig"] + 1.0


async def test_the_last_sentence_counts_alone_too() -> None:
    heard = Heard(letters_role(), "a bed")
    heard.say("Higgig jig fig hij. A bad bed.")
    await heard.over()
    alone = Heard(letters_role(), "a bed")
    alone.say("A bad bed.")
    await alone.over()
    assert heard.reported[1][0]["a bed"] >= alone.reported[0][0]["a bed"] - 1e-6


async def test_a_sentence_without_an_end_is_cut() -> None:
    heard = Heard(letters_role(), "a bed")
    heard.say("bad " * (MAX_SENTENCE + 3))
    await heard.over()
    assert [len(evidence.quote.split()) for _, evidence, _ in heard.reported] == [MAX_SENTENCE]


async def test_without_topics_or_a_model_nothing_is_compared() -> None:
    role = letters_role()
    for heard in (Heard(role), Heard(None, "a bed")):
        heard.say("A bad bed.")
        await heard.over()
        assert heard.reported == []
    assert role.calls == []


async def test_a_failing_model_loses_its_passage_and_is_called_again() -> None:
    before = missed("failed")
    heard = Heard(letters_role(WorkerError("away")), "a bed")
    heard.say("A bad bed. A big bag.")
    await heard.over()
    assert [sorted(likeness) for likeness, _, _ in heard.reported] == [[], ["a bed"]]
    assert missed("failed") - before == 1


async def test_a_slow_model_drops_the_oldest_passages_and_counts_them() -> None:
    before, go = missed("dropped"), asyncio.Event()
    heard = Heard(letters_role(gate=go), "a bed")
    for n in range(MAX_QUEUED + 3):
        heard.say("A bad bed.", float(n))
    go.set()
    await heard.over()
    assert len(heard.reported) == MAX_QUEUED
    assert missed("dropped") - before == 3


async def test_a_topic_without_a_watch_is_forgotten() -> None:
    role = letters_role()
    heard = Heard(role, "a bed", "an egg")
    heard.say("A bad bed.")
    running = asyncio.create_task(heard.matcher.run())
    await asyncio.wait_for(heard.first.wait(), 5.0)
    heard.wanted = {"a bed"}
    heard.say("A big bag.")
    heard.matcher.close()
    await running
    assert [sorted(likeness) for likeness, _, _ in heard.reported] == [["a bed", "an egg"], ["a bed"]]


class Engine:
    """The embed role with the engine in this process."""

    def __init__(self) -> None:
        self._ops = embed.load({"models": str(fetch.default_dir())}).ops

    async def call(self, op: str, payload: Payload, **_: Any) -> Payload:
        engine = self._ops[op]
        assert isinstance(engine, Op)
        (result,) = engine.run([payload])
        assert not isinstance(result, Exception)
        return dict(result)


@pytest.mark.models
async def test_the_real_models_separate_passages_by_topic() -> None:
    topics = ("the price of bread", "the death of bees")
    heard = Heard(Engine(), *topics)
    heard.say("A loaf costs twice what it did and bakers blame the wheat.")
    heard.say("We have about ten minutes left.", 20.0)
    heard.say("The bees were all dead because a wasp flew out.", 40.0)
    await heard.over()
    on = [[scores[topic] >= ON_TOPIC for topic in topics] for scores, _, _ in heard.reported]
    assert [on[0], on[2]] == [[True, False], [False, True]]
