"""Stand-in endpoints are asked as a model is, and what they say is counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from engines import remote, remote_chat
from load_tests.cached_engines import CachedEngines
from load_tests.endpoints import EMBEDDED, STAND_INS, Result, as_json, figures, run, settings_for, table, told
from streamsvc.core.config import Settings
from streamsvc.core.errors import StreamsvcError
from streamsvc.evaluation.scenario import Scenario
from streamsvc.evaluation.session_run import Load
from tests.builders.clips import clip
from tests.fakes import answer_endpoint
from tests.fakes.answer_endpoint import (
    NONE,
    AnswerEndpoint,
    Asked,
    inventing_names,
    of_another_question,
    off_the_cited_lines,
    serving,
    truthful,
    understood,
)
from tests.fakes.engines_by_name import load

LINES = """Answer from the lines.
[1] 0:02-0:09 note, said: The harbour was closed.
[2] 0:10 said: The ferry leaves at half past seven.
[3] 0:15 screen: Pier 3
[4] 0:16 said: It carries no bicycles on Sundays.
[5] 0:30 said: A dog called Bruno barked at 4 gulls."""


@pytest.fixture
def remote_engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """`remote.load`, whose connections are closed at the end."""
    opened: list[remote_chat.Chat] = []

    def chat(of: remote_chat.Endpoint) -> remote_chat.Chat:
        opened.append(remote_chat.Chat(of))
        return opened[-1]

    monkeypatch.setattr(remote, "Chat", chat)
    yield lambda module, options: remote.load(options)
    for one in opened:
        one.close()


def question(number: str, text: str, answer: str, start: float, end: float, **more: Any) -> dict[str, Any]:
    rest = {"type": "open", "keywords": answer.split()[-1:], "ask_at_s": end + 2.0, "modality": "speech"}
    return {"id": number, "question": text, "answer": answer, "evidence_s": [start, end], **rest, **more}


FERRY = question("q1", "When does it leave?", "It leaves at half past seven.", 10, 14)
DOG = question("q2", "Who barked?", "bruno", 31, 34)
NEVER = question("q3", "Who steers?", "never said", 10, 14, answerable=False)
KNOWN = [FERRY, DOG, NEVER]


def asked(text: str, **more: Any) -> Asked:
    return understood({"messages": [{"role": "user", "content": f"{LINES}\n{text}"}], **more}, KNOWN)


def test_the_last_question_of_a_prompt_is_understood_with_its_lines_and_pictures() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,"}}
    text = f"{LINES}\nEarlier: who barked?\nQuestion: When does it  leave?"
    content = [{"type": "text", "text": text}, picture]
    of = understood({"messages": [{"role": "user", "content": content}]}, KNOWN)
    assert of.question is FERRY
    assert of.pictures == 1
    assert [(line.number, line.at, line.end, line.kind) for line in of.lines[:3]] == [
        (1, 2.0, 10.0, "note"),
        (2, 10.0, 16.0, "said"),
        (3, 15.0, float("inf"), "screen"),
    ]
    assert asked("What else?").question is None


def test_the_truth_is_told_with_the_lines_of_its_evidence_and_nothing_of_what_never_was() -> None:
    assert truthful(asked("When does it leave?")) == "It leaves at half past seven. [2]"
    assert truthful(asked("Who barked?")) == "The answer is bruno. [5]"
    both = question("q4", "And then?", "The ferry leaves. No bicycles on the 4th.", 10, 29)
    text = {"messages": [{"role": "user", "content": f"{LINES}\nAnd then?"}]}
    assert truthful(understood(text, [both])) == "The ferry leaves. [2] No bicycles on the 4th. [4]"
    foreign = question("q5", "Wer bellt?", "Bruno.", 31, 34, language="de")
    text = {"messages": [{"role": "user", "content": f"{LINES}\nWer bellt?"}]}
    assert truthful(understood(text, [foreign])) == "Bruno. [5]"
    assert truthful(asked("Who steers?")) == NONE
    assert truthful(asked("What else?")) == NONE


def test_a_form_is_filled_in() -> None:
    schema = {
        "type": "object",
        "required": ["tool", "text", "count", "items", "sure"],
        "properties": {
            "tool": {"enum": ["clock", "none"]},
            "text": {"type": ["string", "null"]},
            "count": {"type": "integer"},
            "items": {"type": "array", "items": {"const": 1}, "minItems": 2},
            "sure": {"type": "boolean"},
            "note": {"anyOf": [{"type": "null"}]},
        },
    }
    form = {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
    assert json.loads(truthful(asked("Who barked?", **form))) == {
        "tool": "none",
        "text": "bruno",
        "count": 0,
        "items": [1, 1],
        "sure": False,
    }
    assert json.loads(inventing_names(asked("Who steers?", **form)))["text"] == ""


def test_inventions_of_three_grades() -> None:
    of = asked("When does it leave?")
    assert inventing_names(of).endswith(" [2]")
    assert inventing_names(of) == inventing_names(of)
    assert any(name in inventing_names(of) for name in answer_endpoint._NAMES)
    others = ("It carries no bicycles on Sundays. [2]", "A dog called Bruno barked at 4 gulls. [2]")
    assert off_the_cited_lines(of) in others
    assert of_another_question(of) == NONE  # the dog barks later than the newest line
    longer = understood(
        {"messages": [{"role": "user", "content": f"{LINES}\n[6] 0:40 said: So.\nWho barked?"}]}, KNOWN
    )
    assert of_another_question(longer) == "It leaves at half past seven. [2]"


@pytest.mark.parametrize(
    ("answer", "by", "reply", "own"),
    [
        ("It leaves at seven.", None, "It leaves at seven. [2]", True),
        ("Something else.", "model", "It leaves at seven. [2]", True),
        ("Something else.", "reader", "It leaves at seven. [2]", False),
        ("Something else.", "model", NONE, False),
        ("Something else.", "model", None, False),
    ],
)
def test_what_the_service_tells_of_a_reply(answer: str, by: str | None, reply: str | None, own: bool) -> None:
    assert told({"answer": answer, "by": by, "told": True}, reply) == own
    assert not told({"answer": answer, "by": by, "told": False}, reply)


def row(number: str, verdict: str, half: str, **more: Any) -> dict[str, Any]:
    return {
        "recording": "a",
        "id": number,
        "verdict": verdict,
        "half": half,
        "answerable": True,
        "cited": False,
        "honest": True,
        "told": True,
        "among_first": True,
        "points": None,
        "answer": "Yes.",
        "by": "model",
        "done_s": 2.0,
        **more,
    }


def test_the_table_has_a_line_for_each_endpoint_and_half() -> None:
    embedded = Result(EMBEDDED, [row("1", "right", "develop"), row("2", "declined", "measure")], {})
    invents = Result(
        "b", [row("1", "wrong", "develop"), row("2", "declined", "measure")], {("a", "1"): "So."}
    )
    of = figures(invents, embedded)
    assert (of["said"], of["told"], of["unlike"], of["done_max_s"]) == (1, 100.0, 1, 2.0)
    lines = table([embedded, invents]).splitlines()
    assert len(lines) == 2 + 6
    assert [one["id"] for one in as_json(invents)["rows"]] == ["1"]


@pytest.mark.parametrize("name", [EMBEDDED, *STAND_INS])
def test_recordings_are_played_with_each_endpoint(name: str, tmp_path: Path, remote_engine: Load) -> None:
    scenario = Scenario("a", clip(tmp_path / "a.mp4", seconds=2.0), {"qa": [FERRY | {"ask_at_s": 1.5}]}, {})

    def engines(module: str, options: Mapping[str, Any]) -> Any:
        return (remote_engine if module == "engines.remote" else load)(module, options)

    (result,) = run([scenario], [name], settings(tmp_path), engines)
    assert [one["id"] for one in result.rows] == ["q1"]
    assert result.rows[0]["verdict"] != "unanswered"
    assert result.rows[0]["done_s"] <= 3.0


def settings(folder: Path) -> Settings:
    return Settings().model_copy(update={"models": Settings().models.model_copy(update={"dir": folder})})


def test_an_endpoint_is_a_setting_of_profile_remote(tmp_path: Path) -> None:
    of = settings_for(AnswerEndpoint(url="http://127.0.0.1:1/v1"), settings(tmp_path))
    assert (of.models.profile, of.remote.url) == ("remote", "http://127.0.0.1:1/v1")
    assert settings_for(None, of) is of


def test_the_remote_engine_streams_from_a_stand_in(tmp_path: Path, remote_engine: Load) -> None:
    with serving(AnswerEndpoint(questions=KNOWN)) as endpoint:
        options = settings_for(endpoint, settings(tmp_path)).remote.options()
        engine = remote_engine("engines.remote", {"window_tokens": 4096, "remote": options})
        op: Any = engine.ops["generate"]
        item = {"number": 1, "at": 1.0, "kind": "speech", "text": "[1] 0:01 said: So."}
        asked_of = {
            "session": "a",
            "items": [item],
            "instruction": "Answer.",
            "question": "Who barked?",
            "max_tokens": 20,
        }
        pieces = list(op.run(asked_of))
        assert "".join(piece["text"] for piece in pieces) == "The answer is bruno. [1]"  # the line that lasts
        assert endpoint.said == {"q2": "The answer is bruno. [1]"}


def test_slow_ops_are_computed_once(tmp_path: Path) -> None:
    loads: list[str] = []

    def plain(module: str, options: Mapping[str, Any]) -> Any:
        loads.append(module)
        return load(module, options)

    picture = {"jpeg": b"x"}
    first, again, other = (CachedEngines(tmp_path, plain).load(name, {"see": 1}) for name in ("a", "a", "b"))
    result = first.ops["look"].run([picture])
    assert again.ops["look"].run([picture])[0].keys() == result[0].keys()
    assert loads == ["a"]
    other.ops["look"].run([picture])
    assert loads == ["a", "b"]
    with pytest.raises((KeyError, StreamsvcError)):
        again.ops["no such op"].run([picture])
