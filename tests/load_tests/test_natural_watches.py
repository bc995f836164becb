"""Streams of made units go through a whole session, and a stand-in model confirms, finds, or is late."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from engines import Engine, Op, each, remote, remote_chat
from load_tests import natural_watches
from load_tests.natural_watches import RULES, Outcome, figures, outcome, tried
from load_tests.time_aware import score
from load_tests.unit_streams import GAP, LAG, LEAD, Played, spans_of
from streamsvc.answers.watch_model import AGE
from streamsvc.core.roles import Payload
from streamsvc.evaluation.session_run import Load
from tests.fakes import watch_endpoint
from tests.fakes.answer_endpoint import Asked, understood
from tests.fakes.embed_role import watching_role
from tests.fakes.engines_by_name import load as fake_engine

STEP: frozenset[int] | None = frozenset({1})  # at which they must fire
DOG: Mapping[str, Any] = {
    "when": "a dog shows itself",
    "kind": "seen",
    "split": "develop",
    "lure": False,
    "stream": [{"see": {"cat": 1}}, {"see": {"dog": 1}}],
    "fires": [1],
}
HAT = {**DOG, "when": "a hat is worn"}  # of "look": the rules cannot tell
QUIET = {
    **DOG,
    "when": "a hush of three seconds",
    "stream": [{"say": "one moment"}, {"quiet_s": 4}, {"say": "so"}, {"quiet_s": 1}],
}


def _texts(payload: Payload) -> Payload:
    result = watching_role(hat="look", hush="silence").results["texts"](payload)  # type: ignore[operator]
    assert isinstance(result, dict)
    return result


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Engines by name; the remote one is real, and its connections are closed at the end."""
    opened: list[remote_chat.Chat] = []

    def chat(of: remote_chat.Endpoint) -> remote_chat.Chat:
        opened.append(remote_chat.Chat(of))
        return opened[-1]

    def load(module: str, options: Mapping[str, Any]) -> Any:
        if module == "engines.remote":
            return remote.load(options)
        engine = fake_engine(module, options)
        if module == "engines.embed":
            return Engine({**engine.ops, "texts": Op(each(_texts))})
        return engine

    monkeypatch.setattr(remote, "Chat", chat)
    monkeypatch.setattr(natural_watches, "QUICK", 0.0)
    monkeypatch.setattr(natural_watches, "SLOW", 0.0)
    yield load
    for one in opened:
        one.close()


def test_steps_follow_each_other_by_whole_seconds() -> None:
    spans = spans_of([{"see": {"cat": 1}}, {"quiet_s": 4}, {"say": "one two three"}])
    see = 6 + LAG["see"] + GAP  # 10.4
    assert spans[0] == (LEAD, LEAD + 11.0)
    assert see < 11.0
    assert spans[1] == (13.0, 18.0)  # 4.6
    assert spans[2] == (18.0, 25.0)  # 3 * 0.4 + 1 + 4 = 6.2
    played = Played(spans, ())
    assert [played.step_of(at) for at in (0.0, 2.0, 12.9, 13.0, 30.0)] == [-1, 0, 0, 1, 2]


def test_by_the_rules_what_is_seen_and_what_is_silent_is_found(engines: Load) -> None:
    dog, quiet, hat = tried(RULES, [DOG, QUIET, HAT], engines)
    assert (dog.fired, dog.right, dog.deciders) == (STEP, True, ("rules",))
    assert dog.ages[0] == pytest.approx(LAG["see"], abs=0.05)
    assert (quiet.fired, quiet.right) == (STEP, True)
    assert (hat.fired, hat.right) == (None, False)


def test_a_truthful_model_confirms_and_finds_what_the_rules_cannot(engines: Load) -> None:
    dog, hat, lure = tried("truthful", [DOG, HAT, {**HAT, "lure": True}], engines)
    assert (dog.fired, dog.deciders) == (STEP, ("model",))
    assert (hat.fired, hat.deciders) == (STEP, ("model",))
    assert (lure.fired, lure.right) == (frozenset(), True)


def test_a_model_that_says_yes_to_everything_fires_where_it_must_not(engines: Load) -> None:
    (hat,) = tried("affirming", [HAT], engines)
    assert hat.fired == frozenset({0})
    assert hat.timed.needless == 1


@pytest.mark.parametrize("name", ["late", "dead", "garbage"])
def test_where_the_model_does_not_tell_the_rules_decide_in_time_and_the_alert_says_so(
    engines: Load, name: str
) -> None:
    (dog,) = tried(name, [DOG], engines)
    assert (dog.fired, dog.deciders) == (STEP, ("rules_late",))
    assert max(dog.ages) <= AGE + 0.1


def test_a_second_alert_of_a_step_is_needless_and_sums_are_shown() -> None:
    alerts = tuple({"at": at, "age_ms": 1000, "decided_by": "rules"} for at in (14.0, 15.0))
    one = outcome(DOG, Played(((2.0, 13.0), (13.0, 24.0)), alerts))
    assert (one.fired, one.timed.told, one.timed.needless) == (STEP, 1, 1)
    assert one.timed.delays == (1.0,)
    lure = Outcome(
        "x", "seen", "develop", True, frozenset(), frozenset({0}), (3.0,), ("model",), score([], [])
    )
    of = figures([one, lure])
    assert (of["conditions"], of["right"], of["lures fired"]) == (1, 1, 1)
    assert of["by rules / model / rules, model late"] == "2 / 1 / 0"
    assert of["age of all alerts p95 s"] == 2.8


def asked(when: str, *, at: str) -> Asked:
    text = f"[1] 0:02 seen: a cat\n[2] {at} seen: a dog\nCondition: {when}\nDoes it hold now?"
    known = [watch_endpoint.condition("a dog", [(13.0, 24.0)])]
    return understood({"messages": [{"role": "user", "content": text}]}, known)


def test_the_newest_line_tells_a_stand_in_the_time() -> None:
    for at, holds in (("0:12", False), ("0:13", True), ("0:24", False)):
        assert json.loads(watch_endpoint.truthful(asked("a dog", at=at))) == {"holds": holds}
    assert json.loads(watch_endpoint.truthful(asked("a cow", at="0:13"))) == {"holds": False}
    answers = [watch_endpoint.inventing(asked(f"a {name}", at="0:13")) for name in ("dog", "dog")]
    assert answers[0] == answers[1]
    assert watch_endpoint.affirming(asked("a cow", at="0:13")) == '{"holds": true}'
