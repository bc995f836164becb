"""A search finds by meaning what has been embedded, by words what has not, and never waits long."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
import pytest

from streamsvc import clock, retrieve
from streamsvc.errors import ModelMissing, WorkerError
from streamsvc.retrieve import Index
from streamsvc.search import Hit
from streamsvc.types import Evidence
from tests.stage import Threadless

ANIMALS = ("feline", "cat", "kitten")


class Meanings:
    """A stand-in for the embed role: texts about animals are alike. Each text takes `seconds`."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.asked: list[str] = []
        self._one = asyncio.Lock()  # as the worker's lane: one call after the other

    async def call(self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = "") -> dict[str, Any]:
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
            "vectors": np.array([[1, 0] if any(a in text.lower() for a in ANIMALS) else [0, 1] for text in payload["texts"]], np.float32)
        }

    def stream(self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = "") -> AsyncIterator[dict[str, Any]]:
        raise NotImplementedError


def said(*texts: str) -> list[Evidence]:
    return [Evidence(10.0 * n, 10.0 * n + 2, "speech", text) for n, text in enumerate(texts)]


class Searching:
    """An index with its task, on virtual time."""

    def __init__(self, meanings: Meanings | None) -> None:
        self.index = Index(meanings)
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def __call__(self, lines: list[Evidence], query: str) -> list[Hit]:
        return await self.index.search(lines, query, 10, self.spawn)


def play(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Threadless) as runner:
        runner.run(work)


def test_a_paraphrase_is_found_by_its_meaning() -> None:
    async def main() -> None:
        search = Searching(Meanings())
        assert [hit.text for hit in await search(said("A cat sat there.", "It rains."), "feline")] == ["A cat sat there."]

    play(main())


def test_without_a_model_the_words_still_find() -> None:
    async def main() -> None:
        for meanings in (None, Meanings(error=ModelMissing("not there")), Meanings(error=WorkerError("died"))):
            search = Searching(meanings)
            assert [hit.text for hit in await search(said("A cat sat there.", "It rains."), "cats")] == ["A cat sat there."]
            assert await search(said("A cat sat there.", "It rains."), "feline") == []
            await asyncio.gather(*search.tasks)

    play(main())


def test_what_a_search_cannot_wait_for_is_embedded_after_it_the_newest_first() -> None:
    async def main() -> None:
        meanings = Meanings(seconds=0.05)
        search = Searching(meanings)
        lines = said("A cat sat there.", *(f"Line number {n} of a long talk about rain." for n in range(60)), "A kitten sat there.")
        began = clock.now()
        first = await search(lines, "feline")
        assert clock.now() - began <= retrieve.PATIENCE + 0.01
        assert [hit.text for hit in first] == ["A kitten sat there."]
        await asyncio.gather(*search.tasks)
        assert {hit.text for hit in await search(lines, "feline")} == {"A kitten sat there.", "A cat sat there."}

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
