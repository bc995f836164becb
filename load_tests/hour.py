"""Lag and memory of an hour of speech: at the end as at the beginning.

    python -m load_tests.hour [--minutes 60] [--every 5] [--model base] [--hear KEY=VALUE ...] [--live]
                               [--json FILE]

The recordings of speech/ with known word times are joined with PAUSES, looped, and fed to the decoding loop
in 20 ms packets: on a virtual clock with the engine in this process (20 to 30 minutes for an hour), or in
real time through the hear worker (`--live`). Lag is the time from the end of a word to its commit. Memory is
PSS at the end of each interval: of this process, which contains the recordings, and of the worker. Exit
status 1 if the median lag of the last interval is more than GROWTH above that of the first, or if more than
LOST of the audio was dropped. The tails depend on what is said, which differs between intervals.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import psutil
import structlog

from load_tests import report
from load_tests.hard_speech import entries
from load_tests.hearing import add_arguments, hearing, settings_of
from streamsvc.core import clock
from streamsvc.core.config import Hear
from streamsvc.core.queues import Ring
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, AudioChunk, Gap, Words
from streamsvc.evaluation.markdown import markdown_table
from streamsvc.evaluation.recordings import Samples, Truth, read, truth_of
from streamsvc.evaluation.score_captions import percentile
from streamsvc.evaluation.transcriber_run import PACKET, RING, cpu_seconds
from streamsvc.speech.decoding_loop import DecodingOptions, run
from streamsvc.speech.segmenter import SpeechUnit

PAUSES = (1.0, 4.0, 15.0, 0.5)  # seconds of nothing between recordings, in turn
GROWTH = 0.2  # seconds of lag
LOST = 0.001  # of the audio
Talk = tuple[Samples, Truth]


@dataclass(slots=True)
class Interval:
    """The figures of some minutes.

    `until`: seconds at the end. `lags`: of each committed word. `pss`: MB by process.
    """

    until: float
    spoken: int = 0
    lags: list[float] = field(default_factory=list)
    finals: int = 0
    gaps: int = 0
    lost: float = 0.0  # seconds
    cpu: float = 0.0  # seconds of all processes
    pss: list[float] = field(default_factory=list)


def talks(media: Path) -> list[Talk]:
    """The recordings with known word times.

    Raises:
        SystemExit: there are none.
    """
    loaded = []
    for entry in entries(media, "speech"):
        truth = truth_of(media / entry["path"])
        if truth is not None and truth.ends is not None:
            loaded.append((read(media / entry["path"]), truth))
    if not loaded:
        raise SystemExit(
            f"no recording with word times in {media / 'speech'}: "
            "real recordings are not part of the project (--media DIR)"
        )
    return loaded


def packets(of: Sequence[Talk], seconds: float) -> Iterator[tuple[float, Samples, int]]:
    """(time, samples, number of reference words that end in them) of each packet, for `seconds`."""
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


async def measure(
    of: Sequence[Talk], hear: Role, settings: Hear, *, seconds: float, every: float, pids: Sequence[int]
) -> list[Interval]:
    """Feed the talks and collect figures in intervals of `every` seconds; the last may be shorter."""
    ring: Ring[AudioChunk] = Ring(RING)
    zero = clock.now()
    processes = [psutil.Process(pid) for pid in pids]
    intervals = [Interval(min(every, seconds))]
    used = cpu_seconds(processes)

    def close(until: float | None) -> None:
        """End the stretch, and begin the next one if there is one."""
        nonlocal used
        before, used = used, cpu_seconds(processes)
        intervals[-1].cpu = used - before
        intervals[-1].pss = [round(process.memory_full_info().pss / 1e6, 1) for process in processes]
        print_progress(intervals[-1], intervals[0])
        if until is not None:
            intervals.append(Interval(until))

    def take(unit: SpeechUnit) -> None:
        now = clock.now() - zero
        if isinstance(unit, Words):
            intervals[-1].lags += [now - word.end for word in unit.words[: unit.stable]]
            intervals[-1].finals += unit.final
        elif isinstance(unit, Gap):
            intervals[-1].gaps += 1
            intervals[-1].lost += unit.end - unit.start

    async def speak() -> None:
        for at, samples, words in packets(of, seconds):
            if at >= intervals[-1].until:
                close(min(intervals[-1].until + every, seconds))
            await clock.sleep(zero + at + PACKET / SAMPLE_RATE - clock.now())
            ring.put(AudioChunk("hour", "main", at, clock.now(), samples))
            intervals[-1].spoken += words
        ring.close()

    async with asyncio.TaskGroup() as group:
        group.create_task(speak())
        group.create_task(run(ring, hear, take, DecodingOptions(settings, session="hour")))
    close(None)
    if ring.dropped:
        intervals[-1].gaps += 1
        intervals[-1].lost += ring.dropped * PACKET / SAMPLE_RATE
    return intervals


# --- report ---------------------------------------------------------------------------------------------

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


def row(interval: Interval, began: float) -> tuple[str, ...]:
    """One line of the table. `began`: seconds at the start of the interval."""
    lags = (
        " / ".join(f"{percentile(interval.lags, share) or 0.0:.2f}" for share in (50, 95, 100))
        if interval.lags
        else "-"
    )
    return (
        f"{interval.until / 60:.1f}",
        f"{len(interval.lags)} / {interval.spoken}",
        lags,
        f"{interval.finals}",
        f"{interval.gaps}",
        f"{interval.lost:.1f}",
        f"{interval.cpu / max(0.1, interval.until - began):.3f}",
        " + ".join(f"{size:.0f}" for size in interval.pss),
    )


def table(of: Sequence[Interval]) -> str:
    """All intervals."""
    return markdown_table(
        HEADS,
        [
            row(interval, began)
            for interval, began in zip(of, [0.0, *(interval.until for interval in of)], strict=False)
        ],
    )


def verdict(of: Sequence[Interval]) -> list[str]:
    """Limits that were exceeded; [] if none."""
    wrong = []
    first, last = (percentile(of[place].lags, 50) for place in (0, -1))
    if first is None or last is None:
        wrong.append("nothing was committed in the first stretch or in the last")
    elif last > first + GROWTH:
        wrong.append(f"the lag grew from {first:.2f} to {last:.2f} s (median)")
    if (lost := sum(interval.lost for interval in of)) > LOST * of[-1].until:
        wrong.append(f"{lost:.1f} s of audio were given up")
    return wrong


def print_progress(interval: Interval, first: Interval) -> None:
    """Print progress on stderr."""
    print(
        f"{interval.until / 60:.1f} min: " + ", ".join(row(interval, interval.until - first.until)[1:]),
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    parser = report.parser(__doc__)
    add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=60.0, help="of the feed (%(default)s)")
    parser.add_argument(
        "--every", type=float, default=5.0, help="minutes in a line of the table (%(default)s)"
    )
    chosen = parser.parse_args()
    structlog.configure(
        logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )  # the tables alone go to stdout
    settings, of = settings_of(chosen), talks(chosen.media.resolve())
    with hearing(settings, live=chosen.live) as (runner, role, worker):
        pids = [psutil.Process().pid, *([worker] if worker is not None else [])]
        intervals = runner.run(
            measure(of, role, settings.hear, seconds=60 * chosen.minutes, every=60 * chosen.every, pids=pids)
        )
    figures = [
        {**asdict(interval), "lags": [round(lag, 3) for lag in interval.lags]} for interval in intervals
    ]
    report.finish(table(intervals), figures, verdict(intervals), chosen.json)


if __name__ == "__main__":
    main()
