"""A search finds by meaning what has been embedded, by words what has not, and never waits long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from streamsvc.core import clock
from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.core.types import Evidence
from streamsvc.timeline import index
from streamsvc.timeline.index import Index, Picture
from streamsvc.timeline.ranking import Hit
from tests.builders.session import Threadless

ANIMALS = ("feline", "cat", "kitten")


class Meanings:
    """A stand-in for the embed role: texts about animals are alike. Each text takes `seconds`."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.asked: list[str] = []
        self._one = asyncio.Lock()  # as the worker's lane: one call after the other

    async def call(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> dict[str, Any]:
        assert op == "texts"
        if self.error is not None:
            raise self.error
        try:
            async with asyncio.timeout(deadline_in_s), self._one:
                await clock.sleep(self.seconds * len(payload["texts"]))
        except TimeoutError:
            raise WorkerError("not in time") from None
        self.asked += payload["texts"]
        return {
            "vectors": np.array(
                [[1, 0] if any(a in text.lower() for a in ANIMALS) else [0, 1] for text in payload["texts"]],
                np.float32,
            )
        }

    def stream(
        self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[dict[str, Any]]:
        raise NotImplementedError


def said(*texts: str) -> list[Evidence]:
    return [Evidence(10.0 * n, 10.0 * n + 2, "speech", text) for n, text in enumerate(texts)]


class Searching:
    """An index with its task, on virtual time."""

    def __init__(self, meanings: Meanings | None, see: Meanings | None = None) -> None:
        self.index = Index(meanings, see)
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def __call__(
        self, lines: list[Evidence], query: str, pictures: Sequence[Picture] = ()
    ) -> list[Hit]:
        return await self.index.search(lines, query, 10, self.spawn, pictures)


def play(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Threadless) as runner:
        runner.run(work)


def test_a_paraphrase_is_found_by_its_meaning() -> None:
    async def main() -> None:
        search = Searching(Meanings())
        assert [hit.text for hit in await search(said("A cat sat there.", "It rains."), "feline")] == [
            "A cat sat there."
        ]

    play(main())


def test_without_a_model_the_words_still_find() -> None:
    async def main() -> None:
        for meanings in (
            None,
            Meanings(error=ModelMissing("not there")),
            Meanings(error=WorkerError("died")),
        ):
            search = Searching(meanings)
            assert [hit.text for hit in await search(said("A cat sat there.", "It rains."), "cats")] == [
                "A cat sat there."
            ]
            assert await search(said("A cat sat there.", "It rains."), "feline") == []
            await asyncio.gather(*search.tasks)

    play(main())


def test_what_a_search_cannot_wait_for_is_embedded_after_it_the_newest_first() -> None:
    async def main() -> None:
        meanings = Meanings(seconds=0.05)
        search = Searching(meanings)
        lines = said(
            "A cat sat there.",
            *(f"Line number {n} of a long talk about rain." for n in range(60)),
            "A kitten sat there.",
        )
        began = clock.now()
        first = await search(lines, "feline")
        assert clock.now() - began <= index.PATIENCE + 0.01
        assert [hit.text for hit in first] == ["A kitten sat there."]
        await asyncio.gather(*search.tasks)
        assert {hit.text for hit in await search(lines, "feline")} == {
            "A kitten sat there.",
            "A cat sat there.",
        }

    play(main())


def test_nothing_is_embedded_twice_and_what_came_since_is_embedded_by_the_next_search() -> None:
    async def main() -> None:
        meanings = Meanings()
        search = Searching(meanings)
        await search(said("A cat sat there."), "rain")
        await search(said("A cat sat there.", "It rains."), "feline")
        assert sorted(meanings.asked) == ["A cat sat there.", "It rains.", "feline", "rain"]

    play(main())


def test_a_second_search_finds_what_came_while_the_first_one_was_embedding() -> None:
    async def main() -> None:
        search = Searching(Meanings(seconds=0.04))
        lines = said(*(f"Line number {n} of a long talk about rain." for n in range(40)))
        await search(lines, "feline")
        found = await search([*lines, Evidence(900.0, 901.0, "speech", "A cat sat there.")], "feline")
        await asyncio.gather(*search.tasks)
        assert [hit.text for hit in found] == ["A cat sat there."]
        assert len(search.tasks) == 1

    play(main())


def test_vectors_of_what_the_session_has_forgotten_are_forgotten() -> None:
    async def main() -> None:
        search = Searching(Meanings())
        await search(said("A cat sat there.", "It rains."), "feline")
        await search(said("It snows."), "feline")
        assert set(search.index._vectors) == {"It snows."}

    play(main())


def test_nobody_is_asked_for_a_query_without_a_content_word() -> None:
    async def main() -> None:
        meanings = Meanings()
        assert await Searching(meanings)(said("A cat sat there."), "what is the") == []
        assert meanings.asked == []

    play(main())


def test_a_query_is_never_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        search = Searching(Meanings(error=WorkerError("died")))
        await search(said("A cat sat there."), "feline")
        await asyncio.gather(*search.tasks)

    play(main())
    told = capsys.readouterr().out
    assert "by words alone" in told
    assert "feline" not in told and "cat" not in told


def test_the_embedding_can_be_cancelled_at_any_time() -> None:
    async def main() -> None:
        search = Searching(Meanings(seconds=1.0))
        lines = said("A cat sat there.", "It rains.")
        await search(lines, "cats")
        for task in search.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert [hit.text for hit in await search(lines, "cats")] == ["A cat sat there."]
        await asyncio.gather(*search.tasks, return_exceptions=True)

    play(main())


def shown(*vectors: tuple[float, float], name: str = "") -> list[Picture]:
    """Pictures; of a text about animals each stands out by its vector's first number, of any other by its second."""
    return [
        (Evidence(10.0 * n, 10.0 * n + 9, "sight", name, 10.0 * n), np.array(each, np.float16))
        for n, each in enumerate(vectors)
    ]


def test_a_picture_is_found_by_a_sentence_and_not_the_one_beside_it() -> None:
    async def main() -> None:
        see = Meanings()
        for vectors, frame in (
            (((6.0, 0.0), (0.0, 6.0)), 0.0),
            (((0.0, 6.0), (6.0, 0.0)), 10.0),
        ):  # swapped: found swapped
            search = Searching(None, see)
            assert [hit.frame for hit in await search(said("It rains."), "feline", shown(*vectors))] == [
                frame
            ]
        assert see.asked[:2] == ["feline", "a photo of feline."]

    play(main())


def test_a_picture_with_a_vector_takes_the_place_of_the_line_that_tells_of_it() -> None:
    async def main() -> None:
        lines = [
            *said("It rains."),
            Evidence(0.0, 9.0, "sight", "cat", 0.0),
            Evidence(20.0, 29.0, "sight", "cat", 20.0),
        ]
        found = await Searching(None, Meanings())(lines, "cat", shown((6.0, 0.0), name="cat"))
        assert [(hit.start, hit.text) for hit in found] == [(0.0, "cat"), (20.0, "cat")]

    play(main())


def test_pictures_are_found_by_their_labels_where_the_vision_text_model_cannot_be_asked() -> None:
    async def main() -> None:
        for see in (None, Meanings(error=WorkerError("died"))):
            search = Searching(None, see)
            assert [hit.text for hit in await search([], "cats", shown((0.0, 0.0), name="cat"))] == ["cat"]
            assert await search([], "feline", shown((6.0, 0.0))) == []

    play(main())


def test_both_models_are_asked_at_once_and_neither_for_what_is_not_there() -> None:
    async def main() -> None:
        embed, see = Meanings(seconds=0.2), Meanings(seconds=0.2)
        began = clock.now()
        await Searching(embed, see)(said("It rains."), "feline", shown((6.0, 0.0)))
        assert clock.now() - began == pytest.approx(0.4)  # two texts, one after the other, in each
        assert await Searching(Meanings(error=AssertionError()), see)([], "feline", shown((6.0, 0.0))) != []
        assert await Searching(None, Meanings(error=AssertionError()))(said("A cat sat there."), "cat") != []

    play(main())
