"""Recordings through the transcriber, measured as a viewer sees it: `streamsvc bench captions`.

In real time (`live`) the samples come in pieces at their times, and the models run in the hear worker process, as they do under
`serve`. Else they come at the times of a clock that jumps, the models run in this process, and their CPU time moves the clock:
an hour of talk takes minutes, and other load on the machine hardly matters. Every figure is defined in score.py.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamsvc.core.clock import VirtualLoop
from streamsvc.core.config import Hear, Settings
from streamsvc.core.errors import WorkerError
from streamsvc.core.roles import Role
from streamsvc.core.types import SAMPLE_RATE, Gap
from streamsvc.evaluation import score_captions
from streamsvc.evaluation.recordings import Clip, Samples, ascending, read, truth_of
from streamsvc.evaluation.score_captions import Counts, Reference, Score, norm
from streamsvc.evaluation.transcriber_run import PACKET, Cost, Meter, local, play, working
from streamsvc.workers.supervisor import Worker

TAIL = 2.0  # seconds of silence after a recording, so that its last words settle as in a stream that goes on
LATE = 0.1  # seconds by which a piece may come late before the run is doubtful
FEW = 10  # pieces; the bound of fewer is worth nothing
BUSY = 0.2  # CPU seconds a second of other work that are worth a remark
DECODE_DEADLINE = 120.0  # seconds, of the decodes that only give word times
DECODE, QUIET = (
    20.0,
    8.0,
)  # seconds of audio in one of them; ... of its end in which the quietest place is looked for
BEAM = 5  # of these decodes


# --- what was said, and when ------------------------------------------------------------------------------------------


async def reference_of(clip: Clip, hear: Role, language: str | None) -> tuple[Reference, str]:
    """The words with their ends, and where the ends come from: "truth", or "decode", an offline decode by the same model.

    A word of the truth that the model did not hear lies between its neighbours. Without a truth, the decode's words are the reference.
    """
    truth = clip.truth
    if truth is not None and (truth.ends is not None or not truth.words):
        return Reference(truth.words, truth.ends or ()), "truth"
    heard = await _decode(clip.samples, hear, language)
    if truth is None:
        return Reference(
            tuple(word for word, _ in heard), ascending([end for _, end in heard]), true=False
        ), "decode"
    words = truth.words
    pairs, _ = score_captions.Aligner(words).match(
        [word for word, _ in heard], len(words) if clip.cut else None
    )
    if clip.cut:  # the truth goes on where the recording was cut
        words = words[: pairs[-1][0] + 1 if pairs else 0]
    if not pairs:
        return Reference(words, (clip.seconds,) * len(words)), "decode"
    known, times = [place for place, _ in pairs], [heard[other][1] for _, other in pairs]
    return Reference(words, ascending(np.interp(range(len(words)), known, times).tolist())), "decode"


async def _decode(samples: Samples, hear: Role, language: str | None) -> list[tuple[str, float]]:
    """(word, end) of a decode in windows of DECODE seconds that end in the quietest place."""
    words: list[tuple[str, float]] = []
    start, window = 0, int(DECODE * SAMPLE_RATE)
    if language is None:
        found = await hear.call(
            "detect_language", {"samples": samples[:window]}, deadline_in_s=DECODE_DEADLINE
        )
        language = str(found["language"])
    while start < len(samples):
        end = start + window
        if end < len(samples):
            first = end - int(QUIET * SAMPLE_RATE)
            loud = [
                float(np.abs(samples[at : at + 4800]).mean()) for at in range(first, end - 4800, 1600)
            ]  # of 0.3 s, every 0.1 s
            end = first + int(np.argmin(loud)) * 1600 + 2400
        asked = {"samples": samples[start:end], "language": language, "beam": BEAM}
        result = await hear.call("transcribe", asked, deadline_in_s=DECODE_DEADLINE)
        words += [
            (word, start / SAMPLE_RATE + finish)
            for text, _, finish, _ in result["words"]
            for word in norm(text)
        ]
        start = end
    return words


# --- all of them --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. `chunk`: samples in a piece of audio. `live`: in real time. `offline`: compare with offline decoding."""

    recordings: tuple[Path, ...]
    truth: Path | None = None
    runs: int = 1
    seconds: float | None = None
    chunk: int = 5 * PACKET
    live: bool = True
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One run of one recording. `seconds`: of audio, tail included. `ends`: where the word ends come from. `lost`: seconds never heard."""

    name: str
    run: int
    seconds: float
    ends: str
    reference: Reference
    score: Score
    cost: Cost
    flush: float
    late: float
    lost: float
    edits: Counts  # at each word of the reference


@dataclass(frozen=True, slots=True)
class Offline:
    """faster-whisper on the whole recordings, with the same weights: its word error rate, and ours minus its."""

    wer: float
    difference: score_captions.Difference


def captions(
    settings: Settings, plan: Plan, engine: str, tell: Callable[[str], None]
) -> tuple[list[Row], Offline | None]:
    """Measure.

    Args:
        settings: its hear group is what is measured.
        plan: what to do.
        engine: dotted name of the hear role's engine module.
        tell: takes a line of progress.

    Raises:
        ConfigError: a recording or a truth cannot be read. ModelMissing: a model is not there. WorkerError: the worker died meanwhile.
    """
    clips = []
    for path in plan.recordings:
        truth = truth_of(path, plan.truth)
        samples = read(path, plan.seconds)
        cut = plan.seconds is not None
        clips.append(
            Clip(
                path,
                samples,
                truth.until(len(samples) / SAMPLE_RATE) if truth is not None and cut else truth,
                cut,
            )
        )
    if plan.live:
        rows = asyncio.run(_with_worker(clips, plan, settings, engine, tell))
    else:
        role = local(settings, engine)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            rows = runner.run(_rows(clips, plan, settings.hear, role, None, tell))
    return rows, _offline(clips, rows, settings, tell) if plan.offline else None


async def _with_worker(
    clips: Sequence[Clip], plan: Plan, settings: Settings, engine: str, tell: Callable[[str], None]
) -> list[Row]:
    async with working(settings, engine) as worker:
        return await _rows(clips, plan, settings.hear, worker.role("hear"), worker, tell)


async def _rows(
    clips: Sequence[Clip],
    plan: Plan,
    settings: Hear,
    hear: Role,
    worker: Worker | None,
    tell: Callable[[str], None],
) -> list[Row]:
    rows = []
    for clip in clips:
        reference, ends = await reference_of(
            clip, hear, settings.language or ("en" if settings.model.endswith(".en") else None)
        )
        samples = np.concatenate([clip.samples, np.zeros(int(TAIL * SAMPLE_RATE), np.float32)])
        for number in range(1, plan.runs + 1):
            tell(f"{clip.path.name}: {clip.seconds:.0f} s, run {number} of {plan.runs}")
            pid = worker.pid if worker is not None else None
            meter = Meter(pid)
            watching = asyncio.create_task(meter.watch()) if worker is not None else None
            try:
                heard = await play(samples, hear, settings, chunk=plan.chunk)
            finally:
                if watching is not None:
                    watching.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await watching
            if worker is not None and worker.pid != pid:
                raise WorkerError("the hear worker died during the run: its figures would mean nothing")
            rows.append(
                Row(
                    name=clip.path.stem,
                    run=number,
                    seconds=len(samples) / SAMPLE_RATE,
                    ends=ends,
                    reference=reference,
                    score=score_captions.score(
                        heard.shown, reference, [(word.start, word.end) for word in heard.stable]
                    ),
                    cost=meter.cost(),
                    flush=heard.flush,
                    late=heard.late,
                    lost=sum(unit.end - unit.start for _, unit in heard.units if isinstance(unit, Gap)),
                    edits=score_captions.errors(
                        reference.words, [piece for word in heard.stable for piece in norm(word.text)]
                    ),
                )
            )
    return rows


def offline(folder: Path, language: str | None) -> Callable[[Samples], list[str]]:
    """faster-whisper on whole recordings, by the weights in a folder: int8, beam 1, one thread. `language`: None: it is detected.

    Returns:
        A function: samples at SAMPLE_RATE, shape (n,) -> the words as `score.norm` gives them.
    """
    from faster_whisper import WhisperModel  # only here: it brings half the world

    model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def decode(samples: Samples) -> list[str]:
        segments, _ = model.transcribe(
            samples, language=language, beam_size=1, condition_on_previous_text=False
        )
        return norm(" ".join(segment.text for segment in segments))

    return decode


def _offline(
    clips: Sequence[Clip], rows: Sequence[Row], settings: Settings, tell: Callable[[str], None]
) -> Offline | None:
    """Decode the recordings that have a truth as wholes, beam 1; None: there are none."""
    decode = offline(settings.models.dir / "models" / settings.hear.model, settings.hear.language)
    ours, theirs = [], []
    runs = len(rows) // max(1, len(clips))
    for place, clip in enumerate(clips):
        of_clip = rows[place * runs : (place + 1) * runs]
        reference = of_clip[0].reference
        if not reference.true or not reference.words:
            continue
        tell(f"{clip.path.name}: offline")
        ours.append(score_captions.pieces(np.mean([row.edits for row in of_clip], axis=0)))
        theirs.append(score_captions.pieces(score_captions.errors(reference.words, decode(clip.samples))))
    if (
        not ours
        or (difference := score_captions.compare(np.concatenate(ours), np.concatenate(theirs))) is None
    ):
        return None
    edits, words = np.concatenate(theirs).sum(axis=0)
    return Offline(float(edits / words), difference)


# --- told ---------------------------------------------------------------------------------------------------------


def figures(rows: Sequence[Row]) -> dict[str, float | None]:
    """All figures of one run, or of several as one: counts and latencies joined, costs per second of all, the worst of the rest."""
    seconds = sum(row.seconds for row in rows)
    hear = [row.cost.hear for row in rows if row.cost.hear is not None]
    return {
        **score_captions.figures(score_captions.pool([row.score for row in rows])),
        "seconds": round(seconds, 2),
        "cpu_per_audio_s": round(sum(row.cost.cpu for row in rows) / seconds, 3),
        "other_cpu_per_audio_s": round(sum(row.cost.other for row in rows) / seconds, 3),
        "pss_hear_mb": round(max(hear) / 1e6) if hear else None,
        "pss_all_mb": round(max(row.cost.all for row in rows) / 1e6),
        "flush_s": round(max(row.flush for row in rows), 2),
        "late_feed_s": round(max(row.late for row in rows), 3),
        "lost_s": round(sum(row.lost for row in rows), 2),
    }


def as_json(rows: Sequence[Row], offline: Offline | None, plan: Plan, model: str) -> dict[str, Any]:
    """The same for programs: each run, and all as one."""
    told: dict[str, Any] = {
        "model": model,
        "speed": "1" if plan.live else "max",
        "chunk_ms": 1000 * plan.chunk / SAMPLE_RATE,
    }
    told["runs"] = [
        {"recording": row.name, "run": row.run, "ends": row.ends, **figures([row])} for row in rows
    ]
    told["all"] = figures(rows)
    if offline is not None:
        gap = offline.difference
        told["offline"] = {
            "wer": offline.wer,
            "difference": gap.points,
            "upper_95": gap.upper,
            "pieces": gap.pieces,
        }
    return told


HEADS = (
    *("recording", "s", "words", "WER %", "first p50/p95 s", "committed p50/p95/max s", "erasure", "revised"),
    *("CPU s/s", "PSS hear/all MB", "longest gap s", "flush s", "on non-speech", "ends from"),
)


def table(rows: Sequence[Row], offline: Offline | None, plan: Plan) -> str:
    """The figures for people, as a Markdown table with remarks; no word that was said is in it."""
    lines = [
        _line(f"{row.name}{f' ({row.run})' if plan.runs > 1 else ''}", row.ends, figures([row]))
        for row in rows
    ]
    if len(rows) > 1:
        lines.append(_line("all", "", figures(rows)))
    return "\n".join([markdown(HEADS, lines), *_remarks(rows, offline, plan)])


def markdown(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table whose columns stand under each other."""
    widths = [max(len(cell) for cell in column) for column in zip(heads, *rows, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (heads, *rows)
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _line(name: str, ends: str, of: dict[str, float | None]) -> tuple[str, ...]:
    def cell(key: str, digits: int = 0, factor: int = 1) -> str:
        value = of[key]
        return "-" if value is None else f"{factor * value:.{digits}f}"

    return (
        name,
        cell("seconds"),
        cell("words"),
        cell("wer", 1, 100),
        f"{cell('first_p50', 2)} / {cell('first_p95', 2)}",
        f"{cell('commit_p50', 2)} / {cell('commit_p95', 2)} / {cell('commit_max', 2)}",
        cell("erasure", 2),
        cell("commit_erased"),
        cell("cpu_per_audio_s", 3),
        f"{cell('pss_hear_mb')} / {cell('pss_all_mb')}",
        cell("longest_gap_s", 2),
        cell("flush_s", 2),
        cell("non_speech_words"),
        ends,
    )


def _remarks(rows: Sequence[Row], offline: Offline | None, plan: Plan) -> list[str]:
    of = figures(rows)
    lines = []
    if not plan.live:
        lines.append(
            "On a virtual clock: the models' CPU time is their duration; CPU and memory are those of this one process."
        )
    if offline is not None:
        gap = offline.difference
        lines.append(
            f"Offline faster-whisper, beam 1, the same weights: WER {100 * offline.wer:.1f} %. Live minus offline: "
            f"{100 * gap.points:+.1f} points, upper 95 % bound {100 * gap.upper:+.1f} "
            f"(paired bootstrap, {gap.pieces} pieces of about {score_captions.PIECE} words, {score_captions.RESAMPLES} resamples)."
        )
        if gap.pieces < FEW:
            lines.append(
                f"So few pieces bound nothing: take recordings of {FEW * score_captions.PIECE} words or more."
            )
    elif plan.offline:
        lines.append("No recording has a truth: nothing to compare with offline decoding.")
    if not all(row.reference.true for row in rows):
        lines.append(
            "Without a truth the words of an offline decode by the same model are the reference, and there is no WER."
        )
    if (late := of["late_feed_s"] or 0.0) > LATE:
        lines.append(
            f"Doubtful: audio was fed up to {late:.2f} s late, so this process did not get its share of the machine."
        )
    if plan.live and (other := of["other_cpu_per_audio_s"] or 0.0) > BUSY:
        lines.append(
            f"Other work took {other:.2f} CPU s/s of the machine meanwhile: latencies are on the high side."
        )
    if of["lost_s"]:
        lines.append(f"{of['lost_s']:.1f} s of audio were given up.")
    return ["", *lines] if lines else []
