"""The VLM engine: pictures in, answers out, and each item of a session is read once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra `gpu`")

from engines import Engine, vlm  # noqa: E402
from engines.vlm_decoder import argmax  # noqa: E402
from engines.vlm_window import Picture  # noqa: E402
from streamsvc.core.errors import InvalidRequest, ModelMissing, WorkerError  # noqa: E402
from tests.engines.tiny_vlm import Bench, picture, png, save  # noqa: E402
from tests.fakes.local_role import LocalRole  # noqa: E402
from tests.fakes.vlm_role import working  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("qwen2_vl", tmp_path_factory.mktemp("models") / "tiny")


def engine(folder: Path, **options: Any) -> Engine:
    return vlm.load({"models": str(folder.parent), "model": folder.name, **options})


def call(made: Engine, op: str, *payloads: dict[str, Any]) -> list[Any]:
    return list(made.ops[op].run(list(payloads)))  # type: ignore[arg-type]


def generated(made: Engine, **asked: Any) -> Iterator[dict[str, Any]]:
    return made.ops["generate"].run(asked)  # type: ignore[arg-type, return-value]


def answer(made: Engine, **asked: Any) -> tuple[dict[str, Any], str]:
    first, *rest = generated(made, **asked)
    return first, "".join(piece["text"] for piece in rest)


def said(at: float, text: str) -> dict[str, Any]:
    return {"number": int(at), "at": at, "text": text}


def shown(made: Engine, at: float, seed: int) -> dict[str, Any]:
    (seen,) = call(made, "encode", {"jpeg": png(seed)})
    return {"number": int(at), "at": at, "text": "two boxes", "picture": seen["picture"]}


def test_an_answer_is_what_the_plain_pipeline_says_of_the_same_tokens_and_pixels(folder: Path) -> None:
    made, bench = engine(folder), Bench(folder)
    _, text = answer(
        made, session="s", items=[said(1, "Hello."), shown(made, 2, 1)], question="what?", max_tokens=6
    )
    layout, (sight,) = bench.layout, bench.tower.encode([picture(1)])
    pieces = [
        layout.head,
        layout.text_line("Hello."),
        layout.picture_line("two boxes", Picture("p", *sight)),
        layout.question("what?"),
    ]
    ids = [n for piece in pieces for n in piece.ids]
    got: list[int] = []
    while len(got) < 6 and (token := argmax(bench.plain([*ids, *got], [picture(1)]))) not in layout.ends:
        got.append(token)
    assert layout.decode(got).startswith(text.rstrip("\ufffd"))
    assert got


def test_a_picture_is_encoded_once_and_a_broken_one_fails_alone(folder: Path) -> None:
    made = engine(folder)
    first, again, other, broken = call(
        made, "encode", {"jpeg": png(1)}, {"jpeg": png(1)}, {"jpeg": png(2)}, {"jpeg": np.zeros(9, np.uint8)}
    )
    assert first == again
    assert (first["known"], first["tokens"] > 0) == (False, True)
    assert other["picture"] != first["picture"]
    assert isinstance(broken, WorkerError)
    assert call(made, "encode", {"jpeg": png(1)})[0] == {**first, "known": True}


def test_items_of_a_session_are_read_once_and_before_the_question(folder: Path) -> None:
    made = engine(folder)
    items = [
        said(1, "Hello."),
        shown(made, 2, 1),
        said(3, "That was the plan for today, and this the budget."),
    ]
    (read,) = call(made, "extend", {"session": "s", "items": items})
    assert (read["reused"], read["unseen"]) == (0, 0)
    first, text = answer(made, session="s", items=items, question="what?", max_tokens=4)
    assert first["reused"] == read["tokens"]
    assert first["computed"] < 60
    more, _ = answer(made, session="s", items=[*items, said(4, "Yes.")], question="why?")
    assert read["tokens"] <= more["reused"]
    restarted = engine(folder)
    shown(restarted, 2, 1)
    fresh, same = answer(restarted, session="s", items=items, question="what?", max_tokens=4)
    assert (fresh["reused"], same) == (0, text)  # losing it costs time, never content


def test_much_that_is_new_is_read_in_several_calls_and_then_the_answer_is_the_same(folder: Path) -> None:
    made = engine(folder)
    items = [said(n, f"This is sentence {n} of a long talk about ships and weather.") for n in range(1, 25)]
    left: list[int] = []
    while not left or left[-1]:
        (read,) = call(made, "extend", {"session": "s 0", "items": items, "instruction": "Answer."})
        left.append(read["left"])
        assert read["computed"] < vlm.READ_TOKENS + 80  # an item is read whole
    assert len(left) > 2
    assert left == sorted(left, reverse=True)
    asked: Any = {"items": items, "instruction": "Answer.", "question": "what?", "max_tokens": 4}
    first, text = answer(made, session="s 0", **asked)
    assert first["reused"] == read["tokens"]
    assert call(made, "drop", {"session": "s 0"}) == [{}]
    again, same = answer(made, session="s 0", **asked)
    assert (again["reused"], same) == (0, text)
    other, _ = answer(made, session="s 0", **{**asked, "instruction": "Say nothing."})
    assert other["reused"] < 30, "another instruction is another head"


def test_a_full_window_drops_its_head_and_counts_it(folder: Path) -> None:
    made = engine(folder, window_tokens=200, visual_tokens=60)
    items = [said(n, f"This is sentence {n}.") for n in range(12)]
    last, _ = answer(made, session="s", items=items, question="what?", max_tokens=1)
    assert last["drops"] > 0
    assert last["gone"] > 0
    assert last["tokens"] < 200 + 200  # head and question stand beside the window
    again, _ = answer(made, session="s", items=items, question="what?", max_tokens=1)
    assert again["computed"] == 1  # what fell off is not taken for new


def test_a_picture_whose_tokens_are_gone_is_shown_by_its_text_and_counted(folder: Path) -> None:
    made = engine(folder, pictures=1)
    items = [shown(made, 1, 1), shown(made, 2, 2)]  # the second evicts the first
    first, _ = answer(made, session="s", items=items, question="what?", max_tokens=1)
    assert (first["unseen"], first["shown"]) == (1, [2])


def test_a_keyframe_that_is_too_large_for_the_window_is_made_smaller_and_still_seen(folder: Path) -> None:
    made = engine(folder, visual_tokens=30)  # the picture alone would be 18, the text around it as many
    first, _ = answer(made, session="s", items=[shown(made, 2, 1)], question="what?", max_tokens=1)
    assert (first["unseen"], first["shown"]) == (0, [2])


def test_a_cancelled_question_keeps_the_cached_session(folder: Path) -> None:
    made = engine(folder)
    stream = generated(made, session="s", items=[said(1, "Hello.")], question="what?", max_tokens=30)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    first, _ = answer(made, session="s", items=[said(1, "Hello.")], question="what?")
    assert first["computed"] == 1


def test_what_is_asked_aside_takes_no_place_of_a_session_and_is_answered_the_same(folder: Path) -> None:
    made = engine(folder, sessions=1)
    items, beside = [said(1, "Hello."), shown(made, 2, 1)], [shown(made, 2, 1)]
    answer(made, session="s", items=items, question="what?", max_tokens=4)
    first, text = answer(made, session="s aside", items=beside, question="new?", max_tokens=4, aside=True)
    assert (first["reused"], first["shown"]) == (0, [2])
    assert (
        answer(made, session="s aside", items=beside, question="new?", max_tokens=4, aside=True)[0]["reused"]
        == 0
    )
    assert answer(made, session="s", items=items, question="what?", max_tokens=4)[0]["computed"] == 1
    fresh = engine(folder)
    assert answer(fresh, session="t", items=[shown(fresh, 2, 1)], question="new?", max_tokens=4)[1] == text


def test_the_number_of_cached_sessions_is_bounded(folder: Path) -> None:
    made = engine(folder, sessions=2)
    for name in ("a", "b", "c"):
        call(made, "extend", {"session": name, "items": [said(1, "Hello.")]})
    kept = {
        name: call(made, "extend", {"session": name, "items": [said(1, "Hello.")]})[0]["reused"] > 0
        for name in ("c", "b", "a")
    }
    assert kept == {"c": True, "b": True, "a": False}


def test_a_prompt_is_served_as_by_the_small_model_and_its_examples_are_read_once(folder: Path) -> None:
    made = engine(folder)
    examples = "Text: the ferry leaves at seven.\nQuestion: When?\nAnswer: at seven\n\n"
    _, whole = answer(made, prompt=examples + "Question: who?", max_tokens=12)
    second, _ = answer(made, prompt=examples + "Question: where?", max_tokens=3)
    assert second["reused"] > len(examples)
    if len(whole) > 2:
        _, cut = answer(made, prompt=examples + "Question: who?", max_tokens=12, stop=[whole[2]])
        assert cut == whole[: whole.index(whole[2])]
    assert call(made, "count", {"texts": ["abc", ""]}) == [{"tokens": [3, 0]}]


def test_control_tokens_that_people_say_are_plain_text(folder: Path) -> None:
    made = engine(folder)
    items = [said(1, "<image> <|im_end|> <|vision_start|>")]
    first, _ = answer(made, session="s", items=items, question="<image>?", max_tokens=1)
    assert first["tokens"] > len("<image> <|im_end|> <|vision_start|>")  # a token a letter


def test_invalid_requests_are_refused(folder: Path) -> None:
    made = engine(folder)
    for asked in (
        {},
        {"question": "what?"},
        {"question": "what?", "session": "s"},
        {"question": "?", "session": "s", "items": [{"at": 1, "text": "without a number"}]},
    ):
        with pytest.raises(InvalidRequest):
            next(generated(made, **asked))
    (refused,) = call(made, "extend", {"session": "s", "items": "all"})
    assert isinstance(refused, InvalidRequest)
    with pytest.raises(InvalidRequest, match="adapter"):
        next(generated(made, session="s", items=[], question="what?", adapter="../tiny"))


async def test_two_sessions_at_once_do_not_mix(folder: Path) -> None:
    made = engine(folder)
    role = LocalRole(made)
    items = {
        name: [said(1, f"My name is {name}. " * (1 + 3 * n)), shown(made, 2, n)]
        for n, name in enumerate(("Ann", "Bob"))
    }

    async def ask(name: str) -> str:
        asked = {"session": name, "items": items[name], "question": "who?", "max_tokens": 8}
        return "".join([piece["text"] async for piece in role.stream("generate", asked, deadline_in_s=60)])

    together = list(await asyncio.gather(ask("Ann"), ask("Bob")))
    alone = [await ask("Ann"), await ask("Bob")]
    assert together == alone
    assert together[0] != together[1]


async def test_a_worker_process_serves_the_think_role(folder: Path) -> None:
    async with working("engines.vlm", {"models": str(folder.parent), "model": folder.name}) as role:
        seen = await role.call("encode", {"jpeg": png(3)}, deadline_in_s=60)
        items = [
            said(1, "Hello."),
            {"number": 2, "at": 2.0, "text": "boxes", "picture": seen["picture"]},
        ]
        asked = {"session": "s", "items": items, "question": "what?", "max_tokens": 5}
        pieces = [piece async for piece in role.stream("generate", asked, deadline_in_s=60)]
        assert pieces[0]["unseen"] == 0
        here = engine(folder)
        call(here, "encode", {"jpeg": png(3)})
        assert "".join(piece["text"] for piece in pieces) == answer(here, **asked)[1]


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match="absent"):
        vlm.load({"models": str(tmp_path), "model": "absent"})
