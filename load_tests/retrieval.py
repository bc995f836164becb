"""Retrieval for natural questions: whether the first passage, or one of three, holds the answer.

    python -m load_tests.retrieval [--questions DIR] [--units DIR] [--models DIR] [--misses]

Each question of ../shared/questions is asked at its second, of a timeline that holds what was over by then:
the true transcript and the slides of the truth, or with --units what the service dispatched (a pickle
`NAME.pkl` a recording: a list of (session second, unit)). A follow-up is asked together with the question
before it. A passage holds the answer if a keyword stands in its first 40 words (../shared/bench/grade.py).
The constants of timeline/passages.py and timeline/index.py were chosen on the develop half, but ANSWER with
the sums of both halves in view.

The other tables tell what telling the first passage as the answer would give, of open questions: by its score
alone, and by its certainty with margin and own score (`Passage.answers`). --misses lists questions of the
develop half.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import pickle
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines import Op, embed
from streamsvc.core.roles import Payload
from streamsvc.core.types import Cue, Scene, ScreenText, TextLine, Word
from streamsvc.evaluation.grade_answers import contains_phrase
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.timeline.index import Index
from streamsvc.timeline.passages import ANSWER, MARGIN, OWN, Passage
from streamsvc.timeline.timeline import Timeline

ROOT = Path(__file__).resolve().parents[1]
QUOTE = 40  # words of a passage that are graded
NO_LIMIT = 600.0  # seconds a question may take
READING = 1.0  # seconds until the text of a slide has been read
AFTER = 3.0  # seconds after the end within which all has been dispatched
HALVES = ("develop", "measure")
REACH = ("first", "three")
THRESHOLDS = (-10.0, -6.0, -4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)


@dataclass(frozen=True)
class Row:
    """A question with the passages that were found for it."""

    question: Mapping[str, Any]
    passages: Sequence[Passage]

    @property
    def answerable(self) -> bool:
        return self.question.get("answerable", True) is not False

    @property
    def textual(self) -> bool:
        """Whether one passage may answer it: in English, open, no summary, and not seen only."""
        asked = self.question
        return (
            self.answerable
            and asked["type"] == "open"
            and asked["kind"] not in ("summary", "now")
            and "language" not in asked
            and any(sense in asked["modality"] for sense in ("speech", "ocr"))
        )

    def held_in(self, count: int) -> bool:
        """Whether a keyword stands in one of the first `count` passages."""
        quotes = [" ".join(passage.text.split()[:QUOTE]) for passage in self.passages[:count]]
        return any(contains_phrase(word, quote) for word in self.question["keywords"] for quote in quotes)


class Remembering:
    """The embed role in this process; what it has computed once it does not compute again.

    `seconds` and `count`: of the pairs that the cross-encoder has read.
    """

    def __init__(self, models: Path) -> None:
        self._ops = embed.load({"models": str(models)}).ops
        self._known: dict[tuple[str, str, str], Any] = {}  # op, query or kind, text -> its row of the result
        self.seconds = 0.0
        self.count = 0

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role."""
        names = {"texts": "vectors", "rank": "scores"}
        head = payload["kind"] if op == "texts" else payload["query"]
        new = [text for text in payload["texts"] if (op, head, text) not in self._known]
        if new:
            run = self._ops[op]
            assert isinstance(run, Op)
            began = time.perf_counter()
            (result,) = run.run([{**payload, "texts": new}])
            if isinstance(result, Exception):
                raise result
            self._known |= {(op, head, text): row for text, row in zip(new, result[names[op]], strict=True)}
            if op == "rank" and self.count + len(new) > len(new):  # the first call loads the model
                self.seconds += time.perf_counter() - began
            self.count += len(new) if op == "rank" else 0
        return {names[op]: np.array([self._known[op, head, text] for text in payload["texts"]])}

    def stream(self, *args: object, **options: object) -> Any:
        """No op streams."""
        raise NotImplementedError


def from_truth(truth: Mapping[str, Any], second: float) -> Timeline:
    """What was said and shown until `second`, without an error of recognition."""
    timeline = Timeline()
    said = [Word(word["w"], word["start"], word["end"]) for word in truth["words"] if word["end"] <= second]
    for first in range(0, len(said), 14):
        words = tuple(said[first : first + 14])
        text = " ".join(word.text for word in words)
        timeline.add(Cue("s", "main", words[-1].end, 0.0, text, words, len(words), True))
    for shown in truth["intervals"]:
        if shown.get("text") and shown["start"] + READING <= second:
            lines = tuple(
                TextLine(text, 0.99, 0.1, 0.1 + 0.1 * row, 0.8, 0.08)
                for row, text in enumerate(shown["text"].split("\n"))
            )
            at = shown["start"]
            timeline.add(ScreenText("s", "main", at, 0.0, shown.get("title"), lines, at))
    timeline.latest = max(timeline.latest, second)
    return timeline


