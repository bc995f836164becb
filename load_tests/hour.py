"""An hour of talk without an end in sight: the lag at the end must be the lag at the beginning, and so must the memory.

    python -m load_tests.hour [--minutes 60] [--every 5] [--model base] [--hear KEY=VALUE ...] [--live] [--json FILE]

The recordings of speech/ whose word times are known are joined with PAUSES and looped, and fed to the transcriber in 20 ms packets: on
the virtual clock with the engine in this process (its CPU time is its duration: 20 to 30 minutes for an hour), or in real time through
the hear worker (`--live`). Lag is the time since the end of a word when it is committed. Spoken are the words of the truth that
ended meanwhile. Memory is PSS at the end of each stretch: of this process, which holds the recordings, and of the worker. Exit status 1
if the median lag of the last stretch is more than GROWTH above that of the first, or if more than LOST of the audio were given up; the
tails are those of what is said, which differs between stretches.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil
import structlog

from load_tests.hard_speech import entries
from load_tests.hearing import add_arguments, hearing, settings_of
from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Words
from streamsvc.evaluation.caption_bench import markdown
from streamsvc.evaluation.recordings import Samples, Truth, read, truth_of
from streamsvc.evaluation.score_captions import percentile
from streamsvc.evaluation.transcriber_run import PACKET, RING, spent
from streamsvc.speech.decoding_loop import run
from streamsvc.speech.segmenter import Unit

PAUSES = (1.0, 4.0, 15.0, 0.5)  # seconds of nothing between recordings, in turn
GROWTH = 0.2  # seconds of lag
LOST = 0.001  # of the audio
Talk = tuple[Samples, Truth]


@dataclass(slots=True)
class Stretch:
    """What happened in some minutes. `until`: seconds at its end. `lags`: of each committed word. `pss`: MB of each process."""

    until: float
    spoken: int = 0
    lags: list[float] = field(default_factory=list)
    finals: int = 0
    gaps: int = 0
    lost: float = 0.0  # seconds
    cpu: float = 0.0  # seconds of all processes
    pss: list[float] = field(default_factory=list)


def talks(media: Path) -> list[Talk]:
    """The recordings whose word times are known.

    Raises:
        SystemExit: there are none.
    """
    found = []
    for entry in entries(media, "speech"):
        truth = truth_of(media / entry["path"])
        if truth is not None and truth.ends is not None:
            found.append((read(media / entry["path"]), truth))
    if not found:
        raise SystemExit(
            f"no recording with word times in {media / 'speech'}: real recordings are not part of the project (--media DIR)"
        )
    return found


def packets(of: Sequence[Talk], seconds: float) -> Iterator[tuple[float, Samples, int]]:
    """(time, samples, words of the truth that end in them) of each packet of the feed, until `seconds` have passed."""
    at = 0  # samples
    for (samples, truth), pause in zip(itertools.cycle(of), itertools.cycle(PAUSES), strict=False):
        quiet = np.zeros(int(pause * SAMPLE_RATE), np.float32)
        joined = np.concatenate([samples, quiet])
        ends = np.asarray(truth.ends) * SAMPLE_RATE
        for first in range(0, len(joined) - PACKET + 1, PACKET):
            if at >= seconds * SAMPLE_RATE:
                return
            low, high = np.searchsorted(ends, [first, first + PACKET])
            yield at / SAMPLE_RATE, joined[first : first + PACKET], int(high - low)
            at += PACKET


async def listen(
    of: Sequence[Talk], hear: Role, settings: Hear, *, seconds: float, every: float, pids: Sequence[int]
) -> list[Stretch]:
    """Feed the talks and tell what happened, in stretches of `every` seconds; the last may be shorter."""
    ring: Ring[AudioChunk] = Ring(RING)
    zero = clock.now()
    processes = [psutil.Process(pid) for pid in pids]
    found = [Stretch(min(every, seconds))]
    used = spent(processes)

    def close(until: float | None) -> None:
        """End the stretch, and begin the next one if there is one."""
        nonlocal used
        before, used = used, spent(processes)
        found[-1].cpu = used - before
        found[-1].pss = [round(process.memory_full_info().pss / 1e6, 1) for process in processes]
        tell(found[-1], found[0])
        if until is not None:
            found.append(Stretch(until))

    def take(unit: Unit) -> None:
        now = clock.now() - zero
        if isinstance(unit, Words):
            found[-1].lags += [now - word.end for word in unit.words[: unit.stable]]
            found[-1].finals += unit.final
        elif isinstance(unit, Gap):
            found[-1].gaps += 1
            found[-1].lost += unit.end - unit.start

    async def speak() -> None:
        for at, samples, words in packets(of, seconds):
            if at >= found[-1].until:
                close(min(found[-1].until + every, seconds))
            await clock.sleep(zero + at + PACKET / SAMPLE_RATE - clock.now())
            ring.put(AudioChunk("hour", "main", at, clock.now(), samples))
            found[-1].spoken += words
        ring.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(speak())
        group.create_task(run(ring, hear, take, settings, session="hour"))
    close(None)
    if ring.dropped:
        found[-1].gaps += 1
        found[-1].lost += ring.dropped * PACKET / SAMPLE_RATE
    return found


# --- told ---------------------------------------------------------------------------------------------------------

HEADS = (
    "until min",
    "words committed / spoken",
    "lag p50/p95/max s",
    "closed",
    "gaps",
    "lost s",
    "CPU s/s",
    "PSS MB",
)


def row(stretch: Stretch, began: float) -> tuple[str, ...]:
    """One line of the table. began: seconds at which the stretch did."""
    lags = (
        " / ".join(f"{percentile(stretch.lags, share) or 0.0:.2f}" for share in (50, 95, 100))
        if stretch.lags
        else "-"
    )
    return (
        f"{stretch.until / 60:.1f}",
        f"{len(stretch.lags)} / {stretch.spoken}",
        lags,
        f"{stretch.finals}",
        f"{stretch.gaps}",
        f"{stretch.lost:.1f}",
        f"{stretch.cpu / max(0.1, stretch.until - began):.3f}",
        " + ".join(f"{size:.0f}" for size in stretch.pss),
    )


def table(of: Sequence[Stretch]) -> str:
    """All stretches."""
    return markdown(
        HEADS,
        [
            row(stretch, began)
            for stretch, began in zip(of, [0.0, *(each.until for each in of)], strict=False)
        ],
    )


def verdict(of: Sequence[Stretch]) -> list[str]:
    """What is wrong: nothing, if the lag and the losses are as they should be."""
    wrong = []
    first, last = (percentile(of[place].lags, 50) for place in (0, -1))
    if first is None or last is None:
        wrong.append("nothing was committed in the first stretch or in the last")
    elif last > first + GROWTH:
        wrong.append(f"the lag grew from {first:.2f} to {last:.2f} s (median)")
    if (lost := sum(each.lost for each in of)) > LOST * of[-1].until:
        wrong.append(f"{lost:.1f} s of audio were given up")
    return wrong


def tell(stretch: Stretch, first: Stretch) -> None:
    """Progress, for whoever waits."""
    print(
        f"{stretch.until / 60:.1f} min: " + ", ".join(row(stretch, stretch.until - first.until)[1:]),
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the feed (%(default)s)")
    parser.add_argument(
        "--every", type=float, default=5.0, help="minutes in a line of the table (%(default)s)"
    )
    parser.add_argument("--json", type=Path, help="where the figures of each stretch go")
    chosen = parser.parse_args()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )  # the tables alone go to stdout
    settings, of = settings_of(chosen), talks(chosen.media.resolve())
    with hearing(settings, live=chosen.live) as (runner, role, worker):
        pids = [psutil.Process().pid, *([worker] if worker is not None else [])]
        found = runner.run(
            listen(of, role, settings.hear, seconds=60 * chosen.minutes, every=60 * chosen.every, pids=pids)
        )
    print(table(found))
    if chosen.json is not None:
        chosen.json.write_text(
            json.dumps([{**asdict(each), "lags": [round(lag, 3) for lag in each.lags]} for each in found])
        )
    wrong = verdict(found)
    print("\n".join(["", *(f"Wrong: {line}." for line in wrong)]) if wrong else "")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
