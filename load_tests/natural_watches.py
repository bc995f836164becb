"""Watches in the words of users: which conditions are understood, and fire at what they are meant for.

    python -m load_tests.natural_watches [--half develop|measure|all] [--show] [--json FILE]

The conditions, and for each a stream of steps (what is seen, read and said), are
tests/fixtures/watches_natural.json, written before the code of watches was read. The steps are given to the
watch as units, without vision or speech models, so that what is measured is whether the condition is
understood. A watch is right if it fires at each step at which it must and at no other; a lure must not fire
at all. The measure half is never shown one by one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engines import Op, embed, fetch
from streamsvc.answers import watch_router
from streamsvc.answers.watch_conditions import Able, Check
from streamsvc.answers.watch_evaluation import Alert, Watch
from streamsvc.core.errors import InvalidRequest
from streamsvc.core.roles import Payload
from streamsvc.core.types import Box, Evidence, ScreenText, Sight, TextLine, Word
from streamsvc.evaluation.markdown import markdown_table

CASES = Path("tests/fixtures/watches_natural.json")
STEP = 300.0  # seconds between steps: longer than any silence in them
LOOKS = 6  # pictures of a step, a second apart
WORD = 0.4  # seconds
_NO_EMBEDDING = np.zeros(2, np.float32)


class Embedder:
    """The embed role with the engine in this process."""

    def __init__(self) -> None:
        op = embed.load({"models": str(fetch.default_dir())}).ops["texts"]
        assert isinstance(op, Op)
        self._op = op

    async def call(self, op: str, payload: Payload, **_: Any) -> Payload:
        """See Role."""
        (result,) = self._op.run([payload])
        assert isinstance(result, Mapping)
        return result


@dataclass(frozen=True, slots=True)
class Outcome:
    """One condition: the steps at which it fired; None: it was refused."""

    when: str
    kind: str
    half: str
    lure: bool
    due: frozenset[int]
    fired: frozenset[int] | None

    @property
    def right(self) -> bool:
        """Whether it fired where it must, and nowhere else."""
        return (self.fired or frozenset()) == self.due and (self.lure or self.fired is not None)


async def outcome(case: Mapping[str, Any], role: Any) -> Outcome:
    """What a condition makes of its stream."""
    try:
        checks = await watch_router.compiled(case["when"], role, Able())
    except InvalidRequest:
        fired = None
    else:
        fired = await _fired(checks, case["stream"], role)
    due = frozenset(() if case["lure"] else case["fires"])
    return Outcome(case["when"], case["kind"], case["split"], case["lure"], due, fired)


async def _fired(checks: tuple[Check, ...], stream: Sequence[Mapping[str, Any]], role: Any) -> frozenset[int]:
    watch = Watch("w", "", checks, cooldown=1.0)
    fired = set()
    for number, step in enumerate(stream):
        at = (number + 1) * STEP
        alerts: list[Alert | None] = []
        if "quiet_s" in step:
            alerts.append(watch.on_silence(at, at + step["quiet_s"], 0.0))
        for look in range(LOOKS if "see" in step else 0):
            boxes = tuple(
                Box(label, 0.9, 0, 0, 1, 1) for label, count in step["see"].items() for _ in range(count)
            )
            alerts.append(watch.on_sight(Sight("s", "main", at + look, 0.0, _NO_EMBEDDING, (), boxes)))
        if "read" in step:
            lines = tuple(TextLine(line, 0.9, 0, 0, 1, 0.1) for line in step["read"])
            title = lines[0].text if lines else None
            alerts.append(watch.on_screen_text(ScreenText("s", "main", at, 0.0, title, lines, at)))
        if "say" in step:
            if "quiet_s" in step or not any("say" in before for before in stream[:number]):
                alerts.append(watch.on_speech(at, 0.0))
            words = [
                Word(word, at + WORD * place, at + WORD * (place + 1))
                for place, word in enumerate(step["say"].split())
            ]
            alerts.append(watch.on_words(words, 0.0))
            alerts.append(await _on_topic(watch, step["say"], at, role))
        if any(alert is not None for alert in alerts):
            fired.add(number)
    return frozenset(fired)


async def _on_topic(watch: Watch, said: str, at: float, role: Any) -> Alert | None:
    if not watch.topics:
        return None
    quote = np.asarray((await role.call("texts", {"texts": [said], "kind": "passage"}))["vectors"])[0]
    topics = np.asarray((await role.call("texts", {"texts": list(watch.topics), "kind": "query"}))["vectors"])
    similarity = dict(zip(watch.topics, map(float, topics @ quote), strict=True))
    return watch.on_topic(similarity, Evidence(at, at + 10.0, "speech", said), 0.0)


def figures(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Sums of some outcomes."""
    true = [one for one in outcomes if not one.lure]
    lures = [one for one in outcomes if one.lure]
    told = sum(len(one.fired & one.due) for one in true if one.fired is not None)
    false = sum(len((one.fired or frozenset()) - one.due) for one in outcomes)
    return {
        "conditions": len(true),
        "right": sum(one.right for one in true),
        "refused": sum(one.fired is None for one in true),
        "moments": sum(len(one.due) for one in true),
        "told": told,
        "false": false,
        "lures": len(lures),
        "lures fired": sum(bool(one.fired) for one in lures),
    }


async def run(cases: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    """The outcomes of some conditions."""
    role: Any = Embedder()
    await watch_router.prepare(role)
    return [await outcome(case, role) for case in cases]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--half", choices=("develop", "measure", "all"), default="all")
    parser.add_argument("--show", action="store_true", help="name what is wrong, of the develop half alone")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    cases = json.loads(CASES.read_text(encoding="utf-8"))["watches"]
    outcomes = asyncio.run(run([case for case in cases if chosen.half in ("all", case["split"])]))
    halves = {half: [one for one in outcomes if one.half == half] for half in ("develop", "measure")}
    rows = {name: figures(some) for name, some in {**halves, "all": outcomes}.items() if some}
    heads = ("half", *next(iter(rows.values())))
    print(
        markdown_table(
            heads, [(name, *(f"{value:g}" for value in row.values())) for name, row in rows.items()]
        )
    )
    for one in halves["develop"] if chosen.show else ():
        if not one.right:
            told = (
                "refused" if one.fired is None else f"fired at {sorted(one.fired)}, due at {sorted(one.due)}"
            )
            print(f"{'lure: ' if one.lure else ''}{one.when}: {told}")
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