def from_units(units: Sequence[tuple[float, Any]], second: float) -> Timeline:
    """What the service had dispatched by `second`."""
    timeline = Timeline()
    for at, unit in units:
        if at > second:
            break
        if isinstance(unit, Cue) and not unit.final:
            timeline.set_open_words(unit.words[: unit.stable])
        elif not (isinstance(unit, Scene) and unit.by == "model"):
            timeline.add(unit)
    return timeline


async def rows_of(
    truth: Mapping[str, Any], units: Sequence[tuple[float, Any]] | None, role: Remembering
) -> list[Row]:
    """The questions of one recording, each with its passages."""
    asked = {question["id"]: question for question in truth["qa"]}
    end = truth.get("play_s") or truth["duration_s"]
    rows = []
    for question in truth["qa"]:
        second = question["ask_at_s"] if question["ask_at_s"] < end else end + AFTER
        timeline = from_truth(truth, second) if units is None else from_units(units, second)
        index = Index(timeline, role)
        while await index.settle():
            pass
        before = asked[question["after"]]["question"] if "after" in question else ""
        passages = await index.passages(question["question"], seconds=NO_LIMIT, before=before)
        rows.append(Row(question, passages))
    return rows


def reach(rows: Sequence[Row]) -> tuple[str, ...]:
    """One row of the first table."""
    answerable = [row for row in rows if row.answerable]
    textual = [row for row in rows if row.textual]
    cells: list[str | int] = [len(rows), len(answerable)]
    for group in (answerable, textual):
        first, three = (sum(row.held_in(count) for row in group) for count in (1, 3))
        cells += [
            f"{first} ({first / max(1, len(group)):.0%})",
            f"{three} ({three / max(1, len(group)):.0%})",
        ]
    cells.insert(4, len(textual))
    near = [row for row in rows if not row.answerable]
    told = [row for row in rows if row.passages and row.passages[0].answers]
    right = [row for row in told if row.held_in(1)]
    open_told = [row for row in told if row.answerable and row.question["type"] == "open"]
    cells += [len(right), len(open_told), f"{sum(not row.answerable for row in told)} of {len(near)}"]
    return tuple(map(str, cells))


def curve(rows: Sequence[Row], threshold: float, *, apart: bool) -> list[str]:
    """One row of the second table. apart: `margin` and `own` decide too."""
    told = [
        row
        for row in rows
        if row.passages
        and "language" not in row.question
        and (row.passages[0].certainty if apart else row.passages[0].score) >= threshold
        and (not apart or (row.passages[0].margin >= MARGIN and row.passages[0].own >= OWN))
    ]
    open_ones = [row for row in told if row.answerable and row.question["type"] == "open"]
    right = sum(row.held_in(1) for row in open_ones)
    return [str(count) for count in (right, len(open_ones), sum(not row.answerable for row in told))]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    shared = ROOT.parent / "shared"
    parser.add_argument("--questions", type=Path, default=shared / "questions")
    parser.add_argument("--units", type=Path, help="folder of NAME.pkl, made by this service")
    parser.add_argument("--models", type=Path, default=Path.home() / ".cache" / "streamsvc" / "models")
    parser.add_argument("--misses", action="store_true", help="list questions of the develop half")
    chosen = parser.parse_args()
    role = Remembering(chosen.models)
    by_recording: dict[str, list[Row]] = {}
    for path in sorted(chosen.questions.glob("*.json")):
        units = None
        if chosen.units is not None:
            dump = chosen.units / f"{path.stem}.pkl"
            if not dump.exists():
                print(f"{path.stem}: no units, left out")
                continue
            units = pickle.loads(dump.read_bytes())  # written by this service
        truth = json.loads(path.read_text())
        by_recording[path.stem] = asyncio.run(rows_of(truth, units, role))
    report(by_recording, misses=chosen.misses)
    print(f"{role.count} pairs, {1000 * role.seconds / max(1, role.count):.1f} ms a pair")


def report(by_recording: Mapping[str, Sequence[Row]], *, misses: bool) -> None:
    """Print the tables, and the misses of the develop half."""
    head = ("questions", "answerable", *REACH, "textual", *REACH, "right", "told", "near")
    every = [row for rows in by_recording.values() for row in rows]
    for half in HALVES:
        table = [
            (name, *reach([row for row in rows if row.question["half"] == half]))
            for name, rows in (*by_recording.items(), ("all", every))
        ]
        print(markdown_table((half, *head), table))
    columns = [f"{half}: {what}" for half in HALVES for what in ("right", "told", "near")]
    for apart in (False, True):
        table = []
        for threshold in THRESHOLDS:
            cells = [f"{threshold:g}"]
            for half in HALVES:
                cells += curve([r for r in every if r.question["half"] == half], threshold, apart=apart)
            table.append(tuple(cells))
        print(markdown_table(("certainty, margin, own" if apart else "score", *columns), table))
    print(f"answers: certainty {ANSWER:g}, margin {MARGIN:g}, own {OWN:g}")
    for row in every if misses else ():
        if row.question["half"] == HALVES[0] and row.answerable and not row.held_in(1):
            best = row.passages[0] if row.passages else None
            print(f"{best.score if best else 0:6.2f} {row.question['question']}\n       {best and best.text}")


if __name__ == "__main__":
    main()
