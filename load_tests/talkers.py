"""Many people who talk without a pause, on one hear worker: a model of cost on a virtual clock.

    python -m load_tests.talkers [--talkers 1 4 6 8 10] [--seconds 60] [--hear KEY=VALUE ...]

No model runs, so the figures do not depend on what else the machine does: the audio is its own script
(tests/fakes/hear_engine.py), and a decode takes the CPU time of `decode_seconds`. The figures are about
waiting: for a step, in the queue, for a second step. They tell nothing of word errors.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from load_tests.sessions import STAGGER, Load, table
from streamsvc.core import clock, config
from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear
from streamsvc.core.roles import Payload
from streamsvc.core.types import SAMPLE_RATE, Gap
from streamsvc.evaluation import score_captions
from streamsvc.evaluation.score_captions import Reference
from streamsvc.evaluation.transcriber_run import play
from tests.fakes.hear_engine import WORD, ends, hear_role, spoken

THREADS = 2  # decodes at once: hear.workers
# CPU seconds of a decode by whisper-tiny.en, fitted to 4,227 calls (median deviation 5 ms): a constant, by
# 1,000 mel frames encoded and their square, by 100 tokens of the prompt, and by token of the result.
FIXED, FRAMES, FRAMES_SQUARED, PROMPT, TOKEN = 0.040, -0.006, 0.034, 0.007, 0.0039
TOKENS_PER_WORD = 1.35
PADDING_QUICK, PADDING = 0.16, 0.5  # thousands of mel frames behind the speech (engines/whisper.py)
VAD_SECONDS = 0.002
OTHERS = 1.18  # share of the two cores that the serving process takes, as a longer decode


def decode_seconds(payload: Payload) -> float:
    """CPU seconds of the op "transcribe" for a window of speech without a pause."""
    seconds = len(payload["samples"]) / SAMPLE_RATE
    frames = seconds / 10 + (PADDING_QUICK if payload.get("quick") else PADDING)
    tokens = TOKENS_PER_WORD * seconds * SAMPLE_RATE / WORD
    prompt = TOKENS_PER_WORD * len(payload.get("before", "").split()) / 100
    return FIXED + FRAMES * frames + FRAMES_SQUARED * frames**2 + PROMPT * prompt + TOKEN * tokens


@dataclass
class CostedRole:
    """The script's hear role, THREADS decodes at once; `cpu`: seconds used so far."""

    cpu: float = 0.0

    def __post_init__(self) -> None:
        self._script = hear_role()
        self._threads = {"transcribe": asyncio.Semaphore(THREADS), "vad": asyncio.Semaphore(1)}

    async def call(self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = "") -> Payload:
        """See Role. The deadline is ignored."""
        seconds = OTHERS * decode_seconds(payload) if op == "transcribe" else VAD_SECONDS
        async with self._threads[op]:
            await clock.sleep(seconds)
        self.cpu += seconds
        result = await self._script.call(op, payload, deadline_in_s=deadline_in_s, affinity=affinity)
        return {**result, "seconds": seconds}

    def stream(
        self, op: str, payload: Payload, *, deadline_in_s: float, affinity: str = ""
    ) -> AsyncIterator[Payload]:
        """Not available: the hear role has no op that streams."""
        raise NotImplementedError


def measure(talkers: int, seconds: float, settings: Hear) -> Load:
    """So many talkers at once for so many seconds."""
    words = int(seconds * SAMPLE_RATE / WORD)
    reference = Reference(tuple(f"w{number}" for number in range(1, words + 1)), ends(words))
    role = CostedRole()

    async def one(number: int) -> list[score_captions.Snapshot]:
        await clock.sleep(STAGGER * number)
        run = await play(spoken(words, 2.0), role, settings)
        lost.extend(unit.end - unit.start for _, unit in run.units if isinstance(unit, Gap))
        return run.shown

    async def all_of_them() -> list[list[score_captions.Snapshot]]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number)) for number in range(talkers)]
        return [task.result() for task in tasks]

    lost: list[float] = []
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        shown = runner.run(all_of_them())
    scores = [score_captions.score(snapshots, reference) for snapshots in shown]
    cpu = round(role.cpu / seconds / talkers, 3)
    return Load(talkers, score_captions.figures(score_captions.pool(scores)), round(sum(lost), 2), cpu)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--talkers", type=int, nargs="+", default=[1, 4, 6, 8, 10], metavar="N")
    parser.add_argument("--seconds", type=float, default=60.0, help="of speech of each (%(default)s)")
    parser.add_argument("--hear", action="append", default=[], metavar="KEY=VALUE")
    chosen = parser.parse_args()
    given = dict(pair.split("=", 1) for pair in chosen.hear)
    settings = config.load(None, hear={"model": "script.en", "language": "en", **given}).hear
    loads = [measure(talkers, chosen.seconds, settings) for talkers in chosen.talkers]
    print(table(loads))


if __name__ == "__main__":
    main()
