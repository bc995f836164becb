"""Who answers: an exact tool, the model, the extractive reader; and what is told where none can."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from streamsvc.answers.answer import Answerer, Attachment, shaped
from streamsvc.answers.deadline import Plan
from streamsvc.answers.model_reader import Clause, Prompt
from streamsvc.answers.route import Arguments, Route
from streamsvc.core import clock
from streamsvc.core.types import Answer, Delta, Evidence, Question
from streamsvc.timeline.passages import ANSWER, FLOOR, Passage
from streamsvc.timeline.timeline import Timeline
from tests.builders.units import cue, screen, sight
from tests.fakes.role import FakeRole

SAID = "We fire the kiln on Thursdays, because the wood comes on the evening before that."
COUNT = Route("count", "sight", Arguments(label="cat"))


@dataclass
class FakeIndex:
    """Retrieval that finds one passage, with a given score; it takes `seconds`."""

    score: float = ANSWER
    seconds: float = 0.0
    asked: list[str] = field(default_factory=list)

    async def passages(self, query: str, **_: Any) -> list[Passage]:
        self.asked.append(query)
        await clock.sleep(self.seconds)
        return [Passage((Evidence(2.0, 6.0, "speech", SAID),), self.score, margin=9.0)]

    async def rank(self, query: str, texts: Sequence[str], seconds: float) -> None:
        return None


@dataclass
class FakeModel:
    """A model reader that says sentences, or waits (a number, in seconds)."""

    says: Sequence[str | float]
    checked: bool = True
    prompts: list[Prompt] = field(default_factory=list)
    left: bool = False
    reads: bool = True  # False: it sees alone

    def can(self, route: Route, picture: str) -> bool:
        return self.reads or route.reader == "sight" or bool(picture)

    async def clauses(self, prompt: Prompt, passages: Awaitable[Any]) -> AsyncGenerator[Clause, None]:
        self.prompts.append(prompt)
        try:
            for said in self.says:
                if isinstance(said, float):
                    await clock.sleep(said)
                else:
                    yield Clause(said, (Evidence(2.0, 6.0, "speech", SAID),), self.checked)
        finally:
            self.left = True


def known() -> Timeline:
    timeline = Timeline()
    timeline.add(cue(SAID, 2.0))
    timeline.add(sight(3.0))
    return timeline


async def asked(
    route: Route | None = None,
    *,
    timeline: Timeline | None = None,
    index: Any = None,
    model: Any = None,
    shortener: Any = None,
    plan: Plan | None = None,
    attachment: Attachment | None = None,
    **question: Any,
) -> tuple[Answer, list[Delta]]:
    """The whole answer and its increments, which joined are its text."""
    now = clock.now()
    asked = Question("q", "When is the kiln fired?", 10.0, now + 3.0, **question)
    knowing: Any = index or FakeIndex()
    answerer = Answerer(timeline or known(), knowing, model, shortener)
    plan = plan or Plan(fallback_at=now + 2.6)
    parts = [part async for part in answerer.answer(asked, route or Route(), plan, attachment)]
    *deltas, whole = parts
    assert isinstance(whole, Answer)
    assert "".join(part.text for part in deltas) == whole.text
    return whole, [part for part in deltas if isinstance(part, Delta)]


def test_before_any_content_it_says_so(virtual: asyncio.Runner) -> None:
    whole, _ = virtual.run(asked(timeline=Timeline()))
    assert (whole.outcome, whole.reason, whole.supported) == ("declined", "nothing_yet", False)


def test_an_exact_tool_is_never_overruled_by_a_model(virtual: asyncio.Runner) -> None:
    model = FakeModel(["There are nine cats."])
    whole, _ = virtual.run(asked(COUNT, model=model))
    assert (whole.outcome, whole.by, whole.supported) == ("answer", "tool", True)
    assert whole.evidence
    assert model.prompts == []


def test_a_summary_is_told_by_the_model_and_by_the_tool_where_it_says_nothing(
    virtual: asyncio.Runner,
) -> None:
    route = Route("summary")
    assert virtual.run(asked(route, model=FakeModel(["They fire a kiln."])))[0].by == "model"
    whole, _ = virtual.run(asked(route, model=FakeModel([])))
    assert (whole.by, whole.outcome) == ("tool", "answer")


def test_without_a_model_the_reader_tells_points_or_declines_by_score(virtual: asyncio.Runner) -> None:
    answer, closest, declined = (
        virtual.run(asked(index=FakeIndex(score)))[0] for score in (ANSWER, ANSWER - 1, FLOOR - 1)
    )
    assert (answer.outcome, answer.by, answer.supported) == ("answer", "reader", True)
    assert (closest.outcome, closest.by, closest.supported) == ("closest", "reader", False)
    assert closest.evidence[0].quote == SAID
    assert (declined.outcome, declined.reason) == ("declined", "not_found")


@pytest.mark.parametrize("reader", ["sight", "none"])
def test_what_no_model_here_can_tell_is_declined_as_such(virtual: asyncio.Runner, reader: Any) -> None:
    whole, _ = virtual.run(asked(Route(reader=reader), index=FakeIndex(FLOOR - 1)))
    assert (whole.outcome, whole.reason) == ("declined", "cannot_tell")


def test_other_languages_go_to_a_model_that_reads_or_are_declined_as_such(virtual: asyncio.Runner) -> None:
    route = Route(language="de")
    index = FakeIndex()
    whole, _ = virtual.run(asked(route, index=index))
    assert (whole.outcome, whole.reason) == ("declined", "cannot_tell")
    assert "English" in whole.text
    assert virtual.run(asked(route, model=FakeModel(["Donnerstags."]), index=index))[0].by == "model"
    assert index.asked == []  # its encoder knows English alone


def test_a_model_that_says_nothing_in_another_language_was_late_and_nothing_was_searched(
    virtual: asyncio.Runner,
) -> None:
    whole, _ = virtual.run(asked(Route(language="de"), model=FakeModel([])))
    assert (whole.outcome, whole.reason) == ("declined", "late")
    whole, _ = virtual.run(
        asked(Route(language="de"), model=FakeModel([]), plan=Plan(fallback_at=1e9, asks_model=False))
    )
    assert (whole.outcome, whole.reason) == ("declined", "late")


def test_a_models_sentences_are_told_as_they_come(virtual: asyncio.Runner) -> None:
    whole, deltas = virtual.run(asked(model=FakeModel([0.5, "On Thursdays.", 1.0, "The wood comes before."])))
    assert [delta.text for delta in deltas] == ["On Thursdays.", " The wood comes before."]
    assert (whole.by, whole.outcome, whole.supported) == ("model", "answer", True)
    assert len(whole.evidence) == 1


def test_a_models_own_word_on_a_picture_is_not_supported(virtual: asyncio.Runner) -> None:
    model = FakeModel(["A potter waves."], checked=False)
    whole, _ = virtual.run(asked(Route(reader="sight"), model=model))
    assert (whole.outcome, whole.by, whole.supported) == ("answer", "model", False)


@pytest.mark.parametrize("says", [[], [9.0, "Too late."]])
def test_without_a_sentence_in_time_the_readers_answer_is_told(
    virtual: asyncio.Runner, says: list[str | float]
) -> None:
    async def main() -> tuple[Answer, float]:
        began = clock.now()
        model = FakeModel(says)
        whole, _ = await asked(model=model, index=FakeIndex(seconds=0.4))
        assert model.left  # what is late is given up
        return whole, clock.now() - began

    whole, seconds = virtual.run(main())
    assert (whole.by, whole.outcome) == ("reader", "answer")
    assert seconds == pytest.approx(2.6 if says else 0.4)


def test_a_model_that_cannot_be_in_time_is_not_asked(virtual: asyncio.Runner) -> None:
    model = FakeModel(["On Thursdays."])
    whole, _ = virtual.run(asked(model=model, plan=Plan(fallback_at=1e9, asks_model=False)))
    assert (whole.by, model.prompts) == ("reader", [])


def test_a_small_model_shortens_what_the_reader_told(virtual: asyncio.Runner) -> None:
    shortener = FakeRole(streams={"generate": ["on the evening before"]})
    whole, deltas = virtual.run(asked(shortener=shortener))
    assert whole.text.endswith(" In short: on the evening before.")
    assert whole.by == "reader"
    assert len(deltas) == 2
    assert virtual.run(asked(shortener=shortener, index=FakeIndex(ANSWER - 1)))[0].outcome == "closest"
    assert shortener.count("generate") == 1  # what is only pointed at is not shortened


# --- images that come with a question -----------------------------------------------------------------------


def test_an_image_is_asked_instead_of_the_session(virtual: asyncio.Runner) -> None:
    attachment = Attachment(sight(10.0, "dog"), screen(10.0, "Kennel"))
    route = replace(COUNT, arguments=Arguments(label="dog"))
    whole, _ = virtual.run(asked(route, attachment=attachment, image=b"jpeg"))
    assert (whole.by, {item.kind for item in whole.evidence}) == ("tool", {"image"})
    whole, _ = virtual.run(asked(attachment=attachment, image=b"jpeg"))
    assert (whole.outcome, whole.reason) == ("declined", "not_found")


def test_a_model_that_sees_is_shown_the_image(virtual: asyncio.Runner) -> None:
    model = FakeModel(["A dog sleeps."], checked=False)
    attachment = Attachment(sight(10.0, "dog"), screen(10.0), "key")
    whole, _ = virtual.run(asked(Route(reader="sight"), attachment=attachment, image=b"jpeg", model=model))
    assert (whole.by, model.prompts[0].picture) == ("model", "key")


# --- structured answers -------------------------------------------------------------------------------------


def test_a_model_that_sees_and_does_not_read_is_asked_of_pictures_alone(virtual: asyncio.Runner) -> None:
    async def main() -> None:
        model = FakeModel(["A red kiln."], checked=False, reads=False)
        words, _ = await asked(model=model)
        assert (words.by, model.prompts) == ("reader", [])
        pictures, _ = await asked(Route(reader="sight"), model=model)
        assert (pictures.by, pictures.text) == ("model", "A red kiln.")

    virtual.run(main())


def test_an_answer_of_a_form_comes_whole_as_json(virtual: asyncio.Runner) -> None:
    form = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}

    async def main() -> list[Delta | Answer]:
        question = Question("q", "When is the kiln fired?", 10.0, clock.now() + 3.0, form=form)
        answerer: Any = Answerer(known(), FakeIndex(), FakeModel(["On Thursdays.", "Always."]))  # type: ignore[arg-type]
        parts = answerer.answer(question, Route(), Plan(fallback_at=clock.now() + 2.6))
        return [part async for part in shaped(question, Route(), parts)]

    delta, whole = virtual.run(main())
    assert delta.text == whole.text
    assert whole.text.startswith('{"answer"')
