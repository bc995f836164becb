"""A search matches embedded texts by meaning, others by words, and its waiting is bounded."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest

from streamsvc.core import clock
from streamsvc.core.errors import ModelMissing, WorkerError
from streamsvc.core.roles import Payload
from streamsvc.core.types import Evidence
from streamsvc.timeline import index
from streamsvc.timeline.index import Index, Picture
from streamsvc.timeline.ranking import Hit
from tests.builders.session import Threadless
from tests.fakes.role import FakeRole

ANIMALS = ("feline", "cat", "kitten")


def animal_vectors(payload: Payload) -> Payload:
    """Op `texts`: texts about animals have one vector, all others another."""
    rows = [[1, 0] if any(a in text.lower() for a in ANIMALS) else [0, 1] for text in payload["texts"]]
    return {"vectors": np.array(rows, np.float32)}


def animal_encoder(*, seconds: float = 0.0, error: Exception | None = None) -> FakeRole:
    """An embed role with one lane, `seconds` for each text."""
    return FakeRole(
        {"texts": error or animal_vectors},
        delay=lambda op, payload: seconds * len(payload["texts"]),
        lanes=1,
    )


def embedded(role: FakeRole) -> list[str]:
    """The texts that `role` has embedded, in order."""
    return [text for call in role.completed for text in call.payload["texts"]]


def said(*texts: str) -> list[Evidence]:
    return [Evidence(10.0 * n, 10.0 * n + 2, "speech", text) for n, text in enumerate(texts)]


class Searching:
    """An index with its task, on virtual time."""

    def __init__(self, encoder: FakeRole | None, see: FakeRole | None = None) -> None:
        self.index = Index(encoder, see)
        self.tasks: list[asyncio.Task[None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    async def __call__(
        self, lines: list[Evidence], query: str, pictures: Sequence[Picture] = ()
    ) -> list[Hit]:
        return await self.index.search(lines, query, 10, self.spawn, pictures)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=Threadless) as runner:
        runner.run(work)


def test_a_paraphrase_is_found_by_its_meaning() -> None:
    async def main() -> None:
        search = Searching(animal_encoder())
        assert [hit.text for hit in await search(said("A cat sat there.", "It rains."), "feline")] == [
            "A cat sat there."
        ]

    run(main())


def test_without_a_model_the_search_is_by_words() -> None:
    async def main() -> None:
        for encoder in (
            None,
            animal_encoder(error=ModelMissing("not there")),
            animal_encoder(error=WorkerError("died")),
        ):
            search = Searching(encoder)
            assert [hit.text for hit in await search(said("A cat sat there.", "It rains."), "cats")] == [
                "A cat sat there."
            ]
            assert await search(said("A cat sat there.", "It rains."), "feline") == []
            await asyncio.gather(*search.tasks)

    run(main())


def test_texts_not_embedded_in_time_are_embedded_after_the_search_the_newest_first() -> None:
    async def main() -> None:
        encoder = animal_encoder(seconds=0.05)
        search = Searching(encoder)
        lines = said(
            "A cat sat there.",
            *(f"Line number {n} of a long talk about rain." for n in range(60)),
            "A kitten sat there.",
        )
        began = clock.now()
        first = await search(lines, "feline")
        assert clock.now() - began <= index.MAX_WAIT + 0.01
        assert [hit.text for hit in first] == ["A kitten sat there."]
        await asyncio.gather(*search.tasks)
        assert {hit.text for hit in await search(lines, "feline")} == {
            "A kitten sat there.",
            "A cat sat there.",
        }

    run(main())


def test_no_text_is_embedded_twice_and_new_ones_are_embedded_by_the_next_search() -> None:
    async def main() -> None:
        encoder = animal_encoder()
        search = Searching(encoder)
        await search(said("A cat sat there."), "rain")
        await search(said("A cat sat there.", "It rains."), "feline")
        assert sorted(embedded(encoder)) == ["A cat sat there.", "It rains.", "feline", "rain"]

    run(main())


def test_a_second_search_finds_a_text_added_while_the_first_was_embedding() -> None:
    async def main() -> None:
        search = Searching(animal_encoder(seconds=0.04))
        lines = said(*(f"Line number {n} of a long talk about rain." for n in range(40)))
        await search(lines, "feline")
        hits = await search([*lines, Evidence(900.0, 901.0, "speech", "A cat sat there.")], "feline")
        await asyncio.gather(*search.tasks)
        assert [hit.text for hit in hits] == ["A cat sat there."]
        assert len(search.tasks) == 1

    run(main())


def test_vectors_of_dropped_documents_are_dropped() -> None:
    async def main() -> None:
        search = Searching(animal_encoder())
        await search(said("A cat sat there.", "It rains."), "feline")
        await search(said("It snows."), "feline")
        assert set(search.index._vectors) == {"It snows."}

    run(main())


def test_no_model_is_called_for_a_query_without_a_content_word() -> None:
    async def main() -> None:
        encoder = animal_encoder()
        assert await Searching(encoder)(said("A cat sat there."), "what is the") == []
        assert encoder.calls == []

    run(main())


def test_a_query_is_never_logged(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        search = Searching(animal_encoder(error=WorkerError("died")))
        await search(said("A cat sat there."), "feline")
        await asyncio.gather(*search.tasks)

    run(main())
    output = capsys.readouterr().out
    assert "by words alone" in output
    assert "feline" not in output and "cat" not in output


def test_the_embedding_can_be_cancelled_at_any_time() -> None:
    async def main() -> None:
        search = Searching(animal_encoder(seconds=1.0))
        lines = said("A cat sat there.", "It rains.")
        await search(lines, "cats")
        for task in search.tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        assert [hit.text for hit in await search(lines, "cats")] == ["A cat sat there."]
        await asyncio.gather(*search.tasks, return_exceptions=True)

    run(main())


def shown(*vectors: tuple[float, float], name: str = "") -> list[Picture]:
    """Pictures: a query about animals matches by the first number of a vector, others by the second."""
    return [
        (Evidence(10.0 * n, 10.0 * n + 9, "sight", name, 10.0 * n), np.array(vector, np.float16))
        for n, vector in enumerate(vectors)
    ]


def test_a_picture_is_found_by_a_sentence_and_its_neighbour_is_not() -> None:
    async def main() -> None:
        see = animal_encoder()
        for vectors, frame in (
            (((6.0, 0.0), (0.0, 6.0)), 0.0),
            (((0.0, 6.0), (6.0, 0.0)), 10.0),
        ):  # swapped
            search = Searching(None, see)
            assert [hit.frame for hit in await search(said("It rains."), "feline", shown(*vectors))] == [
                frame
            ]
        assert embedded(see)[:2] == ["feline", "a photo of feline."]

    run(main())


def test_a_picture_with_a_vector_replaces_the_line_with_its_labels() -> None:
    async def main() -> None:
        lines = [
            *said("It rains."),
            Evidence(0.0, 9.0, "sight", "cat", 0.0),
            Evidence(20.0, 29.0, "sight", "cat", 20.0),
        ]
        hits = await Searching(None, animal_encoder())(lines, "cat", shown((6.0, 0.0), name="cat"))
        assert [(hit.start, hit.text) for hit in hits] == [(0.0, "cat"), (20.0, "cat")]

    run(main())


def test_without_a_vision_text_model_pictures_are_found_by_their_labels() -> None:
    async def main() -> None:
        for see in (None, animal_encoder(error=WorkerError("died"))):
            search = Searching(None, see)
            assert [hit.text for hit in await search([], "cats", shown((0.0, 0.0), name="cat"))] == ["cat"]
            assert await search([], "feline", shown((6.0, 0.0))) == []

    run(main())


def test_both_models_are_called_concurrently_and_neither_without_documents() -> None:
    async def main() -> None:
        embed, see = animal_encoder(seconds=0.2), animal_encoder(seconds=0.2)
        began = clock.now()
        await Searching(embed, see)(said("It rains."), "feline", shown((6.0, 0.0)))
        assert clock.now() - began == pytest.approx(0.4)  # two prompts, one after the other, in each model
        assert (
            await Searching(animal_encoder(error=AssertionError()), see)([], "feline", shown((6.0, 0.0)))
            != []
        )
        assert (
            await Searching(None, animal_encoder(error=AssertionError()))(said("A cat sat there."), "cat")
            != []
        )

    run(main())
