"""Recordings through the Transcriber on a virtual clock: accuracy, steadiness, cost and latency without waiting.

The audio arrives in 20 ms chunks at real time of a clock that jumps; the model really runs, and the clock is moved by the CPU time
that it took. So an hour of talk is measured in minutes, and other load on the machine hardly matters.

    python load_tests/offline_wer.py [--seconds 120] [--model whisper-tiny.en] [--step 0.5] RECORDING [TRUTH.txt | TRUTH.json] ...

Without a truth, it is looked up in the manifest.json of a folder above. Latency: of words that are right, after the end that an
offline decode of the whole recording gives them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engines import Engine, Op, asr
from streamsvc import clock
from streamsvc.clock import VirtualLoop
from streamsvc.config import Hear, Models
from streamsvc.mailbox import Ring
from streamsvc.transcribe import Unit, run
from streamsvc.types import SAMPLE_RATE, AudioChunk, Gap, Speech, Words

CHUNK = 320  # samples: 20 ms, one Opus packet


def norm(text: str) -> list[str]:
    """The words of a text as streambench counts them."""
    plain = text.lower().replace("’", "'").replace("'", "")
    return [{"mr": "mister", "mrs": "missus", "dr": "doctor"}.get(w, w) for w in re.sub(r"[^a-z0-9]+", " ", plain).split()]


def matches(truth: list[str], heard: list[str]) -> tuple[int, list[tuple[int, int]]]:
    """Edit distance, and the pairs of places that are equal."""
    cost = np.zeros((len(truth) + 1, len(heard) + 1), np.int32)
    cost[:, 0], cost[0] = np.arange(len(truth) + 1), np.arange(len(heard) + 1)
    for i, word in enumerate(truth, 1):
        for j, other in enumerate(heard, 1):
            cost[i, j] = min(cost[i - 1, j - 1] + (word != other), cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    pairs, i, j = [], len(truth), len(heard)
    while i and j:
        if cost[i, j] == cost[i - 1, j - 1] + (truth[i - 1] != heard[j - 1]):
            i, j = i - 1, j - 1
            if truth[i] == heard[j]:
                pairs.append((i, j))
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return int(cost[-1, -1]), pairs[::-1]


def read(path: Path, seconds: float | None = None) -> NDArray[np.float32]:
    """The first audio track as mono float32 at SAMPLE_RATE."""
    blocks = []
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("fltp", "mono", SAMPLE_RATE)
        for frame in container.decode(audio=0):
            blocks += [block.to_ndarray()[0] for block in resampler.resample(frame)]
        blocks += [block.to_ndarray()[0] for block in resampler.resample(None)]
    samples: NDArray[np.float32] = np.concatenate(blocks).astype(np.float32)
    return samples if seconds is None else samples[: int(seconds * SAMPLE_RATE)]


@dataclass
class Timed:
    """The hear role in this process, whose work moves the virtual clock by its CPU time."""

    engine: Engine
    cpu: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    async def call(self, op: str, payload: dict[str, Any], *, deadline_in_s: float, affinity: str = "") -> dict[str, Any]:
        began = time.process_time()
        entry = self.engine.ops[op]
        assert isinstance(entry, Op)
        result = entry.run([payload])[0]
        spent = time.process_time() - began
        self.cpu[op] = self.cpu.get(op, 0.0) + spent
        self.calls[op] = self.calls.get(op, 0) + 1
        await clock.sleep(spent)
        if isinstance(result, Exception):
            raise result
        return result


@dataclass(frozen=True)
class Heard:
    """What came out of one run. `units`: with the session time at which each came."""

    units: list[tuple[float, Unit]]
    cpu: dict[str, float]
    calls: dict[str, int]

    @property
    def stable(self) -> list[Any]:
        return [word for _, unit in self.units if isinstance(unit, Words) for word in unit.words[: unit.stable]]


def listen(samples: NDArray[np.float32], engine: Engine, settings: Hear, *, live: bool = True) -> Heard:
    """Run a recording through `transcribe.run` on a virtual clock. live False: as fast as it can be read."""
    role, units = Timed(engine), []

    async def main() -> None:
        ring: Ring[AudioChunk] = Ring(2000)
        zero = clock.now()

        async def speak() -> None:
            for start in range(0, len(samples), CHUNK):
                piece = samples[start : start + CHUNK]
                if live:
                    await clock.sleep(zero + (start + len(piece)) / SAMPLE_RATE - clock.now())
                chunk = AudioChunk("s", "main", start / SAMPLE_RATE, clock.now(), piece)
                if live:
                    ring.put(chunk)
                else:
                    await ring.put_when_room(chunk)
            ring.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(speak())
            group.create_task(run(ring, role, lambda u: units.append((clock.now() - zero, u)), settings, session="s"))  # type: ignore[arg-type]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
    return Heard(units, role.cpu, role.calls)


def truth_of(path: Path) -> str | None:
    """The transcript that the nearest manifest.json gives for a recording."""
    for folder in path.resolve().parents:
        if (folder / "manifest.json").is_file():
            for entry in json.loads((folder / "manifest.json").read_text())["files"]:
                if folder / entry["path"] == path.resolve():
                    return str(entry["transcript"] or "")
    return None


def reference_ends(samples: NDArray[np.float32], engine: Engine) -> list[tuple[str, float]]:
    """(word, end) of an offline decode in 20 s windows that end in the quietest place."""
    words: list[tuple[str, float]] = []
    start = 0
    op = engine.ops["transcribe"]
    assert isinstance(op, Op)
    while start < len(samples):
        end = min(len(samples), start + 20 * SAMPLE_RATE)
        if end < len(samples):
            lows = [float(np.abs(samples[k : k + 4800]).mean()) for k in range(end - 8 * SAMPLE_RATE, end - 4800, 1600)]
            end = end - 8 * SAMPLE_RATE + int(np.argmin(lows)) * 1600 + 2400
        result = op.run([{"samples": samples[start:end], "beam": 5}])[0]
        assert not isinstance(result, Exception)
        for text, _, finish, _ in result["words"]:
            words += [(w, start / SAMPLE_RATE + finish) for w in norm(text)]
        start = end
    return words


def scores(heard: Heard, samples: NDArray[np.float32], truth: str | None, reference: list[tuple[str, float]]) -> dict[str, Any]:
    """The row of the table for one recording."""
    seconds = len(samples) / SAMPLE_RATE
    text, came = [], []
    shown: list[str] = []
    erased = 0
    for at, unit in heard.units:
        if not isinstance(unit, Words):
            continue
        now = [w for word in unit.words for w in norm(word.text)]
        same = next((i for i, (a, b) in enumerate(zip(shown, now, strict=False)) if a != b), min(len(shown), len(now)))
        erased += len(shown) - same
        stable = [w for word in unit.words[: unit.stable] for w in norm(word.text)]
        text += stable
        came += [at] * len(stable)
        shown = now[len(stable) :]
    row: dict[str, Any] = {"s": round(seconds), "words": len(text)}
    if truth is not None:
        expected = norm(truth)
        if reference and len(expected) and truth_is_longer(expected, reference):
            # only the first part of the recording is heard: cut the truth where the offline decode ends
            expected = expected[: cut(expected, [w for w, _ in reference])]
        cost, _ = matches(expected, text)
        row["wer"] = round(100 * cost / len(expected), 1) if expected else None
        offline, _ = matches(expected, [w for w, _ in reference])
        row["offline"] = round(100 * offline / len(expected), 1) if expected else None
    _, pairs = matches([w for w, _ in reference], text)
    late = [came[j] - reference[i][1] for i, j in pairs]
    row["stable_p50"], row["stable_p95"] = [round(float(np.percentile(late, q)), 2) if late else None for q in (50, 95)]
    row["erasure"] = round(erased / max(1, len(text)), 2)
    row["cpu"] = round(sum(heard.cpu.values()) / seconds, 3)
    row["decodes"] = round(heard.calls.get("transcribe", 0) / seconds, 2)
    row["finals"] = sum(isinstance(u, Words) and u.final for _, u in heard.units)
    row["gaps"] = sum(isinstance(u, Gap) for _, u in heard.units)
    row["speech"] = sum(isinstance(u, Speech) and u.active for _, u in heard.units)
    return row


def truth_is_longer(expected: list[str], reference: list[tuple[str, float]]) -> bool:
    return len(expected) > 1.15 * len(reference)


def cut(expected: list[str], heard: list[str]) -> int:
    """How many first words of the truth a hypothesis of the first part covers."""
    row = np.arange(len(expected) + 1)
    for j, word in enumerate(heard, 1):
        diagonal = row[:-1] + np.array([word != other for other in expected])
        new = np.minimum(np.concatenate([[j], diagonal]), row + 1)
        row = np.minimum.accumulate(new - np.arange(len(new))) + np.arange(len(new))
    return int(np.argmin(row))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--model", default="whisper-tiny.en")
    parser.add_argument("--step", type=float, default=Hear().step)
    parser.add_argument("--fast", action="store_true", help="feed as fast as possible instead of at real time")
    parser.add_argument("--text", action="store_true", help="print the text")
    given = parser.parse_args()
    engine = asr.load({"models": Models().dir / "models", "model": given.model, "workers": 1})
    settings = Hear(model=given.model, step=given.step)
    for path in given.recordings:
        samples = read(path, given.seconds)
        truth = truth_of(path)
        reference = reference_ends(samples, engine) if truth else []
        heard = listen(samples, engine, settings, live=not given.fast)
        print(json.dumps({"file": path.stem, **scores(heard, samples, truth, reference)}), flush=True)
        if given.text:
            print(" ".join(word.text for word in heard.stable))


if __name__ == "__main__":
    main()
