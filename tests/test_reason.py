"""Answers come from the time line, with evidence, or are refused; graded on the real scenarios by the shared grader."""

from __future__ import annotations

import importlib.util
import json
import os
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from streamsvc.config import Think
from streamsvc.context import Timeline
from streamsvc.reason import answer
from streamsvc.types import Answer, Box, Cue, Delta, Question, ScreenText, Sight, Tag, TextLine, Word

EMPTY = np.zeros(4, np.float32)
# What the real models say about the scenario's pictures (FIELD_NOTES): boxes, tags.
SEEN: dict[str, tuple[list[tuple[str, float]], list[tuple[str, float]]]] = {
    "astronaut": ([("person", 0.93)], [("football helmet", 0.48)]),
    "coffee": ([("cup", 0.99), ("dining table", 0.8)], [("espresso", 0.89)]),
    "black": ([], []),
    "cat": ([("cat", 0.94)], [("Egyptian cat", 0.5)]),
    "rocket": ([], [("missile", 0.61)]),
    "motorcycle": ([("motorcycle", 0.99)], []),
    "galaxies": ([], []),
    "coins": ([], []),
    "road": ([("car", 0.6), ("car", 0.55)], []),
}


def sight(at: float, boxes: list[tuple[str, float]], tags: list[tuple[str, float]], blank: bool = False) -> Sight:
    return Sight(
        "s",
        "main",
        at,
        0.0,
        EMPTY,
        tuple(Tag(*t) for t in tags),
        tuple(Box(label, score, 0.1, 0.1, 0.5, 0.5) for label, score in boxes),
        blank,
    )


def cues(words: list[Word], size: int = 12) -> list[Cue]:
    found = []
    run: list[Word] = []
    for index, word in enumerate(words):
        run.append(word)
        following = words[index + 1] if index + 1 < len(words) else None
        if len(run) >= size or following is None or following.start - word.end > 0.6:
            found.append(Cue("s", "main", run[0].start, 0.0, " ".join(w.text for w in run), tuple(run), len(run), True))
            run = []
    return found


def known_at(scenario: dict[str, Any], now: float) -> Timeline:
    """The time line as it would stand at `now`: speech 1 s late, screens 2.5 s, sights 0.3 s."""
    line = Timeline()
    units: list[tuple[float, Any]] = []
    words = [Word(w["w"], w["start"], w["end"]) for w in scenario["words"]]
    units += [(cue.end + 1.0, cue) for cue in cues(words)]
    for item in scenario["intervals"]:
        at = item["start"] + 0.1
        if item["kind"] == "slide":
            lines = tuple(TextLine(t, 0.99, 0.1, 0.1 * n, 0.5, 0.05) for n, t in enumerate(item["text"].split("\n")))
            units.append((at + 0.3, sight(at, [], [])))
            units.append((at + 2.5, ScreenText("s", "main", at, 0.0, item["title"], lines, at)))
        else:
            boxes, tags = SEEN[item["label"]]
            units.append((at + 0.3, sight(at, boxes, tags, item["label"] == "black")))
    for when, unit in sorted(units, key=lambda entry: entry[0]):
        if when <= now:
            line.add(unit)
    # the open caption's stable words, about a second behind
    heard = [w for w in words if w.end <= now - 1.0]
    last = max((s.end for s in line.said), default=-1.0)
    line.tail([w for w in heard if w.start >= last - 0.01])
    line.latest = max(line.latest, now)
    return line


async def ask(text: str, line: Timeline, now: float, think: Any = None) -> Answer:
    told = ""
    done: Answer | None = None
    async for part in answer(Question("q", text, now, 1e12), line, think, Think()):
        if isinstance(part, Delta):
            assert done is None, "a delta after the answer"
            told += part.text
        else:
            done = part
    assert done is not None
    assert told == done.text
    assert done.supported == bool(done.evidence)
    return done


@pytest.fixture(scope="module")
def grader(media: Path) -> ModuleType:
    path = media.parent / "bench" / "grade.py"
    spec = importlib.util.spec_from_file_location("grade", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load(media: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((media / "scenarios" / f"{name}.json").read_text()))


async def graded(scenario: dict[str, Any], questions: list[dict[str, Any]], grader: ModuleType) -> dict[str, Counter[str]]:
    rows: dict[str, Counter[str]] = {}
    for question in questions:
        now = float(question["ask_at_s"])
        done = await ask(question["question"], known_at(scenario, now), now)
        given = {"text": done.text, "supported": done.supported, "evidence": [{"start": e.start, "end": e.end} for e in done.evidence]}
        verdict, cited = grader.grade(question, given), grader.cited(question, given)
        if os.environ.get("SHOW_ANSWERS"):
            print(f"{verdict:8} {'cited' if cited else '     '} {grader.kind(question):9} {question['question']}\n          -> {done.text}")
        rows.setdefault(grader.kind(question), Counter()).update([verdict, "all"] + (["cited"] if cited else []))
    return rows


@pytest.mark.media
async def test_the_scenarios_questions_are_answered_right_or_refused(media: Path, grader: ModuleType) -> None:
    total: dict[str, Counter[str]] = {}
    for name in ("lecture_stone_cutter", "scenes_photos"):
        scenario = load(media, name)
        for kind, row in (await graded(scenario, scenario["qa"], grader)).items():
            total.setdefault(kind, Counter()).update(row)
    print(total)
    told = sum((total[k] for k in ("speech", "screen", "time")), Counter())
    assert told["right"] / told["all"] >= 0.8, total
    assert total["object"]["right"] / total["object"]["all"] >= 0.6, total
    assert sum(row["wrong"] for row in total.values()) == 0, total
    assert total["attribute"]["refused"] == total["attribute"]["all"]
    assert total["sound"]["refused"] + total["sound"]["right"] == total["sound"]["all"]
